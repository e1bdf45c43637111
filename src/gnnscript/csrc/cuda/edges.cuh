// Writing to edges what their rows hold.
#pragma once

#include "cuda/device.h"
#include "cuda/rows.cuh"

namespace gnnscript {

// Zeros for the edges before the first row and after the last one. There mostly are none, so a few
// threads look.
template <typename T>
__global__ void __launch_bounds__(128) clear_uncovered(const Walk walk, T* out) {
  const int64_t low = walk.ptr[0], high = walk.ptr[walk.rows];
  const int64_t before = low < 0 ? 0 : (low > walk.edges ? walk.edges : low);
  const int64_t after = high < before ? before : (high > walk.edges ? walk.edges : high);
  const int64_t threads = int64_t{gridDim.x} * blockDim.x;
  const int64_t count = (before + walk.edges - after) * walk.lanes;
  for (int64_t at = thread_number(); at < count; at += threads) {
    int64_t position = at / walk.lanes;
    if (position >= before) position += after - before;
    const int64_t edge = walk.edge(position);
    if (edge >= 0) out[edge * walk.lanes + at % walk.lanes] = T{};
  }
}

template <typename T>
void clear_edges(const DeviceScope& scope, const Walk& walk, T* out) {
  if (walk.edges * walk.lanes == 0) return;
  launch(scope, 64 * kThreads, &clear_uncovered<T>, walk, out);
}

}  // namespace gnnscript
