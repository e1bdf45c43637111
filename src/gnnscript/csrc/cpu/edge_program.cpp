#include "cpu/edge_program.h"

#include <new>

#include "cpu/edge_call.h"
#include "registration.h"
#include "rows_checks.h"

namespace gnnscript {

char* allocate_scratch(int64_t bytes) {
  return static_cast<char*>(::operator new(static_cast<size_t>(bytes), std::align_val_t(64)));
}

void free_scratch(char* scratch) { ::operator delete(scratch, std::align_val_t(64)); }

namespace {

EdgeReduction parse_reduction(const std::string& reduce) {
  if (reduce == "sum" || reduce == "add") return EdgeReduction::sum;
  if (reduce == "mean") return EdgeReduction::mean;
  if (reduce == "min" || reduce == "amin") return EdgeReduction::min;
  if (reduce == "max" || reduce == "amax") return EdgeReduction::max;
  if (reduce == "mul" || reduce == "prod") return EdgeReduction::mul;
  throw std::invalid_argument(message(
      "expected reduce to be one of sum, mean, min, max and mul, got '", reduce, "'"));
}

Tensor edge_reduce(const std::string& program, const std::vector<Tensor>& tensors,
                   const Tensor& index, const Tensor& other, const Tensor& ptr, const Tensor& perm,
                   const std::string& reduce) {
  const EdgeReduction reduction = parse_reduction(reduce);
  check(!tensors.empty(), "expected operands, got none");
  const Sorted sorted(index, index.numel(), ptr, perm);
  const EdgeOperands operands(program, tensors, index, other, sorted.num_rows());
  Tensor out = empty_with(tensors[0], operands.result_shape(sorted.num_rows(), 0));
  EdgeCall call(operands, index, other);
  EdgeArgs& args = call.args;
  if (args.lanes == 0) return out;
  args.out = out.mutable_data_ptr();
  args.rows = sorted.rows(args.lanes * static_cast<int64_t>(tensors[0].element_size()));
  args.perm = sorted.perm_data();
  args.reduction = reduction;
  const int64_t width = args.dtype == Dtype::float64 ? 8 : 4;
  const Tensor partials = empty_bytes(index, args.rows.chunks() * 2 * args.lanes * width);
  args.partials = partials.mutable_data_ptr();
  GNNSCRIPT_SELECT(edge_reduce)(args);
  if (args.bad_edge >= 0) sorted.throw_bad_perm(args.bad_edge);
  call.check_indices();
  return out;
}

Tensor edge_map(const std::string& program, const std::vector<Tensor>& tensors,
                const Tensor& index, const Tensor& other, int64_t sum_dims) {
  const EdgeOperands operands(program, tensors, index, other, -1);
  const int64_t rank = static_cast<int64_t>(operands.shape.size());
  check(sum_dims >= 0 && sum_dims <= rank, "expected sum_dims within [0, ", rank,
        "], the number of feature dimensions, got ", sum_dims);
  Tensor out = empty_with(tensors[0], operands.result_shape(operands.edges, sum_dims));
  EdgeCall call(operands, index, other);
  EdgeArgs& args = call.args;
  if (args.lanes == 0) return torch::stable::zero_(out);
  for (int64_t d = rank - sum_dims; d < rank; ++d) args.group *= operands.shape[static_cast<size_t>(d)];
  args.out = out.mutable_data_ptr();
  GNNSCRIPT_SELECT(edge_map)(args);
  call.check_indices();
  return out;
}

}  // namespace

GNNSCRIPT_IMPLEMENT(CPU, m) {
  m.impl("edge_reduce", TORCH_BOX(&edge_reduce));
  m.impl("edge_map", TORCH_BOX(&edge_map));
}

}  // namespace gnnscript
