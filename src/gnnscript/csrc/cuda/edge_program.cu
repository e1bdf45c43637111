// Edge programs on CUDA: the walk over rows of rows.cuh, with the edges' values from a program.
#include "cuda/edge_sources.cuh"

namespace gnnscript {
namespace {

// -- edge_map --------------------------------------------------------------------------------------

struct MapJob {
  DeviceProgram program;
  int64_t lanes, edges, steps;  // steps: ceil(edges / kAhead), from one of a thread's edges to the next
  int64_t group;                // neighbouring lanes that are summed
  int32_t width;                // threads of a sum, a power of two
  bool is_wide;                 // whether results stay of the type that they are computed in
  void* out;

  template <typename T>
  __device__ __forceinline__ void write(int64_t place, compute_t<T> value) const {
    if (is_wide) {
      static_cast<compute_t<T>*>(out)[place] = value;
    } else {
      static_cast<T*>(out)[place] = narrow<T>(value);
    }
  }
};

template <typename T, int R>
__global__ void __launch_bounds__(128) map_lanes(const __grid_constant__ MapJob job) {
  const int64_t step = thread_number() / job.lanes, lane = thread_number() % job.lanes;
  if (step >= job.steps) return;
  const Interpreter<T, R> interpreter(job.program, lane);
  Edge edges[kAhead];
  compute_t<T> values[kAhead][1];
  for (int u = 0; u < kAhead; ++u) {
    const int64_t edge = step + u * job.steps;
    edges[u] = edge_at(job.program.ends, edge < job.edges ? edge : step);
  }
  interpreter.run(edges, values);
  for (int u = 0; u < kAhead; ++u) {
    const int64_t edge = step + u * job.steps;
    if (edge < job.edges) job.template write<T>(edge * job.lanes + lane, values[u][0]);
  }
}

// `width` threads, within a warp, for each sum.
template <typename T, int R>
__global__ void __launch_bounds__(128) map_sums(const __grid_constant__ MapJob job) {
  using A = compute_t<T>;
  const int64_t groups = job.lanes / job.group;
  const int64_t team = thread_number() / job.width;
  const int64_t step = team / groups, group = team % groups;
  const int64_t member = thread_number() % job.width;
  const bool works = step < job.steps;  // those that do not stay for the shuffles
  Edge edges[kAhead];
  A sums[kAhead];
  for (int u = 0; u < kAhead; ++u) sums[u] = A(0);
  for (int u = 0; u < kAhead && works; ++u) {
    const int64_t edge = step + u * job.steps;
    edges[u] = edge_at(job.program.ends, edge < job.edges ? edge : step);
  }
  for (int64_t l = member; l < job.group && works; l += job.width) {
    const Interpreter<T, R> interpreter(job.program, group * job.group + l);
    A values[kAhead][1];
    interpreter.run(edges, values);
    for (int u = 0; u < kAhead; ++u) sums[u] += values[u][0];
  }
  for (int u = 0; u < kAhead; ++u) {
    for (int mask = job.width / 2; mask > 0; mask /= 2) {
      sums[u] += __shfl_xor_sync(0xffffffffu, sums[u], mask);
    }
    const int64_t edge = step + u * job.steps;
    if (works && member == 0 && edge < job.edges) {
      job.template write<T>(edge * groups + group, sums[u]);
    }
  }
}

template <typename T>
void reduce_as(const DeviceScope& scope, const EdgeOperands& operands, const EdgeCall& call,
               const Sorted& sorted, AnyEdgeReduction op, Tensor& out) {
  const NodeValues<T> sink{static_cast<T*>(out.mutable_data_ptr())};
  const int64_t lanes = operands.lanes;
  Direct<T> direct{};
  if (find_direct(operands, call.program, &direct)) {
    constexpr int V = kWidest<T>;
    if (packs_fit<T>(direct.rows, direct.row_stride, lanes, V)) {
      return reduce_rows<V>(scope, sorted, call.index, lanes, op, direct, sink);
    }
    return reduce_rows<1>(scope, sorted, call.index, lanes, op, direct, sink);
  }
  with_registers(operands.program(), [&](auto registers) {
    const Interpreted<T, decltype(registers)::value> source{call.program};
    reduce_rows<1>(scope, sorted, call.index, lanes, op, source, sink);
  });
}

Tensor edge_reduce(const std::string& program, const std::vector<Tensor>& tensors,
                   const Tensor& index, const Tensor& other, const Tensor& ptr, const Tensor& perm,
                   const std::string& reduce) {
  const AnyEdgeReduction op{parse_reduction(reduce)};
  check(!tensors.empty(), "expected operands, got none");
  const DeviceScope scope(tensors[0]);
  const Sorted sorted(index, index.numel(), ptr, perm);
  const EdgeOperands operands(program, tensors, index, other, sorted.num_rows());
  Tensor out = empty_with(tensors[0], operands.result_shape(sorted.num_rows(), 0));
  check_rows(scope, sorted);
  const EdgeCall call(scope, operands, index, other);
  if (out.numel() == 0) return out;
  dispatch_dtype(operands.dtype, [&](auto* tag) {
    reduce_as<std::remove_pointer_t<decltype(tag)>>(scope, operands, call, sorted, op, out);
  });
  return out;
}

}  // namespace

void map_edges(const DeviceScope& scope, const EdgeOperands& operands, const EdgeCall& call,
               int64_t group, bool is_wide, void* out) {
  MapJob job{};
  job.program = call.program;
  job.lanes = operands.lanes;
  job.edges = operands.edges;
  job.steps = (job.edges + kAhead - 1) / kAhead;
  job.group = group;
  job.width = 1;
  while (job.width < 32 && job.width < job.group) job.width *= 2;
  job.is_wide = is_wide;
  job.out = out;
  dispatch_dtype(operands.dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    with_registers(operands.program(), [&](auto registers) {
      constexpr int R = decltype(registers)::value;
      if (job.group == 1) {
        launch(scope, job.steps * job.lanes, &map_lanes<T, R>, job);
      } else {
        const int64_t threads = job.steps * (job.lanes / job.group) * job.width;
        launch_blocks(scope, (threads + kThreads - 1) / kThreads, kThreads, &map_sums<T, R>, job);
      }
    });
  });
}

namespace {

Tensor edge_map(const std::string& program, const std::vector<Tensor>& tensors,
                const Tensor& index, const Tensor& other, int64_t sum_dims) {
  check(!tensors.empty(), "expected operands, got none");
  const DeviceScope scope(tensors[0]);
  const EdgeOperands operands(program, tensors, index, other, -1);
  const int64_t rank = static_cast<int64_t>(operands.shape.size());
  check(sum_dims >= 0 && sum_dims <= rank, "expected sum_dims within [0, ", rank,
        "], the number of feature dimensions, got ", sum_dims);
  Tensor out = empty_with(tensors[0], operands.result_shape(operands.edges, sum_dims));
  const EdgeCall call(scope, operands, index, other);
  if (out.numel() == 0) return out;
  if (operands.lanes == 0) return torch::stable::zero_(out);
  int64_t group = 1;
  for (int64_t d = rank - sum_dims; d < rank; ++d) group *= operands.shape[static_cast<size_t>(d)];
  map_edges(scope, operands, call, group, false, out.mutable_data_ptr());
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gnnscript, GNNSCRIPT_CUDA_KEY, m) {
  m.impl("edge_reduce", TORCH_BOX(&edge_reduce));
  m.impl("edge_map", TORCH_BOX(&edge_map));
}

}  // namespace gnnscript
