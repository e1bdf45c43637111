#pragma once

#include <cuda_runtime.h>

namespace cub {

struct DeviceScan {
  template <typename Value, typename Count>
  static cudaError_t ExclusiveSum(void* workspace, size_t& bytes, const Value* in, Value* out,
                                  Count count, cudaStream_t) {
    bytes = 1;
    if (workspace == nullptr) return cudaSuccess;
    Value sum = 0;
    for (Count i = 0; i < count; ++i) {
      const Value next = in[i];
      out[i] = sum;
      sum += next;
    }
    return cudaSuccess;
  }
};

}  // namespace cub
