// Launching kernels on the device and stream of torch, and reading values back. Host code.
//
// The tests build these files a second time with g++, where the headers of CUDA are those of an
// emulator (tests/native/emulated) and GNNSCRIPT_EMULATED is defined: the kernels then run on CPU
// tensors, thread after thread.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "checks.h"
#include "rows_checks.h"

#ifdef GNNSCRIPT_EMULATED
#define GNNSCRIPT_CUDA_KEY CPU
#else
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#define GNNSCRIPT_CUDA_KEY CUDA
#endif

namespace gnnscript {

constexpr int kThreads = 128;  // of a block

inline void check_cuda(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(message("CUDA: ", cudaGetErrorString(error)));
}

// Makes the device of a tensor the current one, for as long as this lives.
class DeviceScope {
 public:
#ifdef GNNSCRIPT_EMULATED
  explicit DeviceScope(const Tensor&) {}
#else
  explicit DeviceScope(const Tensor& tensor) : guard_(tensor.get_device_index()) {
    // This library has a CUDA runtime of its own, which is told, too.
    check_cuda(cudaSetDevice(tensor.get_device_index()));
    void* stream = nullptr;
    STABLE_TORCH_ERROR_CODE_CHECK(
        aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }
#endif
  cudaStream_t stream() const { return stream_; }

  // Whether the stream is being recorded into a graph: then nothing can be read back.
  bool is_capturing() const {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    check_cuda(cudaStreamIsCapturing(stream_, &status));
    return status != cudaStreamCaptureStatusNone;
  }

  // Names the recording that the stream is part of; 0 if it is of none.
  int64_t graph() const {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    unsigned long long id = 0;
    check_cuda(cudaStreamGetCaptureInfo(stream_, &status, &id));
    return status == cudaStreamCaptureStatusNone ? 0 : static_cast<int64_t>(id) + 1;
  }

 private:
#ifndef GNNSCRIPT_EMULATED
  torch::stable::accelerator::DeviceGuard guard_;
#endif
  cudaStream_t stream_ = nullptr;
};

// Runs a kernel with at least `threads` threads in blocks of kThreads; none where there is no work.
template <typename... Parameters, typename... Arguments>
void launch(const DeviceScope& scope, int64_t threads, void (*kernel)(Parameters...),
            Arguments&&... arguments) {
  if (threads <= 0) return;
  const int64_t blocks = (threads + kThreads - 1) / kThreads;
  check(blocks <= INT32_MAX, "expected fewer than 2^31 blocks of work, got ", blocks);
#ifdef GNNSCRIPT_EMULATED
  emulated::run_alone(blocks, kThreads, [&] { kernel(Parameters(arguments)...); });
#else
  kernel<<<static_cast<unsigned>(blocks), kThreads, 0, scope.stream()>>>(
      Parameters(std::forward<Arguments>(arguments))...);
#endif
  check_cuda(cudaGetLastError());
}

// The same for kernels whose threads work together.
template <typename... Parameters, typename... Arguments>
void launch_blocks(const DeviceScope& scope, int64_t blocks, int threads,
                   void (*kernel)(Parameters...), Arguments&&... arguments) {
  if (blocks <= 0) return;
  check(blocks <= INT32_MAX, "expected fewer than 2^31 blocks of work, got ", blocks);
#ifdef GNNSCRIPT_EMULATED
  emulated::run_together(blocks, threads, [&] { kernel(Parameters(arguments)...); });
#else
  kernel<<<static_cast<unsigned>(blocks), threads, 0, scope.stream()>>>(
      Parameters(std::forward<Arguments>(arguments))...);
#endif
  check_cuda(cudaGetLastError());
}

// Waits for the device, and returns values of it.
template <typename T>
std::vector<T> read_back(const DeviceScope& scope, const T* from, int64_t count) {
  std::vector<T> values(static_cast<size_t>(count));
  if (count == 0) return values;
  check_cuda(cudaMemcpyAsync(values.data(), from, values.size() * sizeof(T),
                             cudaMemcpyDeviceToHost, scope.stream()));
  check_cuda(cudaStreamSynchronize(scope.stream()));
  return values;
}

// The values of an index on the device.
std::vector<int64_t> read_index(const DeviceScope& scope, const Tensor& index);

// -- gnnscript.checks ------------------------------------------------------------------------------

// In check mode, throws the IndexError for the first value of `index` out of [0, bound).
void check_range(const DeviceScope& scope, const Tensor& index, int64_t bound, const char* name,
                 const char* counted);
// In check mode, checks the values of ptr and perm.
void check_rows(const DeviceScope& scope, const Sorted& sorted);

}  // namespace gnnscript
