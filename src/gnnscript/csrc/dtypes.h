// The element types of the kernels, without torch.
#pragma once

#include <cstdint>

namespace gnnscript {

enum class Dtype { float64, float32, float16, bfloat16 };

struct Half {
  uint16_t bits;
};

struct BFloat16 {
  uint16_t bits;
};

// What a type is computed in: halves in single precision.
template <typename T>
struct ComputeType {
  using type = T;
};
template <>
struct ComputeType<Half> {
  using type = float;
};
template <>
struct ComputeType<BFloat16> {
  using type = float;
};
template <typename T>
using compute_t = typename ComputeType<T>::type;

// Calls `f` with a null pointer of the element type.
template <typename F>
inline void dispatch_dtype(Dtype dtype, const F& f) {
  switch (dtype) {
    case Dtype::float64:
      return f(static_cast<double*>(nullptr));
    case Dtype::float32:
      return f(static_cast<float*>(nullptr));
    case Dtype::float16:
      return f(static_cast<Half*>(nullptr));
    case Dtype::bfloat16:
      return f(static_cast<BFloat16*>(nullptr));
  }
}

}  // namespace gnnscript
