#include "cpu/segment.h"

#include "checks.h"
#include "rows_checks.h"

namespace gnnscript {
namespace {

Reduce parse_reduce(const std::string& reduce) {
  if (reduce == "sum" || reduce == "add") return Reduce::sum;
  if (reduce == "mean") return Reduce::mean;
  if (reduce == "min" || reduce == "amin") return Reduce::min;
  if (reduce == "max" || reduce == "amax") return Reduce::max;
  if (reduce == "mul" || reduce == "prod") return Reduce::mul;
  if (reduce == "any") return Reduce::any;
  if (reduce == "var") return Reduce::var;
  if (reduce == "std") return Reduce::std;
  if (reduce == "logsumexp") return Reduce::logsumexp;
  throw std::invalid_argument(
      message("expected reduce to be one of sum, add, mean, min, amin, max, amax, mul, prod, any, "
              "var, std and logsumexp, got '",
              reduce, "'"));
}

// Reduces into those of the outputs that are set.
void run(const Tensor& src_given, const Sorted& sorted, Reduce reduce,
         const std::vector<Tensor*>& outputs) {
  const Tensor src = rows_contiguous(src_given);
  SegmentArgs args{};
  args.dtype = check_floating(src, "src");
  args.reduce = reduce;
  args.src = src.const_data_ptr();
  args.stride = src.stride(0);
  args.perm = sorted.perm_data();
  args.edges = src.size(0);
  args.features = features_of(src);
  args.rows = sorted.rows(args.features * static_cast<int64_t>(src.element_size()));
  args.bad = -1;
  for (size_t i = 0; i < outputs.size(); ++i) {
    args.out[i] = outputs[i] == nullptr ? nullptr : outputs[i]->mutable_data_ptr();
  }
  std::optional<Tensor> partials;
  if (args.rows.chunks() > 1) {
    const int64_t width = args.dtype == Dtype::float64 ? 8 : 4;
    partials = empty_bytes(
        src, args.rows.chunks() * 2 * reduce_states(reduce) * args.features * width);
    args.partials = partials->mutable_data_ptr();
  }
  GNNSCRIPT_SELECT(segment_reduce)(args);
  if (args.bad >= 0) sorted.throw_bad_perm(args.bad);
}

Tensor segment_reduce(const Tensor& src, const Tensor& ptr, const std::optional<Tensor>& perm,
                      const std::string& reduce_name) {
  const Reduce reduce = parse_reduce(reduce_name);
  const Sorted sorted(src, ptr, perm);
  Tensor out = empty_with(src, sizes_with(src, sorted.num_rows()));
  run(src, sorted, reduce, {&out});
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gnnscript, CPU, m) {
  m.impl("segment_reduce", TORCH_BOX(&segment_reduce));
}

}  // namespace gnnscript
