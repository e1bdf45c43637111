// Attention over rows on CUDA. Scores are computed once per edge and head and kept for the call; a pass
// over them finds each row's largest one and its sum of exponentials, and a pass over the messages
// weights these as it reads them. Weights are stored nowhere.
#include <tuple>

#include "attention_ops.h"
#include "cuda/edge_sources.cuh"
#include "cuda/edges.cuh"
#include "cuda/reductions.cuh"

namespace gnnscript {
namespace {

// -- the largest score of each row, and its sum of exponentials -----------------------------------

template <typename A>
struct EdgeScores {
  using Value = A;
  const A* scores;  // [edges, heads]

  template <int V>
  struct Reader {
    static_assert(V == 1, "one head at a time");
    const Walk& walk;
    const A* from;

    __device__ Reader(const EdgeScores& of, const Walk& walked, int64_t head)
        : walk(walked), from(of.scores + head) {}

    __device__ __forceinline__ void load(int64_t at, int count, A (&values)[kAhead][1]) const {
#pragma unroll
      for (int u = 0; u < kAhead; ++u) {
        values[u][0] = from[walk.readable_edge(at + (u < count ? u : 0)) * walk.lanes];
      }
    }
  };
};

template <typename A>
struct RowScores {
  A* high;
  A* total;

  template <int V, typename Op>
  __device__ __forceinline__ void write(const Op&, int64_t row, int64_t head, int64_t heads,
                                        int64_t count, const A (&states)[V][Op::kStates]) const {
    high[row * heads + head] = count > 0 ? states[0][0] : A(0);
    total[row * heads + head] = count > 0 ? states[0][1] : A(1);
  }
};

// -- messages ---------------------------------------------------------------------------------------

// What weighs an edge: its score against what its row has.
template <typename A>
struct WeightOf {
  const A* scores;
  const A* high;
  const A* total;
  int64_t heads;
  const void* index;
  int64_t index_bound;
  bool wide_index;

  __device__ __forceinline__ int64_t row(int64_t edge) const {
    return Ends::node(index, wide_index, edge, index_bound);
  }
  __device__ __forceinline__ A weight(int64_t edge, int64_t row, int64_t head) const {
    const int64_t at = row * heads + head;
    return exp(scores[edge * heads + head] - high[at]) / total[at];
  }
};

// The values of another source, weighted; V lanes are of one head.
template <typename Inner>
struct Weighted {
  using Value = typename Inner::Value;
  Inner inner;
  WeightOf<Value> weights;
  int64_t period;  // lanes of a head

  template <int V>
  struct Reader {
    const Walk& walk;
    const Weighted& source;
    typename Inner::template Reader<V> reader;
    int64_t head;

    __device__ Reader(const Weighted& of, const Walk& walked, int64_t lane)
        : walk(walked), source(of), reader(of.inner, walked, lane), head(lane / of.period) {}

