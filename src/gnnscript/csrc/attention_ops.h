// What attention over rows asks of its arguments, on every device.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "checks.h"
#include "edge_program/operands.h"
#include "rows_checks.h"

namespace gnnscript {

// The programs of the score and of the message, and how many features of either belong to a head.
class AttentionOperands {
 public:
  AttentionOperands(const std::string& score_text, const std::vector<Tensor>& score_given,
                    int64_t sum_dims, const std::string& message_text,
                    const std::vector<Tensor>& message_given, const Tensor& index,
                    const Tensor& other, int64_t rows)
      : score(score_text, score_given, index, other, rows),
        message(message_text, message_given, index, other, rows),
        summed_(sum_dims) {
    check(score.dtype == message.dtype, "expected operands of one dtype, got ",
          torch::headeronly::toString(score_given[0].scalar_type()), " for the score and ",
          torch::headeronly::toString(message_given[0].scalar_type()), " for the message");
    check_same_device(score_given[0], message_given[0], "the score's operands", "the message's");
    const int64_t rank = static_cast<int64_t>(score.shape.size());
    check(sum_dims >= 0 && sum_dims <= rank, "expected sum_dims within [0, ", rank,
          "], the number of feature dimensions of the score, got ", sum_dims);
    std::vector<int64_t> own(score.shape.begin(), score.shape.end() - sum_dims);
    while (!own.empty() && own.back() == 1) own.pop_back();
    check(own.size() <= message.shape.size() &&
              std::equal(own.begin(), own.end(), message.shape.begin()),
          "expected messages whose first feature dimensions are those of the score, got ",
          list(message.shape), " for a score of ", list(own));
    for (const int64_t size : own) heads *= size;
    for (auto at = score.shape.end() - sum_dims; at != score.shape.end(); ++at) group *= *at;
    check(!score.reads('j') || !message.reads('j') || score.other_bound == message.other_bound,
          "expected values of as many nodes in the score as in the message, got ",
          score.other_bound, " and ", message.other_bound);
  }

  // Whether there is anything to compute, besides zeros.
  bool is_empty() const { return message.lanes == 0 || heads == 0; }
  bool reads(char side) const { return score.reads(side) || message.reads(side); }
  int64_t other_bound() const { return std::max(score.other_bound, message.other_bound); }
  // The shape of a value per head, for nodes or edges.
  std::vector<int64_t> head_shape(int64_t rows) const { return score.result_shape(rows, summed_); }

  // Values of nodes that the backward pass is given.
  Tensor checked(const Tensor& tensor, const std::vector<int64_t>& shape, ScalarType type,
                 const Tensor& like, const char* name) const {
    const auto sizes = tensor.sizes();
    check(std::equal(sizes.begin(), sizes.end(), shape.begin(), shape.end()) &&
              tensor.scalar_type() == type,
          "expected ", name, " of shape ", list(shape), " and dtype ",
          torch::headeronly::toString(type), ", got ", shape_of(tensor), " and ",
          torch::headeronly::toString(tensor.scalar_type()));
    check_same_device(like, tensor, "the operands", name);
    return torch::stable::contiguous(tensor);
  }

  // What sums and maxima are kept in.
  ScalarType wide() const {
    return score.dtype == Dtype::float64 ? ScalarType::Double : ScalarType::Float;
  }

  EdgeOperands score, message;
  int64_t heads = 1;
  int64_t group = 1;  // lanes of the score's program that are summed

 private:
  static std::string list(const std::vector<int64_t>& sizes) {
    std::string text = "[";
    for (size_t d = 0; d < sizes.size(); ++d) text += (d ? ", " : "") + std::to_string(sizes[d]);
    return text + "]";
  }

  int64_t summed_;
};

}  // namespace gnnscript
