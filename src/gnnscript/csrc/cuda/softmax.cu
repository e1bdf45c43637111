// The softmax over the edges of each row, and its gradient: what a row needs first, then its edges.
#include "segment_ops.h"

#include "cuda/edges.cuh"
#include "cuda/reductions.cuh"
#include "cuda/row_jobs.h"

namespace gnnscript {
namespace {

// What guards the division, as in PyG.
constexpr double kGuard = 1e-16;

template <typename T>
struct Scores {
  using Value = compute_t<T>;
  const T* src;
  const T* grad;   // backward: what `src`, then the weights, is multiplied with; else null
  int64_t stride;  // of src

  template <int V>
  struct Reader {
    static_assert(V == 1, "one lane at a time");
    const Walk& walk;
    const Scores& source;
    int64_t lane;

    __device__ Reader(const Scores& of, const Walk& walked, int64_t at)
        : walk(walked), source(of), lane(at) {}

    __device__ __forceinline__ void load(int64_t at, int count,
                                         Value (&values)[kAhead][1]) const {
      int64_t edges[kAhead];
#pragma unroll
      for (int u = 0; u < kAhead; ++u) {
        edges[u] = walk.readable_edge(at + (u < count ? u : 0));
      }
#pragma unroll
      for (int u = 0; u < kAhead; ++u) {
        values[u][0] = widen(source.src[edges[u] * source.stride + lane]);
      }
      if (source.grad == nullptr) return;
#pragma unroll
      for (int u = 0; u < kAhead; ++u) {
        values[u][0] *= widen(source.grad[edges[u] * walk.lanes + lane]);
      }
    }
  };
};

// Keeps the states of a row as they are: [rows, states, lanes].
template <typename A>
struct RowStates {
  A* out;

  template <int V, typename Op>
  __device__ __forceinline__ void write(const Op&, int64_t row, int64_t lane, int64_t lanes,
                                        int64_t, const A (&states)[V][Op::kStates]) const {
#pragma unroll
    for (int j = 0; j < Op::kStates; ++j) {
      out[(row * Op::kStates + j) * lanes + lane] = states[0][j];
    }
  }
};

template <typename T>
struct SoftmaxJob {
  Walk walk;
  Scores<T> scores;
  const compute_t<T>* states;  // forward: [rows, 2, lanes]; backward: [rows, 1, lanes]
  T* out;
};

template <bool kBackward, typename T>
__global__ void __launch_bounds__(128) write_edges(const __grid_constant__ SoftmaxJob<T> job) {
  using A = compute_t<T>;
  const Walk& walk = job.walk;
  const int64_t k = thread_number() / walk.lanes, lane = thread_number() % walk.lanes;
  if (k >= walk.chunks) return;
  walk.for_each(k, [&](int64_t row, int64_t begin, int64_t end, bool, bool) {
    constexpr int states = kBackward ? 1 : 2;
    const A* kept = job.states + row * states * walk.lanes + lane;
    const A first = kept[0];
    const A total = kBackward ? A(0) : kept[walk.lanes] + A(kGuard);
    const T* __restrict__ src = job.scores.src;
    const T* __restrict__ grad = job.scores.grad;
    T* __restrict__ out = job.out;
#pragma unroll 4
    for (int64_t i = begin; i < end; ++i) {
      const int64_t edge = walk.edge(i);
      if (edge < 0) continue;
      const A x = widen(src[edge * job.scores.stride + lane]);
      A value;
      if constexpr (kBackward) {
        value = x * (widen(grad[edge * walk.lanes + lane]) - first);
      } else {
        value = exp(x - first) / total;
      }
      out[edge * walk.lanes + lane] = narrow<T>(value);
    }
  });
}

template <bool kBackward>
Tensor run(const Tensor& src, const Tensor* grad, const Sorted& sorted) {
  using Op = std::conditional_t<kBackward, SumReduction, LogSumExpReduction>;
  const DeviceScope scope(src);
  const Dtype dtype = check_floating(src, "src");
  check_rows(scope, sorted);
  const int64_t lanes = features_of(src);
  Tensor out = empty_with(src, sizes_with(src, src.size(0)));
  dispatch_dtype(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    using A = compute_t<T>;
    Tensor states = empty_bytes(
        src, sorted.num_rows() * Op::kStates * lanes * static_cast<int64_t>(sizeof(A)));
    SoftmaxJob<T> job{};
    job.walk = walk_over(sorted, lanes);
    job.scores.src = static_cast<const T*>(src.const_data_ptr());
    job.scores.stride = src.stride(0);
    if (grad != nullptr) job.scores.grad = static_cast<const T*>(grad->const_data_ptr());
    job.states = static_cast<const A*>(states.const_data_ptr());
    job.out = static_cast<T*>(out.mutable_data_ptr());
    clear_edges(scope, job.walk, job.out);
    reduce_rows<1>(scope, sorted, src, lanes, Op(), job.scores,
                   RowStates<A>{static_cast<A*>(states.mutable_data_ptr())});
    launch(scope, job.walk.chunks * lanes, &write_edges<kBackward, T>, job);
  });
  return out;
}

Tensor edge_softmax(const Tensor& src_given, const Tensor& ptr, const std::optional<Tensor>& perm) {
  const Sorted sorted(src_given, ptr, perm);
  return run<false>(rows_contiguous(src_given), nullptr, sorted);
}

Tensor edge_softmax_backward(const Tensor& grad_given, const Tensor& weights_given,
                             const Tensor& ptr, const std::optional<Tensor>& perm) {
  const Sorted sorted(weights_given, ptr, perm);
  check_softmax_gradient(grad_given, weights_given);
  const Tensor grad = torch::stable::contiguous(grad_given);
  return run<true>(torch::stable::contiguous(weights_given), &grad, sorted);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gnnscript, GNNSCRIPT_CUDA_KEY, m) {
  m.impl("edge_softmax", TORCH_BOX(&edge_softmax));
  m.impl("edge_softmax_backward", TORCH_BOX(&edge_softmax_backward));
}

}  // namespace gnnscript
