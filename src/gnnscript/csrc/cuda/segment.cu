// Reductions of edge values over rows of sorted edges, and their gradients.
#include "segment_ops.h"

#include "cuda/edges.cuh"
#include "cuda/reductions.cuh"
#include "cuda/row_jobs.h"

namespace gnnscript {

std::tuple<Tensor, Tensor> csr(const Tensor& index, int64_t size);  // csr.cu

namespace {

template <typename T>
struct EdgeValues {
  using Value = compute_t<T>;
  const T* src;
  int64_t stride;  // elements from one edge to the next

  template <int V>
  struct Reader {
    const Walk& walk;
    const T* from;
    int64_t stride;

    __device__ Reader(const EdgeValues& source, const Walk& of, int64_t lane)
        : walk(of), from(source.src + lane), stride(source.stride) {}

    __device__ __forceinline__ void load(int64_t at, int count,
                                         Value (&values)[kAhead][V]) const {
      int64_t edges[kAhead];
#pragma unroll
      for (int u = 0; u < kAhead; ++u) {
        edges[u] = walk.readable_edge(at + (u < count ? u : 0));
      }
#pragma unroll
      for (int u = 0; u < kAhead; ++u) load_pack<V>(from + edges[u] * stride, values[u]);
    }
  };
};

// Writes the results of a row: in T, or in the compute type where they are wide.
template <typename T>
struct RowResults {
  void* out[kMaxOutputs];  // [rows, lanes]; null where not asked for
  const T* expected;       // [rows, lanes]

  template <int V>
  __device__ __forceinline__ void target(int64_t row, int64_t lane, int64_t lanes,
                                         compute_t<T>* values) const {
    load_pack<V>(expected + row * lanes + lane, values);
  }

  template <int V, typename Op, typename A>
  __device__ __forceinline__ void write(const Op& op, int64_t row, int64_t lane, int64_t lanes,
                                        int64_t count, const A (&states)[V][Op::kStates]) const {
    A results[V][Op::kOutputs];
#pragma unroll
    for (int v = 0; v < V; ++v) op.finish(states[v], count, results[v]);
#pragma unroll
    for (int j = 0; j < Op::kOutputs; ++j) {
      if (out[j] == nullptr) continue;
      A one[V];
#pragma unroll
      for (int v = 0; v < V; ++v) one[v] = results[v][j];
      using R = std::conditional_t<Op::kWide, A, T>;
      store_pack<V>(static_cast<R*>(out[j]) + row * lanes + lane, one);
    }
  }
};

struct ReduceCall {
  const DeviceScope& scope;
  const Sorted& sorted;
  const Tensor& src;
  int64_t lanes;
  const std::vector<const Tensor*>& outputs;
  const Tensor* target;

  template <typename T>
  RowResults<T> results() const {
    RowResults<T> sink{};
    for (size_t i = 0; i < outputs.size(); ++i) {
      sink.out[i] = outputs[i] == nullptr ? nullptr : outputs[i]->mutable_data_ptr();
    }
    if (target != nullptr) sink.expected = static_cast<const T*>(target->const_data_ptr());
    return sink;
  }

