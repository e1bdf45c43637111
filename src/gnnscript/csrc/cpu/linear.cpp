#include "cpu/linear.h"

#include <array>
#include <optional>

#include "checks.h"
#include "registration.h"

namespace gnnscript {
namespace {

Tensor linear(const Tensor& x_given, const Tensor& weight_given,
              const std::optional<Tensor>& bias_given) {
  check(x_given.dim() == 2, "expected x of shape [E, K], got shape ", shape_of(x_given));
  check(weight_given.dim() == 2 && weight_given.size(1) == x_given.size(1),
        "expected weight of shape [F, ", x_given.size(1), "], with a column for each feature of x, "
        "got shape ", shape_of(weight_given));
  LinearArgs args{};
  args.dtype = check_floating(x_given, "x");
  check(args.dtype == Dtype::float32 || args.dtype == Dtype::float64,
        "expected x of dtype float32 or float64, got ",
        torch::headeronly::toString(x_given.scalar_type()));
  const auto check_like_x = [&](const Tensor& tensor, const char* name) {
    check(tensor.scalar_type() == x_given.scalar_type(), "expected ", name, " of the dtype of x, ",
          torch::headeronly::toString(x_given.scalar_type()), ", got ",
          torch::headeronly::toString(tensor.scalar_type()));
    check_same_device(x_given, tensor, "x", name);
  };
  check_like_x(weight_given, "weight");
  const Tensor x = rows_contiguous(x_given);
  const Tensor weight = rows_contiguous(weight_given);
  std::optional<Tensor> bias;
  if (bias_given.has_value()) {
    check(bias_given->dim() == 1 && bias_given->size(0) == weight.size(0),
          "expected bias of shape [", weight.size(0), "], got shape ", shape_of(*bias_given));
    check_like_x(*bias_given, "bias");
    bias = torch::stable::contiguous(*bias_given);
  }
  Tensor out = empty_with(x, {x.size(0), weight.size(0)});
  args.x = x.const_data_ptr();
  args.weight = weight.const_data_ptr();
  args.bias = bias.has_value() ? bias->const_data_ptr() : nullptr;
  args.result = out.mutable_data_ptr();
  args.rows = x.size(0);
  args.in = x.size(1);
  args.out = weight.size(0);
  args.stride = x.stride(0);
  args.weight_stride = weight.stride(0);
  if (out.numel() > 0) GNNSCRIPT_SELECT(linear_rows)(args);
  return out;
}

// On other devices torch's own: a program that was compiled or exported may be moved there.
Tensor linear_elsewhere(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias) {
  using torch::stable::detail::from;
  std::array<StableIValue, 3> stack{from(x), from(weight), from(bias)};
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("aten::linear", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

}  // namespace

GNNSCRIPT_IMPLEMENT(CPU, m) { m.impl("linear", TORCH_BOX(&linear)); }

GNNSCRIPT_IMPLEMENT(CompositeExplicitAutograd, m) {
  m.impl("linear", TORCH_BOX(&linear_elsewhere));
}

}  // namespace gnnscript
