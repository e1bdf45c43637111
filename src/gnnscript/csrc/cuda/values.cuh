// Elements and neighbouring elements, as device code reads and writes them.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "dtypes.h"

namespace gnnscript {

__device__ __forceinline__ double widen(double x) { return x; }
__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(Half x) { return __half2float(__ushort_as_half(x.bits)); }
__device__ __forceinline__ float widen(BFloat16 x) {
  return __bfloat162float(__ushort_as_bfloat16(x.bits));
}

template <typename T>
__device__ __forceinline__ T narrow(compute_t<T> x) {
  if constexpr (std::is_same_v<T, Half>) {
    return Half{__half_as_ushort(__float2half_rn(x))};
  } else if constexpr (std::is_same_v<T, BFloat16>) {
    return BFloat16{__bfloat16_as_ushort(__float2bfloat16_rn(x))};
  } else {
    return x;
  }
}

// Elements that one instruction reads.
template <typename T, int V>
struct alignas(sizeof(T) * V) Pack {
  T values[V];
};
template <typename T>
constexpr int kWidest = 16 / sizeof(T);

template <int V, typename T>
__device__ __forceinline__ void load_pack(const T* from, compute_t<T>* to) {
  const Pack<T, V> pack = *reinterpret_cast<const Pack<T, V>*>(from);
#pragma unroll
  for (int v = 0; v < V; ++v) to[v] = widen(pack.values[v]);
}

template <int V, typename T>
__device__ __forceinline__ void store_pack(T* to, const compute_t<T>* from) {
  Pack<T, V> pack;
#pragma unroll
  for (int v = 0; v < V; ++v) pack.values[v] = narrow<T>(from[v]);
  *reinterpret_cast<Pack<T, V>*>(to) = pack;
}

// Whether rows can be read and written in packs of V.
template <typename T>
bool packs_fit(const void* data, int64_t stride, int64_t lanes, int V) {
  return lanes % V == 0 && stride % V == 0 &&
         reinterpret_cast<uintptr_t>(data) % (sizeof(T) * static_cast<size_t>(V)) == 0;
}

__device__ __forceinline__ int64_t thread_number() {
  return int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
}

__device__ __forceinline__ bool is_within(int64_t value, int64_t bound) {
  return static_cast<uint64_t>(value) < static_cast<uint64_t>(bound);
}

}  // namespace gnnscript
