#include "cpu/attention.h"

#include <tuple>

#include "attention_ops.h"
#include "cpu/edge_call.h"
#include "registration.h"

namespace gnnscript {
namespace {

// The arguments of both programs; what they point to stays alive as long.
struct Call {
  Call(const AttentionOperands& operands, const Sorted& sorted, const Tensor& index,
       const Tensor& other)
      : score(operands.score, index, other), message(operands.message, index, other) {
    EdgeArgs& found = score.args;  // its indices are those of both programs
    found.group = operands.group;
    found.index = nullptr;  // an edge's node is the row that it is in
    found.other = operands.reads('j') ? score.other.const_data_ptr() : nullptr;
    found.other_bound = operands.other_bound();
    found.perm = sorted.perm_data();
    message.args.rows =
        sorted.rows(operands.message.lanes * (found.dtype == Dtype::float64 ? 8 : 4));
    args.heads = operands.heads;
  }

  void finish(const Sorted& sorted) {
    if (args.score.bad_edge >= 0) sorted.throw_bad_perm(args.score.bad_edge);
    score.args = args.score;
    score.check_indices();
  }

  EdgeCall score, message;
  AttentionArgs args{};
};

std::tuple<Tensor, Tensor, Tensor> edge_attention(
    const std::string& score, const std::vector<Tensor>& score_operands, int64_t sum_dims,
    const std::string& message, const std::vector<Tensor>& message_operands, const Tensor& index,
    const Tensor& other, const Tensor& ptr, const Tensor& perm) {
  const Sorted sorted(index, index.numel(), ptr, perm);
  const int64_t rows = sorted.num_rows();
  const AttentionOperands operands(score, score_operands, sum_dims, message, message_operands,
                                   index, other, rows);
  const Tensor& like = message_operands[0];
  Tensor out = empty_with(like, operands.message.result_shape(rows, 0));
  Tensor high = empty_of(like, operands.head_shape(rows), operands.wide());
  Tensor total = empty_of(like, operands.head_shape(rows), operands.wide());
  if (operands.is_empty()) {
    return {torch::stable::zero_(out), torch::stable::zero_(high), torch::stable::zero_(total)};
  }
  Call call(operands, sorted, index, other);
  AttentionArgs& args = call.args;
  args.score = call.score.args;
  args.message = call.message.args;
  args.message.out = out.mutable_data_ptr();
  args.high = high.mutable_data_ptr();
  args.total = total.mutable_data_ptr();
  const int64_t width = operands.score.dtype == Dtype::float64 ? 8 : 4;
  const int64_t kept = 2 * operands.heads + operands.message.lanes;
  const Tensor partials = empty_bytes(index, args.message.rows.chunks() * 2 * kept * width);
  args.message.partials = partials.mutable_data_ptr();
  GNNSCRIPT_SELECT(attention_forward)(args);
  call.finish(sorted);
  return {out, high, total};
}

std::tuple<Tensor, Tensor> edge_attention_backward(
    const std::string& score, const std::vector<Tensor>& score_operands, int64_t sum_dims,
    const std::string& message, const std::vector<Tensor>& message_operands, const Tensor& index,
    const Tensor& other, const Tensor& ptr, const Tensor& perm, const Tensor& grad_given,
    const Tensor& high_given, const Tensor& total_given, const Tensor& mean_given) {
  const Sorted sorted(index, index.numel(), ptr, perm);
  const int64_t rows = sorted.num_rows();
  const AttentionOperands operands(score, score_operands, sum_dims, message, message_operands,
                                   index, other, rows);
  const Tensor& like = message_operands[0];
  const std::vector<int64_t> per_head = operands.head_shape(rows);
  const ScalarType wide = operands.wide();
  const Tensor grad = operands.checked(grad_given, operands.message.result_shape(rows, 0),
                                       like.scalar_type(), like, "grad");
  const Tensor high = operands.checked(high_given, per_head, wide, like, "high");
  const Tensor total = operands.checked(total_given, per_head, wide, like, "total");
  const Tensor mean = operands.checked(mean_given, per_head, wide, like, "mean");
  Tensor weight = empty_with(like, operands.head_shape(operands.score.edges));
  Tensor slope = empty_with(like, operands.head_shape(operands.score.edges));
  if (operands.is_empty() || !sorted.complete()) {
    weight = torch::stable::zero_(weight);
    slope = torch::stable::zero_(slope);
  }
  if (operands.is_empty()) return {weight, slope};
  Call call(operands, sorted, index, other);
  AttentionArgs& args = call.args;
  args.score = call.score.args;
  args.message = call.message.args;
  args.grad = grad.const_data_ptr();
  args.high = const_cast<void*>(high.const_data_ptr());
  args.total = const_cast<void*>(total.const_data_ptr());
  args.mean = mean.const_data_ptr();
  args.weight = weight.mutable_data_ptr();
  args.slope = slope.mutable_data_ptr();
  GNNSCRIPT_SELECT(attention_backward)(args);
  call.finish(sorted);
  return {weight, slope};
}

}  // namespace

GNNSCRIPT_IMPLEMENT(CPU, m) {
  m.impl("edge_attention", TORCH_BOX(&edge_attention));
  m.impl("edge_attention_backward", TORCH_BOX(&edge_attention_backward));
}

}  // namespace gnnscript