  template <typename Op, typename T>
  void run() const {
    const EdgeValues<T> source{static_cast<const T*>(src.const_data_ptr()), src.stride(0)};
    // Reductions that keep more take one lane at a time.
    if constexpr (Op::kStates == 1) {
      constexpr int V = kWidest<T>;
      if (packs_fit<T>(source.src, source.stride, lanes, V)) {
        return reduce_rows<V>(scope, sorted, src, lanes, Op(), source, results<T>());
      }
    }
    reduce_rows<1>(scope, sorted, src, lanes, Op(), source, results<T>());
  }
};

template <typename T>
void reduce_as(const ReduceCall& call, Reduce reduce) {
  switch (reduce) {
    case Reduce::sum:
      return call.run<SumReduction, T>();
    case Reduce::mean:
      return call.run<MeanReduction, T>();
    case Reduce::min:
      return call.run<MinReduction, T>();
    case Reduce::max:
      return call.run<MaxReduction, T>();
    case Reduce::mul:
      return call.run<MulReduction, T>();
    case Reduce::any:
      return call.run<AnyReduction, T>();
    case Reduce::var:
      return call.run<VarReduction, T>();
    case Reduce::std:
      return call.run<StdReduction, T>();
    case Reduce::logsumexp:
      return call.run<LogSumExpReduction, T>();
    case Reduce::statistics:
      return call.run<StatisticsReduction, T>();
    case Reduce::mean_wide:
      return call.run<WideMeanReduction, T>();
    case Reduce::ties:
      return call.run<TiesReduction, T>();
    case Reduce::products:
      return call.run<ProductsReduction, T>();
  }
}

// What a kernel of a gradient is told: see SegmentGradientArgs.
template <typename T>
struct GradientJob {
  using A = compute_t<T>;
  Walk walk;
  const T* grad;
  const T* src;
  const T* out;
  const A* first;
  const A* second;
  T* result;
};

// What an edge gets, from its value x and the row's gradient g, result y, and statistics.
template <Reduce kReduce, typename A>
__device__ __forceinline__ A edge_gradient(A x, A g, A y, A first, A second, A count) {
  if constexpr (kReduce == Reduce::mean) {
    return g / count;
  } else if constexpr (kReduce == Reduce::max) {  // and min
    return x == y ? g / first : A(0);
  } else if constexpr (kReduce == Reduce::mul) {
    // The product of the other edges, without dividing by a zero.
    if (x == A(0)) return g * (first == A(1) ? second : A(0));
    return g * (first == A(0) ? second / x : A(0));
  } else if constexpr (kReduce == Reduce::var) {
    return g * (x - first) * (A(2) / count);
  } else if constexpr (kReduce == Reduce::std) {
    return y == A(0) ? A(0) : g * (x - first) / (y * count);
  } else if constexpr (kReduce == Reduce::logsumexp) {
    return g * exp(x == y ? A(0) : x - y);
  } else {
    return g;
  }
}

template <Reduce kReduce, typename T>
__global__ void __launch_bounds__(128)
    write_gradients(const __grid_constant__ GradientJob<T> job) {
  using A = compute_t<T>;
  constexpr bool uses_src = kReduce != Reduce::mean && kReduce != Reduce::sum;
  const Walk& walk = job.walk;
  const int64_t k = thread_number() / walk.lanes, lane = thread_number() % walk.lanes;
  if (k >= walk.chunks) return;
  walk.for_each(k, [&](int64_t row, int64_t begin, int64_t end, bool, bool) {
    const int64_t at = row * walk.lanes + lane;
    const A count = static_cast<A>(walk.ptr[row + 1] - walk.ptr[row]);
    const A g = widen(job.grad[at]);
    const A y = uses_src ? widen(job.out[at]) : A(0);
    const A first = job.first != nullptr ? job.first[at] : A(0);
    const A second = job.second != nullptr ? job.second[at] : A(0);
    const T* __restrict__ src = job.src;
    T* __restrict__ result = job.result;
#pragma unroll 4
    for (int64_t i = begin; i < end; ++i) {
      const int64_t edge = walk.edge(i);
      if (edge < 0) continue;
      const A x = uses_src ? widen(src[edge * walk.lanes + lane]) : A(0);
      result[edge * walk.lanes + lane] =
          narrow<T>(edge_gradient<kReduce, A>(x, g, y, first, second, count));
    }
  });
}

template <typename T>
void gradient_as(const DeviceScope& scope, Reduce reduce, const GradientJob<T>& job) {
  const int64_t threads = job.walk.chunks * job.walk.lanes;
  clear_edges(scope, job.walk, job.result);
  switch (reduce) {
    case Reduce::mean:
      return launch(scope, threads, &write_gradients<Reduce::mean, T>, job);
    case Reduce::min:
    case Reduce::max:
      return launch(scope, threads, &write_gradients<Reduce::max, T>, job);
    case Reduce::mul:
      return launch(scope, threads, &write_gradients<Reduce::mul, T>, job);
    case Reduce::var:
      return launch(scope, threads, &write_gradients<Reduce::var, T>, job);
    case Reduce::std:
      return launch(scope, threads, &write_gradients<Reduce::std, T>, job);
    case Reduce::logsumexp:
      return launch(scope, threads, &write_gradients<Reduce::logsumexp, T>, job);
    default:
      return launch(scope, threads, &write_gradients<Reduce::sum, T>, job);
  }
}

struct Cuda {
  static void run_reduce(const Tensor& src_given, const Sorted& sorted, Reduce reduce,
                         const std::vector<const Tensor*>& outputs, const Tensor* target) {
    const DeviceScope scope(src_given);
    const Tensor src = rows_contiguous(src_given);
    const Dtype dtype = check_floating(src, "src");
    check_rows(scope, sorted);
    const ReduceCall call{scope, sorted, src, features_of(src), outputs, target};
    dispatch_dtype(dtype, [&](auto* tag) {
      reduce_as<std::remove_pointer_t<decltype(tag)>>(call, reduce);
    });
  }

  // Nothing is cleared here, but by the kernels: only the device knows which edges have no row.
  static Tensor fresh_edges(const Tensor& like, const Sorted&) {
    return empty_with(like, sizes_with(like, like.size(0)));
  }

  static void run_gradient(SegmentGradientArgs& args, const Tensor& src, const Sorted& sorted,
                           bool checked) {
    const DeviceScope scope(src);
    if (!checked) check_rows(scope, sorted);
    dispatch_dtype(args.dtype, [&](auto* tag) {
      using T = std::remove_pointer_t<decltype(tag)>;
      using A = compute_t<T>;
      GradientJob<T> job{};
      job.walk = walk_over(sorted, args.features);
      job.grad = static_cast<const T*>(args.grad);
      job.src = static_cast<const T*>(args.src);
      job.out = static_cast<const T*>(args.out);
      job.first = static_cast<const A*>(args.first);
      job.second = static_cast<const A*>(args.second);
      job.result = static_cast<T*>(args.result);
      gradient_as(scope, args.reduce, job);
    });
  }
};

// Rows are sorted here in any case: without, only atomics would keep threads apart.
Tensor scatter_reduce(const Tensor& src, const Tensor& index, int64_t size,
                      const std::string& name) {
  check_scattered(src, index, size, name);
  const auto [ptr, perm] = csr(index, size);
  return SegmentOps<Cuda>::segment_reduce(src, ptr, perm, name);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gnnscript, GNNSCRIPT_CUDA_KEY, m) {
  m.impl("scatter_reduce", TORCH_BOX(&scatter_reduce));
  m.impl("segment_reduce", TORCH_BOX(&SegmentOps<Cuda>::segment_reduce));
  m.impl("segment_reduces", TORCH_BOX(&SegmentOps<Cuda>::segment_reduces));
  m.impl("segment_reduce_backward", TORCH_BOX(&SegmentOps<Cuda>::segment_reduce_backward));
}

}  // namespace gnnscript
