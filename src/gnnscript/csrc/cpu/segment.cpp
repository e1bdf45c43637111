#include "cpu/segment.h"

#include <algorithm>

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

// The place of a reduction among the outputs of Reduce::statistics, or -1.
int statistic(Reduce reduce) {
  switch (reduce) {
    case Reduce::sum:
      return 0;
    case Reduce::mean:
      return 1;
    case Reduce::min:
      return 2;
    case Reduce::max:
      return 3;
    case Reduce::var:
      return 4;
    case Reduce::std:
      return 5;
    default:
      return -1;
  }
}

Tensor empty_partials(const Tensor& src, Dtype dtype, const Rows& rows, int64_t states,
                      int64_t features) {
  const int64_t width = dtype == Dtype::float64 ? 8 : 4;
  return empty_bytes(src, rows.chunks() * 2 * states * features * width);
}

// Reduces into those of the outputs that are set.
void run_reduce(const Tensor& src_given, const Sorted& sorted, Reduce reduce,
                const std::vector<const Tensor*>& outputs, const Tensor* target = nullptr) {
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
  args.target = target == nullptr ? nullptr : target->const_data_ptr();
  args.bad = -1;
  for (size_t i = 0; i < outputs.size(); ++i) {
    args.out[i] = outputs[i] == nullptr ? nullptr : outputs[i]->mutable_data_ptr();
  }
  std::optional<Tensor> partials;
  if (args.rows.chunks() > 1) {
    partials = empty_partials(src, args.dtype, args.rows, reduce_states(reduce), args.features);
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
  run_reduce(src, sorted, reduce, {&out});
  return out;
}

std::vector<Tensor> segment_reduces(const Tensor& src, const Tensor& ptr,
                                    const std::optional<Tensor>& perm,
                                    const std::vector<std::string>& names) {
  std::vector<Reduce> reduces;
  for (const std::string& name : names) reduces.push_back(parse_reduce(name));
  const Sorted sorted(src, ptr, perm);
  const std::vector<int64_t> sizes = sizes_with(src, sorted.num_rows());
  std::vector<Tensor> results;
  for (size_t i = 0; i < reduces.size(); ++i) results.push_back(empty_with(src, sizes));

  // Those that share the first pass; others, and what is asked for again, pass on their own.
  std::vector<const Tensor*> together(kMaxOutputs, nullptr);
  std::vector<size_t> alone;
  for (size_t i = 0; i < reduces.size(); ++i) {
    const int place = statistic(reduces[i]);
    if (place >= 0 && together[place] == nullptr) {
      together[place] = &results[i];
    } else {
      alone.push_back(i);
    }
  }
  if (std::any_of(together.begin(), together.end(), [](auto* t) { return t != nullptr; })) {
    run_reduce(src, sorted, Reduce::statistics, together);
  }
  for (size_t i : alone) run_reduce(src, sorted, reduces[i], {&results[i]});
  return results;
}

Tensor segment_reduce_backward(const Tensor& grad_given, const Tensor& src_given,
                               const Tensor& out_given, const Tensor& ptr,
                               const std::optional<Tensor>& perm, const std::string& reduce_name) {
  const Sorted sorted(src_given, ptr, perm);
  const std::vector<int64_t> rows_shape = sizes_with(src_given, sorted.num_rows());
  for (const auto& [tensor, name] : {std::pair(&grad_given, "grad"), std::pair(&out_given, "out")}) {
    const auto sizes = tensor->sizes();
    check(std::equal(sizes.begin(), sizes.end(), rows_shape.begin(), rows_shape.end()) &&
              tensor->scalar_type() == src_given.scalar_type(),
          "expected ", name, " of the shape and dtype of the reduced src, got shape ",
          shape_of(*tensor));
    check_same_device(src_given, *tensor, "src", name);
  }
  const Tensor src = torch::stable::contiguous(src_given);
  const Tensor grad = torch::stable::contiguous(grad_given);
  const Tensor out = torch::stable::contiguous(out_given);
  const std::vector<int64_t> sizes = sizes_with(src, src.size(0));
  Tensor result = sorted.complete() ? empty_with(src, sizes)
                                    : torch::stable::new_zeros(src, {sizes.data(), sizes.size()});

  SegmentGradientArgs args{};
  args.dtype = check_floating(src, "src");
  args.reduce = parse_reduce(reduce_name);
  args.perm = sorted.perm_data();
  args.features = features_of(src);
  args.rows = sorted.rows(args.features * static_cast<int64_t>(src.element_size()));
  args.grad = grad.const_data_ptr();
  args.src = src.const_data_ptr();
  args.out = out.const_data_ptr();
  args.result = result.mutable_data_ptr();

  std::vector<Tensor> statistics;
  const auto gather_statistics = [&](Reduce reduce, int count, const Tensor* target) {
    const ScalarType wide =
        args.dtype == Dtype::float64 ? ScalarType::Double : ScalarType::Float;
    std::vector<const Tensor*> outputs;
    statistics.reserve(count);
    for (int i = 0; i < count; ++i) {
      statistics.push_back(
          torch::stable::new_empty(src, {rows_shape.data(), rows_shape.size()}, wide));
      outputs.push_back(&statistics[i]);
    }
    run_reduce(src, sorted, reduce, outputs, target);
    args.first = statistics[0].const_data_ptr();
    if (count > 1) args.second = statistics[1].const_data_ptr();
  };
  switch (args.reduce) {
    case Reduce::min:
    case Reduce::max:
      gather_statistics(Reduce::ties, 1, &out);
      break;
    case Reduce::mul:
      gather_statistics(Reduce::products, 2, nullptr);
      break;
    case Reduce::var:
    case Reduce::std:
      gather_statistics(Reduce::mean_wide, 1, nullptr);
      break;
    default:
      sorted.check_perm();
  }
  GNNSCRIPT_SELECT(segment_gradient)(args);
  return result;
}

SoftmaxArgs softmax_args(const Tensor& src, const Sorted& sorted, Tensor& out, Tensor& partials,
                         int64_t states) {
  SoftmaxArgs args{};
  args.dtype = check_floating(src, "src");
  args.src = src.const_data_ptr();
  args.stride = src.stride(0);
  args.perm = sorted.perm_data();
  args.edges = src.size(0);
  args.features = features_of(src);
  args.rows = sorted.rows(args.features * static_cast<int64_t>(src.element_size()));
  args.bad = -1;
  const std::vector<int64_t> sizes = sizes_with(src, src.size(0));
  out = sorted.complete() ? empty_with(src, sizes)
                          : torch::stable::new_zeros(src, {sizes.data(), sizes.size()});
  args.out = out.mutable_data_ptr();
  partials = empty_partials(src, args.dtype, args.rows, states, args.features);
  args.partials = partials.mutable_data_ptr();
  return args;
}

Tensor edge_softmax(const Tensor& src_given, const Tensor& ptr, const std::optional<Tensor>& perm) {
  const Sorted sorted(src_given, ptr, perm);
  const Tensor src = rows_contiguous(src_given);
  Tensor out, partials;
  SoftmaxArgs args = softmax_args(src, sorted, out, partials, 2);
  GNNSCRIPT_SELECT(softmax_forward)(args);
  if (args.bad >= 0) sorted.throw_bad_perm(args.bad);
  return out;
}

Tensor edge_softmax_backward(const Tensor& grad_given, const Tensor& weights_given,
                             const Tensor& ptr, const std::optional<Tensor>& perm) {
  const Sorted sorted(weights_given, ptr, perm);
  const auto sizes = weights_given.sizes();
  check(std::equal(sizes.begin(), sizes.end(), grad_given.sizes().begin(),
                   grad_given.sizes().end()) &&
            grad_given.scalar_type() == weights_given.scalar_type(),
        "expected grad of the shape and dtype of out, ", shape_of(weights_given), ", got ",
        shape_of(grad_given));
  check_same_device(weights_given, grad_given, "out", "grad");
  const Tensor weights = torch::stable::contiguous(weights_given);
  const Tensor grad = torch::stable::contiguous(grad_given);
  Tensor result, partials;
  SoftmaxArgs args = softmax_args(weights, sorted, result, partials, 1);
  args.grad = grad.const_data_ptr();
  GNNSCRIPT_SELECT(softmax_backward)(args);
  if (args.bad >= 0) sorted.throw_bad_perm(args.bad);
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gnnscript, CPU, m) {
  m.impl("segment_reduce", TORCH_BOX(&segment_reduce));
  m.impl("segment_reduces", TORCH_BOX(&segment_reduces));
  m.impl("segment_reduce_backward", TORCH_BOX(&segment_reduce_backward));
  m.impl("edge_softmax", TORCH_BOX(&edge_softmax));
  m.impl("edge_softmax_backward", TORCH_BOX(&edge_softmax_backward));
}

}  // namespace gnnscript
