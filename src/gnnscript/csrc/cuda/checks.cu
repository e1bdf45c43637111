// The check mode of the ops on CUDA: `gnnscript.checks(True)`.
#include <atomic>
#include <cstdlib>
#include <cstring>

#include "cuda/device.h"
#include "interface.h"

namespace gnnscript {
namespace {

bool asked_by_environment() {
  const char* value = std::getenv("GNNSCRIPT_CHECKS");
  if (value == nullptr) return false;
  for (const char* no : {"", "0", "false", "off", "no"}) {
    if (std::strcmp(value, no) == 0) return false;
  }
  return true;
}

std::atomic<bool>& enabled() {
  static std::atomic<bool> value{asked_by_environment()};
  return value;
}

template <typename I>
__global__ void find_outside(const I* index, int64_t edges, int64_t bound,
                             unsigned long long* first) {
  const int64_t edge = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (edge >= edges) return;
  if (static_cast<uint64_t>(static_cast<int64_t>(index[edge])) >= static_cast<uint64_t>(bound)) {
    atomicMin(first, static_cast<unsigned long long>(edge));
  }
}

}  // namespace

std::vector<int64_t> read_index(const DeviceScope& scope, const Tensor& index_given) {
  const Tensor index = torch::stable::contiguous(index_given);
  const int64_t count = index.numel();
  if (is_wide(index)) return read_back(scope, index.const_data_ptr<int64_t>(), count);
  const std::vector<int32_t> values = read_back(scope, index.const_data_ptr<int32_t>(), count);
  return {values.begin(), values.end()};
}

void check_range(const DeviceScope& scope, const Tensor& index_given, int64_t bound,
                 const char* name, const char* counted) {
  if (!enabled() || scope.is_capturing() || index_given.numel() == 0) return;
  const Tensor index = torch::stable::contiguous(index_given);
  const int64_t edges = index.numel();
  Tensor first = empty_bytes(index, sizeof(unsigned long long));
  auto* found = static_cast<unsigned long long*>(first.mutable_data_ptr());
  check_cuda(cudaMemsetAsync(found, 0xff, sizeof(unsigned long long), scope.stream()));
  if (is_wide(index)) {
    launch(scope, edges, &find_outside<int64_t>, index.const_data_ptr<int64_t>(), edges, bound,
           found);
  } else {
    launch(scope, edges, &find_outside<int32_t>, index.const_data_ptr<int32_t>(), edges, bound,
           found);
  }
  const unsigned long long position = read_back(scope, found, 1)[0];
  if (position == ~0ull) return;
  const int64_t at = static_cast<int64_t>(position);
  const int64_t value = is_wide(index)
                            ? read_back(scope, index.const_data_ptr<int64_t>() + at, 1)[0]
                            : read_back(scope, index.const_data_ptr<int32_t>() + at, 1)[0];
  out_of_range(name, at, value, bound, counted);
}

void check_rows(const DeviceScope& scope, const Sorted& sorted) {
  if (!enabled() || scope.is_capturing()) return;
  sorted.check_values(read_back(scope, sorted.ptr_data(), sorted.num_rows() + 1).data());
  if (sorted.perm().has_value()) {
    check_range(scope, *sorted.perm(), sorted.edges(), "perm", "the number of edges");
  }
}

}  // namespace gnnscript

// Called from Python; a process without it has the environment variable.
extern "C" __attribute__((visibility("default"))) void gnnscript_cuda_checks(int enabled) {
  gnnscript::enabled() = enabled != 0;
}

GNNSCRIPT_TELL_INTERFACE(gnnscript_cuda_interface)
