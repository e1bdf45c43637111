#pragma once

#include "cpu/simd.h"

struct __nv_bfloat16 {
  gnnscript::BFloat16 value;
};

inline __nv_bfloat16 __ushort_as_bfloat16(uint16_t bits) { return {{bits}}; }
inline uint16_t __bfloat16_as_ushort(__nv_bfloat16 x) { return x.value.bits; }
inline float __bfloat162float(__nv_bfloat16 x) {
  return gnnscript::GNNSCRIPT_ISA::load<float, 1>(&x.value);
}
inline __nv_bfloat16 __float2bfloat16_rn(float x) {
  __nv_bfloat16 result;
  gnnscript::GNNSCRIPT_ISA::store<float, 1>(&result.value, x);
  return result;
}
