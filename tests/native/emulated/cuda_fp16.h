#pragma once

#include "cpu/simd.h"

struct __half {
  gnnscript::Half value;
};

inline __half __ushort_as_half(uint16_t bits) { return {{bits}}; }
inline uint16_t __half_as_ushort(__half x) { return x.value.bits; }
inline float __half2float(__half x) {
  return gnnscript::GNNSCRIPT_ISA::load<float, 1>(&x.value);
}
inline __half __float2half_rn(float x) {
  __half result;
  gnnscript::GNNSCRIPT_ISA::store<float, 1>(&result.value, x);
  return result;
}
