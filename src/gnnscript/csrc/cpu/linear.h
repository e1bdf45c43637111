// A linear layer of rows: out = x @ weight.T + bias.
#pragma once

#include <cstdint>

#include "dtypes.h"
#include "isa.h"

namespace gnnscript {

struct LinearArgs {
  Dtype dtype;         // float32 or float64
  const void* x;       // [rows, in], rows `stride` elements apart
  const void* weight;  // [out, in], rows `weight_stride` elements apart
  const void* bias;    // [out], or null
  void* result;        // [rows, out]
  int64_t rows, in, out, stride, weight_stride;
};

GNNSCRIPT_KERNEL(linear_rows, LinearArgs&)

}  // namespace gnnscript