    __device__ __forceinline__ void load(int64_t at, int count,
                                         Value (&values)[kAhead][V]) const {
      reader.load(at, count, values);
#pragma unroll
      for (int u = 0; u < kAhead; ++u) {
        const int64_t edge = walk.readable_edge(at + (u < count ? u : 0));
        const Value w = source.weights.weight(edge, source.weights.row(edge), head);
#pragma unroll
        for (int v = 0; v < V; ++v) values[u][v] = values[u][v] * w;
      }
    }
  };
};

template <typename T>
void reduce_messages(const DeviceScope& scope, const EdgeOperands& operands, const EdgeCall& call,
                     const Sorted& sorted, const WeightOf<compute_t<T>>& weights, Tensor& out) {
  const NodeValues<T> sink{static_cast<T*>(out.mutable_data_ptr())};
  const AnyEdgeReduction sum{EdgeReduction::sum};
  const int64_t lanes = operands.lanes, period = lanes / weights.heads;
  Direct<T> direct{};
  if (operands.program().pattern == Pattern::other_row &&
      find_direct(operands, call.program, &direct)) {
    const Weighted<Direct<T>> source{direct, weights, period};
    constexpr int V = kWidest<T>;
    if (period % V == 0 && packs_fit<T>(direct.rows, direct.row_stride, lanes, V)) {
      return reduce_rows<V>(scope, sorted, call.index, lanes, sum, source, sink);
    }
    return reduce_rows<1>(scope, sorted, call.index, lanes, sum, source, sink);
  }
  with_registers(operands.program(), [&](auto registers) {
    using Inner = Interpreted<T, decltype(registers)::value>;
    const Weighted<Inner> source{Inner{call.program}, weights, period};
    reduce_rows<1>(scope, sorted, call.index, lanes, sum, source, sink);
  });
}

// -- the gradient of scores -------------------------------------------------------------------------

template <typename T>
struct SlopeJob {
  using A = compute_t<T>;
  Walk walk;
  WeightOf<A> weights;
  const A* along;  // [edges, heads]: the messages times the gradients of their rows
  const A* mean;   // [rows, heads]
  T* weight;
  T* slope;
};

template <typename T>
__global__ void __launch_bounds__(128) write_slopes(const __grid_constant__ SlopeJob<T> job) {
  using A = compute_t<T>;
  const int64_t heads = job.weights.heads;
  const int64_t position = thread_number() / heads, head = thread_number() % heads;
  const int64_t* ptr = job.walk.ptr;
  if (position < ptr[0] || position >= ptr[job.walk.rows] || position >= job.walk.edges) return;
  const int64_t edge = job.walk.edge(position);
  if (edge < 0) return;
  const int64_t row = job.weights.row(edge);
  const A w = job.weights.weight(edge, row, head);
  const A along = job.along[edge * heads + head];
  job.weight[edge * heads + head] = narrow<T>(w);
  job.slope[edge * heads + head] = narrow<T>(w * (along - job.mean[row * heads + head]));
}

// -- the ops ----------------------------------------------------------------------------------------

int64_t bytes_of(const AttentionOperands& operands) {
  return operands.score.edges * operands.heads * (operands.score.dtype == Dtype::float64 ? 8 : 4);
}

// The scores of all edges; what they are read by knows each edge's row by its index.
template <typename A>
WeightOf<A> weights_of(const AttentionOperands& operands, const EdgeCall& call,
                       const Tensor& scores, const Tensor& high, const Tensor& total,
                       int64_t rows) {
  return {static_cast<const A*>(scores.const_data_ptr()),
          static_cast<const A*>(high.const_data_ptr()),
          static_cast<const A*>(total.const_data_ptr()),
          operands.heads,
          call.index.const_data_ptr(),
          rows,
          is_wide(call.index)};
}

std::tuple<Tensor, Tensor, Tensor> edge_attention(
    const std::string& score_text, const std::vector<Tensor>& score_operands, int64_t sum_dims,
    const std::string& message_text, const std::vector<Tensor>& message_operands,
    const Tensor& index, const Tensor& other, const Tensor& ptr, const Tensor& perm) {
  check(!message_operands.empty(), "expected operands, got none");
  const Tensor& like = message_operands[0];
  const DeviceScope scope(like);
  const Sorted sorted(index, index.numel(), ptr, perm);
  const int64_t rows = sorted.num_rows();
  const AttentionOperands operands(score_text, score_operands, sum_dims, message_text,
                                   message_operands, index, other, rows);
  Tensor out = empty_with(like, operands.message.result_shape(rows, 0));
  Tensor high = empty_of(like, operands.head_shape(rows), operands.wide());
  Tensor total = empty_of(like, operands.head_shape(rows), operands.wide());
  if (operands.is_empty()) {
    return {torch::stable::zero_(out), torch::stable::zero_(high), torch::stable::zero_(total)};
  }
  check_rows(scope, sorted);
  const EdgeCall score(scope, operands.score, index, other);
  const EdgeCall message(scope, operands.message, index, other);
  check_range(scope, score.index, rows, "index", "the number of nodes");
  if (rows == 0) return {out, high, total};
  Tensor scores = empty_bytes(like, bytes_of(operands));
  if (operands.score.edges > 0) {
    map_edges(scope, operands.score, score, operands.group, true, scores.mutable_data_ptr());
  }
  dispatch_dtype(operands.score.dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    using A = compute_t<T>;
    const EdgeScores<A> source{static_cast<const A*>(scores.const_data_ptr())};
    const RowScores<A> sink{static_cast<A*>(high.mutable_data_ptr()),
                            static_cast<A*>(total.mutable_data_ptr())};
    reduce_rows<1>(scope, sorted, score.index, operands.heads, LogSumExpReduction(), source, sink);
    reduce_messages<T>(scope, operands.message, message, sorted,
                       weights_of<A>(operands, score, scores, high, total, rows), out);
  });
  return {out, high, total};
}

// The program of a message times the gradient of its row, which is one more operand.
std::string projection(const std::string& message_text, size_t operands) {
  const size_t at = message_text.rfind(';') + 1;  // behind the names, or 0
  return message_text.substr(0, at) + " i" + std::to_string(operands) + " * (" +
         message_text.substr(at) + ")";
}

std::tuple<Tensor, Tensor> edge_attention_backward(
    const std::string& score_text, const std::vector<Tensor>& score_operands, int64_t sum_dims,
    const std::string& message_text, const std::vector<Tensor>& message_operands,
    const Tensor& index, const Tensor& other, const Tensor& ptr, const Tensor& perm,
    const Tensor& grad_given, const Tensor& high_given, const Tensor& total_given,
    const Tensor& mean_given) {
  check(!message_operands.empty(), "expected operands, got none");
  const Tensor& like = message_operands[0];
  const DeviceScope scope(like);
  const Sorted sorted(index, index.numel(), ptr, perm);
  const int64_t rows = sorted.num_rows();
  const AttentionOperands operands(score_text, score_operands, sum_dims, message_text,
                                   message_operands, index, other, rows);
  const std::vector<int64_t> per_head = operands.head_shape(rows);
  const ScalarType wide = operands.wide();
  const Tensor grad = operands.checked(grad_given, operands.message.result_shape(rows, 0),
                                       like.scalar_type(), like, "grad");
  const Tensor high = operands.checked(high_given, per_head, wide, like, "high");
  const Tensor total = operands.checked(total_given, per_head, wide, like, "total");
  const Tensor mean = operands.checked(mean_given, per_head, wide, like, "mean");
  const int64_t edges = operands.score.edges;
  Tensor weight = empty_with(like, operands.head_shape(edges));
  Tensor slope = empty_with(like, operands.head_shape(edges));
  if (operands.is_empty()) return {torch::stable::zero_(weight), torch::stable::zero_(slope)};
  if (edges == 0) return {weight, slope};
  check_rows(scope, sorted);
  std::vector<Tensor> projected = message_operands;
  projected.push_back(grad);
  const EdgeOperands product(projection(message_text, message_operands.size()), projected, index,
                             other, rows);
  const EdgeCall score(scope, operands.score, index, other);
  const EdgeCall along(scope, product, index, other);
  Tensor scores = empty_bytes(like, bytes_of(operands));
  Tensor slopes = empty_bytes(like, bytes_of(operands));
  map_edges(scope, operands.score, score, operands.group, true, scores.mutable_data_ptr());
  map_edges(scope, product, along, product.lanes / operands.heads, true,
            slopes.mutable_data_ptr());
  dispatch_dtype(operands.score.dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    using A = compute_t<T>;
    SlopeJob<T> job{};
    job.walk = walk_over(sorted, operands.heads);
    job.weights = weights_of<A>(operands, score, scores, high, total, rows);
    job.along = static_cast<const A*>(slopes.const_data_ptr());
    job.mean = static_cast<const A*>(mean.const_data_ptr());
    job.weight = static_cast<T*>(weight.mutable_data_ptr());
    job.slope = static_cast<T*>(slope.mutable_data_ptr());
    clear_edges(scope, job.walk, job.weight);
    clear_edges(scope, job.walk, job.slope);
    launch(scope, edges * operands.heads, &write_slopes<T>, job);
  });
  return {weight, slope};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gnnscript, GNNSCRIPT_CUDA_KEY, m) {
  m.impl("edge_attention", TORCH_BOX(&edge_attention));
  m.impl("edge_attention_backward", TORCH_BOX(&edge_attention_backward));
}

}  // namespace gnnscript
