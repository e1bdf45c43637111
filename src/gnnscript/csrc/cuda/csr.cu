// Sorting edges by node: CUB's radix sort, which is stable, of the nodes' own bits.
#include <cub/device/device_radix_sort.cuh>
#include <tuple>

#include "cuda/device.h"
#include "cuda/values.cuh"

namespace gnnscript {
namespace {

// A node out of range sorts behind all others, so that its edge belongs to no row.
template <typename I, typename Key>
__global__ void __launch_bounds__(128)
    write_keys(const I* index, int64_t edges, int64_t size, Key* keys, int64_t* positions) {
  const int64_t edge = thread_number();
  if (edge >= edges) return;
  const int64_t node = index[edge];
  keys[edge] = static_cast<Key>(is_within(node, size) ? node : size);
  positions[edge] = edge;
}

// ptr[n]: how many edges have a lesser node. A search for each node, so that empty rows and hubs
// take the same time.
template <typename Key>
__global__ void __launch_bounds__(128)
    write_ptr(const Key* sorted, int64_t edges, int64_t size, int64_t* ptr) {
  const int64_t node = thread_number();
  if (node > size) return;
  int64_t low = 0, high = edges;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (sorted[middle] < static_cast<Key>(node)) low = middle + 1;
    else high = middle;
  }
  ptr[node] = low;
}

template <typename Key>
void sort(const DeviceScope& scope, const Tensor& index, int64_t size, Tensor& ptr, Tensor& perm) {
  const int64_t edges = index.numel(), width = static_cast<int64_t>(sizeof(Key));
  Tensor keys = empty_bytes(index, edges * width), sorted = empty_bytes(index, edges * width);
  auto* unsorted_keys = static_cast<Key*>(keys.mutable_data_ptr());
  auto* sorted_keys = static_cast<Key*>(sorted.mutable_data_ptr());
  if (edges > 0) {
    Tensor positions = empty_int64(index, edges);
    int64_t* unsorted = positions.mutable_data_ptr<int64_t>();
    if (is_wide(index)) {
      launch(scope, edges, &write_keys<int64_t, Key>, index.const_data_ptr<int64_t>(), edges, size,
             unsorted_keys, unsorted);
    } else {
      launch(scope, edges, &write_keys<int32_t, Key>, index.const_data_ptr<int32_t>(), edges, size,
             unsorted_keys, unsorted);
    }
    int bits = 1;
    while (bits < 8 * static_cast<int>(sizeof(Key)) && (size >> bits) != 0) ++bits;
    const auto run = [&](void* workspace, size_t& bytes) {
      check_cuda(cub::DeviceRadixSort::SortPairs(workspace, bytes, unsorted_keys, sorted_keys,
                                                 unsorted, perm.mutable_data_ptr<int64_t>(), edges,
                                                 0, bits, scope.stream()));
    };
    size_t bytes = 0;
    run(nullptr, bytes);
    Tensor workspace = empty_bytes(index, static_cast<int64_t>(bytes > 0 ? bytes : 1));
    run(workspace.mutable_data_ptr(), bytes);
  }
  launch(scope, size + 1, &write_ptr<Key>, sorted_keys, edges, size,
         ptr.mutable_data_ptr<int64_t>());
}

}  // namespace

std::tuple<Tensor, Tensor> csr(const Tensor& index_given, int64_t size) {
  check_index(index_given, "index");
  check(size >= 0, "expected a number of nodes, got size ", size);
  const DeviceScope scope(index_given);
  const Tensor index = torch::stable::contiguous(index_given);
  check_range(scope, index, size, "index", "the number of nodes");
  Tensor ptr = empty_int64(index, size + 1);
  Tensor perm = empty_int64(index, index.numel());
  if (size < INT32_MAX) sort<uint32_t>(scope, index, size, ptr, perm);
  else sort<uint64_t>(scope, index, size, ptr, perm);
  return {ptr, perm};
}

STABLE_TORCH_LIBRARY_IMPL(gnnscript, GNNSCRIPT_CUDA_KEY, m) { m.impl("csr", TORCH_BOX(&csr)); }

}  // namespace gnnscript
