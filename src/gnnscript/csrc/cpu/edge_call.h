// The arguments of the kernels of edge programs, from operands that are checked.
#pragma once

#include "cpu/edge_program.h"
#include "edge_program/operands.h"

namespace gnnscript {

// The indices stay alive as long as the arguments that point into them.
struct EdgeCall {
  EdgeCall(const EdgeOperands& operands, const Tensor& index_given, const Tensor& other_given)
      : index(torch::stable::contiguous(index_given)),
        other(torch::stable::contiguous(other_given)) {
    args.program = &operands.program();
    args.operands = operands.operands.data();
    args.dtype = operands.dtype;
    args.lanes = operands.lanes;
    args.edges = operands.edges;
    args.index = operands.reads('i') ? index.const_data_ptr() : nullptr;
    args.other = operands.reads('j') ? other.const_data_ptr() : nullptr;
    args.wide_index = is_wide(index);
    args.wide_other = is_wide(other);
    args.index_bound = operands.index_bound;
    args.other_bound = operands.other_bound;
    args.group = 1;
    args.bad_edge = args.bad_index = args.bad_other = -1;
  }

  void check_indices() const {
    if (args.bad_index >= 0) {
      out_of_range("index", args.bad_index, value_at(index, args.bad_index), args.index_bound,
                   "the number of nodes");
    }
    if (args.bad_other >= 0) {
      out_of_range("other", args.bad_other, value_at(other, args.bad_other), args.other_bound,
                   "the number of nodes");
    }
  }

  Tensor index, other;
  EdgeArgs args{};
};

}  // namespace gnnscript
