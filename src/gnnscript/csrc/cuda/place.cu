// Where work goes: what is computed on one stream, or recorded into one graph, is not there for others.
#include <tuple>

#include "cuda/device.h"

namespace gnnscript {
namespace {

std::tuple<int64_t, int64_t> work_place(const Tensor& like) {
  const DeviceScope scope(like);
  return {static_cast<int64_t>(reinterpret_cast<uintptr_t>(scope.stream())), scope.graph()};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gnnscript, GNNSCRIPT_CUDA_KEY, m) {
  m.impl("work_place", TORCH_BOX(&work_place));
}

}  // namespace gnnscript
