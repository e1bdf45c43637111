// The operands of an edge program, checked and laid out for the kernels of any device.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "checks.h"
#include "edge_program/program.h"
#include "edge_program/spread.h"

namespace gnnscript {

class EdgeOperands {
 public:
  // `nodes` is the number of rows that i operands must have, or -1 for any.
  EdgeOperands(const std::string& text, const std::vector<Tensor>& given, const Tensor& index,
               const Tensor& other, int64_t nodes)
      : program_(compile_program(text)), index_bound(nodes) {
    check_index(index, "index");
    check_index(other, "other");
    edges = index.numel();
    check(other.numel() == edges, "expected index and other of one size, got ", edges, " and ",
          other.numel(), " edges");
    check(!given.empty(), "expected operands, got none");
    const std::vector<char>& sides = program_->sides;
    check(sides.size() <= given.size(), "edge program '", text, "': expected ", sides.size(),
          " operands, got ", given.size());
    dtype = check_floating(given[0], "operand 0");
    for (size_t n = 0; n < given.size(); ++n) check_one(text, given, n);
    check_same_device(given[0], index, "operand 0", "index");
    check_same_device(given[0], other, "operand 0", "other");
    if (index_bound < 0) index_bound = 0;
    if (other_bound < 0) other_bound = 0;
    lanes = 1;
    for (const int64_t size : shape) lanes *= size;
    for (size_t n = 0; n < given.size(); ++n) lay_out(given[n], sides[n]);
  }

  const Program& program() const { return *program_; }
  bool reads(char side) const {
    return std::find(program_->sides.begin(), program_->sides.end(), side) !=
           program_->sides.end();
  }
  // The shape of the result for some rows, without the last `summed` feature dimensions.
  std::vector<int64_t> result_shape(int64_t rows, int64_t summed) const {
    std::vector<int64_t> sizes{rows};
    sizes.insert(sizes.end(), shape.begin(), shape.end() - summed);
    return sizes;
  }

 private:
  std::shared_ptr<const Program> program_;

 public:
  Dtype dtype;
  std::vector<int64_t> shape;  // the feature dimensions that all operands broadcast to
  int64_t lanes = 1, edges = 0, index_bound, other_bound = -1;
  std::vector<EdgeOperand> operands;

 private:
  void check_one(const std::string& text, const std::vector<Tensor>& given, size_t n) {
    const Tensor& tensor = given[n];
    const char side = n < program_->sides.size() ? program_->sides[n] : 0;
    const std::string name = message("operand ", n);
    check(side != 0, "edge program '", text, "' does not read operand ", n, "; leave it out");
    check(tensor.scalar_type() == given[0].scalar_type(), "expected operands of one dtype, got ",
          torch::headeronly::toString(given[0].scalar_type()), " for operand 0 and ",
          torch::headeronly::toString(tensor.scalar_type()), " for ", name);
    check_same_device(given[0], tensor, "operand 0", name.c_str());
    if (side != 's') {
      check(tensor.dim() >= 1, "expected ", name, " (", side, n, ") with a row per ",
            side == 'e' ? "edge" : "node", ", got a scalar");
      int64_t& bound = side == 'e' ? edges : side == 'i' ? index_bound : other_bound;
      if (bound < 0) bound = tensor.size(0);
      check(tensor.size(0) == bound, "expected ", name, " (", side, n, ") with ", bound,
            " rows, got shape ", shape_of(tensor));
    }
    const size_t skip = side == 's' ? 0 : 1;
    const size_t rank = static_cast<size_t>(tensor.dim()) - skip;
    if (rank > shape.size()) shape.insert(shape.begin(), rank - shape.size(), 1);
    for (size_t d = 0; d < rank; ++d) {
      int64_t& size = shape[shape.size() - rank + d];
      const int64_t own = tensor.size(static_cast<int64_t>(d + skip));
      check(own == size || own == 1 || size == 1, "expected feature shapes that broadcast, got ",
            shape_of(tensor), " for ", name, " (", side, n, ") where the others have ", size);
      if (size == 1) size = own;
    }
  }

  void lay_out(Tensor tensor, char side) {
    const int64_t skip = side == 's' ? 0 : 1;
    // What is expanded in memory is broadcast here instead.
    for (int64_t d = skip; d < tensor.dim(); ++d) {
      if (tensor.stride(d) == 0 && tensor.size(d) > 1) {
        tensor = torch::stable::narrow(tensor, d, 0, 1);
      }
    }
    tensor = skip ? rows_contiguous(tensor) : torch::stable::contiguous(tensor);
    const size_t rank = shape.size();
    std::vector<int64_t> own(rank, 1);
    for (int64_t d = tensor.dim() - 1, at = static_cast<int64_t>(rank) - 1; d >= skip; --d, --at) {
      own[static_cast<size_t>(at)] = tensor.size(d);
    }
    EdgeOperand operand{};
    operand.data = tensor.const_data_ptr();
    operand.row_stride = skip ? tensor.stride(0) : 0;
    operand.side = side;
    operand.period = 1;
    for (size_t d = 0; d < rank && d < 32; ++d) {
      if (own[d] != shape[d]) operand.broadcast |= 1u << d;
    }
    operand.spread = classify(own, &operand.period);
    if (operand.spread == Spread::table) {
      tables_.push_back(table_of(own));
      operand.table = tables_.back().data();
    }
    operands.push_back(operand);
    kept_.push_back(std::move(tensor));
  }

  Spread classify(const std::vector<int64_t>& own, int64_t* period) const {
    const auto product = [](auto begin, auto end) {
      int64_t result = 1;
      for (; begin != end; ++begin) result *= *begin;
      return result;
    };
    if (own == shape) return Spread::full;
    if (product(own.begin(), own.end()) == 1) return Spread::scalar;
    for (size_t split = 1; split < own.size(); ++split) {
      const auto at = static_cast<std::ptrdiff_t>(split);
      const bool first_own = std::equal(own.begin(), own.begin() + at, shape.begin());
      const bool last_own = std::equal(own.begin() + at, own.end(), shape.begin() + at);
      *period = product(shape.begin() + at, shape.end());
      if (first_own && product(own.begin() + at, own.end()) == 1) return Spread::repeat;
      if (last_own && product(own.begin(), own.begin() + at) == 1) return Spread::tile;
    }
    return Spread::table;
  }

  std::vector<int32_t> table_of(const std::vector<int64_t>& own) const {
    check(lanes <= INT32_MAX, "expected fewer than 2^31 features, got ", lanes);
    std::vector<int32_t> table(static_cast<size_t>(lanes));
    for (int64_t lane = 0; lane < lanes; ++lane) {
      int64_t rest = lane, offset = 0, step = 1;
      for (size_t d = shape.size(); d-- > 0;) {
        const int64_t coordinate = rest % shape[d];
        rest /= shape[d];
        offset += own[d] == 1 ? 0 : coordinate * step;
        step *= own[d];
      }
      table[static_cast<size_t>(lane)] = static_cast<int32_t>(offset);
    }
    return table;
  }

  std::vector<std::vector<int32_t>> tables_;
  std::vector<Tensor> kept_;
};

}  // namespace gnnscript
