// A CUDA that runs on the CPU, thread after thread, so that the kernels' arithmetic, indices and
// guards can be tested where there is no GPU: `make emulate`. It stands in for the headers of CUDA.
//
// It shows neither races nor what a real GPU's memory does. Threads run in descending order, as none
// is promised; those of a block that work together are fibers, which change at every barrier.
#pragma once

#include <math.h>
#include <ucontext.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};
inline dim3 threadIdx, blockIdx, blockDim, gridDim;

// -- the runtime -----------------------------------------------------------------------------------

enum cudaError_t { cudaSuccess };
enum cudaMemcpyKind { cudaMemcpyDeviceToHost, cudaMemcpyHostToDevice };
enum cudaStreamCaptureStatus { cudaStreamCaptureStatusNone };
struct CUstream_st;
using cudaStream_t = CUstream_st*;

inline const char* cudaGetErrorString(cudaError_t) { return "none"; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus*) {
  return cudaSuccess;
}
inline cudaError_t cudaStreamGetCaptureInfo(cudaStream_t, cudaStreamCaptureStatus*,
                                            unsigned long long*) {
  return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind,
                                   cudaStream_t) {
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
  std::memset(to, value, bytes);
  return cudaSuccess;
}

// -- running kernels -------------------------------------------------------------------------------

namespace emulated {

inline std::mutex one_kernel;

inline void place(int64_t block, int64_t blocks, int thread, int threads) {
  blockIdx.x = static_cast<unsigned>(block);
  gridDim.x = static_cast<unsigned>(blocks);
  threadIdx.x = static_cast<unsigned>(thread);
  blockDim.x = static_cast<unsigned>(threads);
}

template <typename F>
void run_alone(int64_t blocks, int threads, const F& kernel) {
  const std::lock_guard<std::mutex> lock(one_kernel);
  for (int64_t block = blocks - 1; block >= 0; --block) {
    for (int thread = threads - 1; thread >= 0; --thread) {
      place(block, blocks, thread, threads);
      kernel();
    }
  }
}

struct Fiber {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(256 << 10);
  bool done = false;
  alignas(16) char exchanged[16];  // what a shuffle hands over
};

inline std::vector<std::unique_ptr<Fiber>> fibers;
inline ucontext_t scheduler;
inline std::function<void()> work;
inline int running;

inline void enter() {
  work();
  fibers[running]->done = true;
  swapcontext(&fibers[running]->context, &scheduler);
}

// Goes on when all others have come as far.
inline void barrier() {
  const int self = running;
  swapcontext(&fibers[self]->context, &scheduler);
}

template <typename F>
void run_together(int64_t blocks, int threads, const F& kernel) {
  const std::lock_guard<std::mutex> lock(one_kernel);
  work = kernel;
  while (static_cast<int>(fibers.size()) < threads) fibers.push_back(std::make_unique<Fiber>());
  for (int64_t block = blocks - 1; block >= 0; --block) {
    for (int thread = 0; thread < threads; ++thread) {
      Fiber& fiber = *fibers[thread];
      fiber.done = false;
      getcontext(&fiber.context);
      fiber.context.uc_stack.ss_sp = fiber.stack.data();
      fiber.context.uc_stack.ss_size = fiber.stack.size();
      fiber.context.uc_link = &scheduler;
      makecontext(&fiber.context, enter, 0);
    }
    for (bool any = true; any;) {
      any = false;
      for (int thread = threads - 1; thread >= 0; --thread) {
        if (fibers[thread]->done) continue;
        any = true;
        running = thread;
        place(block, blocks, thread, threads);
        swapcontext(&scheduler, &fibers[thread]->context);
      }
    }
  }
}

// The value of another thread of the warp.
template <typename T>
T shuffled(T value, int from) {
  static_assert(sizeof(T) <= 16, "a shuffle hands over few bytes");
  std::memcpy(fibers[running]->exchanged, &value, sizeof(T));
  barrier();
  std::memcpy(&value, fibers[from]->exchanged, sizeof(T));
  barrier();
  return value;
}

}  // namespace emulated

inline void __syncthreads() { emulated::barrier(); }
inline void __syncwarp(unsigned) { emulated::barrier(); }

template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return emulated::shuffled(value, emulated::running ^ mask);
}

inline unsigned long long atomicMin(unsigned long long* at, unsigned long long value) {
  const unsigned long long before = *at;
  if (value < before) *at = value;
  return before;
}
