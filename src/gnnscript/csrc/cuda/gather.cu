// Copying rows: from nodes to edges, of any dtype.
#include "cuda/edges.cuh"
#include "cuda/row_jobs.h"

namespace gnnscript {
namespace {

// Bytes that are copied at a time.
template <int kBytes>
struct alignas(kBytes) Bytes {
  unsigned char values[kBytes];
};

// Calls `use` with a type as wide as the rows of both sides allow.
template <typename Use>
void with_width(const void* src, const void* out, int64_t stride, int64_t bytes, const Use& use) {
  const uint64_t all = reinterpret_cast<uintptr_t>(src) | reinterpret_cast<uintptr_t>(out) |
                       static_cast<uint64_t>(stride) | static_cast<uint64_t>(bytes);
  if (all % 16 == 0) return use(Bytes<16>{});
  if (all % 8 == 0) return use(Bytes<8>{});
  if (all % 4 == 0) return use(Bytes<4>{});
  if (all % 2 == 0) return use(Bytes<2>{});
  return use(Bytes<1>{});
}

template <typename B, typename I>
__global__ void __launch_bounds__(128)
    copy_rows(const B* __restrict__ src, const I* __restrict__ index, B* __restrict__ out,
              int64_t nodes, int64_t edges, int64_t packs, int64_t stride) {
  const int64_t edge = thread_number() / packs, pack = thread_number() % packs;
  if (edge >= edges) return;
  const int64_t node = index[edge];
  out[edge * packs + pack] = is_within(node, nodes) ? src[node * stride + pack] : B{};
}

template <typename B>
__global__ void __launch_bounds__(128)
    expand_rows(const __grid_constant__ Walk walk, const B* __restrict__ src, B* __restrict__ out,
                int64_t stride) {
  const int64_t k = thread_number() / walk.lanes, pack = thread_number() % walk.lanes;
  if (k >= walk.chunks) return;
  walk.for_each(k, [&](int64_t row, int64_t begin, int64_t end, bool, bool) {
    const B value = src[row * stride + pack];
#pragma unroll 4
    for (int64_t i = begin; i < end; ++i) {
      const int64_t edge = walk.edge(i);
      if (edge >= 0) out[edge * walk.lanes + pack] = value;
    }
  });
}

Tensor gather(const Tensor& src_given, const Tensor& index_given) {
  check(src_given.dim() >= 1, "expected src with a dimension of nodes, got a scalar");
  check_index(index_given, "index");
  check_same_device(src_given, index_given, "src", "index");
  const DeviceScope scope(src_given);
  const Tensor src = rows_contiguous(src_given);
  const Tensor index = torch::stable::contiguous(index_given);
  const int64_t edges = index.numel(), nodes = src.size(0);
  check_range(scope, index, nodes, "index", "the rows of src");
  Tensor out = empty_with(src, sizes_with(src, edges));
  const int64_t width = static_cast<int64_t>(src.element_size());
  const int64_t bytes = features_of(src) * width, stride = src.stride(0) * width;
  if (edges == 0 || bytes == 0) return out;
  with_width(src.const_data_ptr(), out.const_data_ptr(), stride, bytes, [&](auto type) {
    using B = decltype(type);
    constexpr int64_t size = sizeof(B);
    const auto run = [&](const auto* values) {
      using I = std::remove_const_t<std::remove_pointer_t<decltype(values)>>;
      launch(scope, edges * (bytes / size), &copy_rows<B, I>,
             static_cast<const B*>(src.const_data_ptr()), values,
             static_cast<B*>(out.mutable_data_ptr()), nodes, edges, bytes / size, stride / size);
    };
    if (is_wide(index)) run(index.const_data_ptr<int64_t>());
    else run(index.const_data_ptr<int32_t>());
  });
  return out;
}

Tensor segment_expand(const Tensor& src_given, const Tensor& ptr, const std::optional<Tensor>& perm,
                      int64_t edges) {
  check(src_given.dim() >= 1, "expected src with a dimension of nodes, got a scalar");
  const Sorted sorted(src_given, edges, ptr, perm);
  check(src_given.size(0) == sorted.num_rows(), "expected src with ", sorted.num_rows(),
        " rows, one for each of ptr, got ", src_given.size(0));
  const DeviceScope scope(src_given);
  check_rows(scope, sorted);
  const Tensor src = rows_contiguous(src_given);
  Tensor out = empty_with(src, sizes_with(src, edges));
  const int64_t width = static_cast<int64_t>(src.element_size());
  const int64_t bytes = features_of(src) * width, stride = src.stride(0) * width;
  if (edges == 0 || bytes == 0) return out;
  with_width(src.const_data_ptr(), out.const_data_ptr(), stride, bytes, [&](auto type) {
    using B = decltype(type);
    constexpr int64_t size = sizeof(B);
    const Walk walk = walk_over(sorted, bytes / size);
    B* to = static_cast<B*>(out.mutable_data_ptr());
    clear_edges(scope, walk, to);
    launch(scope, walk.chunks * walk.lanes, &expand_rows<B>, walk,
           static_cast<const B*>(src.const_data_ptr()), to, stride / size);
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gnnscript, GNNSCRIPT_CUDA_KEY, m) {
  m.impl("gather", TORCH_BOX(&gather));
  m.impl("segment_expand", TORCH_BOX(&segment_expand));
}

}  // namespace gnnscript
