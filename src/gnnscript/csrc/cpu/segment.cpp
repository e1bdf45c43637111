#include "registration.h"
#include "segment_ops.h"

namespace gnnscript {
namespace {

Tensor empty_partials(const Tensor& src, Dtype dtype, const Rows& rows, int64_t states,
                      int64_t features) {
  const int64_t width = dtype == Dtype::float64 ? 8 : 4;
  return empty_bytes(src, rows.chunks() * 2 * states * features * width);
}

struct Cpu {
  static void run_reduce(const Tensor& src_given, const Sorted& sorted, Reduce reduce,
                         const std::vector<const Tensor*>& outputs, const Tensor* target) {
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

  static Tensor fresh_edges(const Tensor& like, const Sorted& sorted) {
    const std::vector<int64_t> sizes = sizes_with(like, like.size(0));
    return sorted.complete() ? empty_with(like, sizes)
                             : torch::stable::new_zeros(like, {sizes.data(), sizes.size()});
  }

  static void run_gradient(SegmentGradientArgs& args, const Tensor&, const Sorted& sorted,
                           bool checked) {
    if (!checked) sorted.check_perm();
    GNNSCRIPT_SELECT(segment_gradient)(args);
  }
};

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
  out = Cpu::fresh_edges(src, sorted);
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
  check_softmax_gradient(grad_given, weights_given);
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

GNNSCRIPT_IMPLEMENT(CPU, m) {
  m.impl("segment_reduce", TORCH_BOX(&SegmentOps<Cpu>::segment_reduce));
  m.impl("segment_reduces", TORCH_BOX(&SegmentOps<Cpu>::segment_reduces));
  m.impl("segment_reduce_backward", TORCH_BOX(&SegmentOps<Cpu>::segment_reduce_backward));
  m.impl("edge_softmax", TORCH_BOX(&edge_softmax));
  m.impl("edge_softmax_backward", TORCH_BOX(&edge_softmax_backward));
}

}  // namespace gnnscript
