// What the ops that reduce rows do on every device, in terms of what its kernels do. A `Device` has
//
//   run_reduce(src, sorted, reduce, outputs, target)  reduces into those of the outputs that are set
//   fresh_edges(like, sorted)                         a tensor in the shape of `like`, in which the
//                                                     edges of no row hold zeros
//   run_gradient(args, src, sorted, checked)          see SegmentGradientArgs; `checked`: whether
//                                                     run_reduce has read `perm`
#pragma once

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "checks.h"
#include "cpu/segment.h"
#include "rows_checks.h"

namespace gnnscript {

inline Reduce parse_reduce(const std::string& reduce) {
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
inline int statistic(Reduce reduce) {
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

inline bool has_shape(const Tensor& tensor, const std::vector<int64_t>& shape) {
  const auto sizes = tensor.sizes();
  return std::equal(sizes.begin(), sizes.end(), shape.begin(), shape.end());
}

// What a reduction of edges in no order asks of its arguments.
inline Reduce check_scattered(const Tensor& src, const Tensor& index, int64_t size,
                              const std::string& name) {
  check_index(index, "index");
  check(size >= 0, "expected a number of nodes, got size ", size);
  check(src.dim() > 0 && src.size(0) == index.numel(), "expected src of ", index.numel(),
        " edges, as index has, got shape ", shape_of(src));
  check_same_device(src, index, "src", "index");
  const Reduce reduce = parse_reduce(name);
  check(reduce_states(reduce) == 1, "expected reduce to be one of sum, mean, min, max, mul and any, "
        "which need no sorted edges, got '", name, "'");
  return reduce;
}

inline void check_softmax_gradient(const Tensor& grad, const Tensor& weights) {
  check(has_shape(grad, sizes_with(weights, weights.size(0))) &&
            grad.scalar_type() == weights.scalar_type(),
        "expected grad of the shape and dtype of out, ", shape_of(weights), ", got ",
        shape_of(grad));
  check_same_device(weights, grad, "out", "grad");
}

template <typename Device>
struct SegmentOps {
  static Tensor segment_reduce(const Tensor& src, const Tensor& ptr,
                               const std::optional<Tensor>& perm, const std::string& name) {
    const Reduce reduce = parse_reduce(name);
    const Sorted sorted(src, ptr, perm);
    Tensor out = empty_with(src, sizes_with(src, sorted.num_rows()));
    Device::run_reduce(src, sorted, reduce, {&out}, nullptr);
    return out;
  }

  static std::vector<Tensor> segment_reduces(const Tensor& src, const Tensor& ptr,
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
      Device::run_reduce(src, sorted, Reduce::statistics, together, nullptr);
    }
    for (size_t i : alone) Device::run_reduce(src, sorted, reduces[i], {&results[i]}, nullptr);
    return results;
  }

  static Tensor segment_reduce_backward(const Tensor& grad_given, const Tensor& src_given,
                                        const Tensor& out_given, const Tensor& ptr,
                                        const std::optional<Tensor>& perm,
                                        const std::string& name) {
    const Sorted sorted(src_given, ptr, perm);
    const std::vector<int64_t> rows_shape = sizes_with(src_given, sorted.num_rows());
    for (const auto& [tensor, which] :
         {std::pair(&grad_given, "grad"), std::pair(&out_given, "out")}) {
      check(has_shape(*tensor, rows_shape) && tensor->scalar_type() == src_given.scalar_type(),
            "expected ", which, " of the shape and dtype of the reduced src, got shape ",
            shape_of(*tensor));
      check_same_device(src_given, *tensor, "src", which);
    }
    const Tensor src = torch::stable::contiguous(src_given);
    const Tensor grad = torch::stable::contiguous(grad_given);
    const Tensor out = torch::stable::contiguous(out_given);
    Tensor result = Device::fresh_edges(src, sorted);

    SegmentGradientArgs args{};
    args.dtype = check_floating(src, "src");
    args.reduce = parse_reduce(name);
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
        statistics.push_back(empty_of(src, rows_shape, wide));
        outputs.push_back(&statistics[i]);
      }
      Device::run_reduce(src, sorted, reduce, outputs, target);
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
        break;
    }
    Device::run_gradient(args, src, sorted, !statistics.empty());
    return result;
  }
};

}  // namespace gnnscript
