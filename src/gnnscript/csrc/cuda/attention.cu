// Attention over rows on CUDA, in one pass over the edges of a row: messages are added up weighted by
// the exponentials of scores below the largest one so far, and what there is is scaled when that
// grows. Scores are kept in shared memory for a chunk, and weights nowhere.
#include <algorithm>
#include <tuple>

#include "attention_ops.h"
#include "cuda/edge_sources.cuh"
#include "cuda/edges.cuh"
#include "cuda/reductions.cuh"

namespace gnnscript {
namespace {

// -- values of heads --------------------------------------------------------------------------------

// The threads that work together on one head: `width` of them, a power of two within a warp.
struct Team {
  int32_t width;

  __device__ __forceinline__ int member() const {
    return static_cast<int>(threadIdx.x) & (width - 1);
  }
  __device__ __forceinline__ int64_t number() const { return thread_number() / width; }

  __device__ __forceinline__ unsigned mask() const {
    const unsigned all = width == 32 ? 0xffffffffu : (1u << width) - 1u;
    return all << (threadIdx.x % 32u & ~static_cast<unsigned>(width - 1));
  }

  // Adds up what the members have; all of them have the same bits then.
  template <typename A>
  __device__ __forceinline__ A sum(A value) const {
    for (int step = width / 2; step > 0; step /= 2) value += __shfl_xor_sync(mask(), value, step);
    return value;
  }

  // Goes on when all members have come as far, and see what the others have written.
  __device__ __forceinline__ void wait() const {
    if (width > 1) __syncwarp(mask());
  }
};

inline int32_t team_width(int64_t most) {
  int32_t width = 1;
  while (width < 32 && width < most) width *= 2;
  return width;
}

// A program's value for a head: the sum over its `group` lanes, or its only one.
template <typename T, int R>
class HeadValue {
 public:
  using A = compute_t<T>;

  __device__ HeadValue(const DeviceProgram& program, const Team& team, int64_t head, int64_t group)
      : team_(team),
        first_(head * group),
        group_(group),
        member_(group == 1 ? 0 : team.member()),
        interpreter_(program, head * group + (member_ < group ? member_ : 0)) {}

  __device__ __forceinline__ void load(const Edge (&edges)[kAhead], A (&sums)[kAhead]) {
#pragma unroll
    for (int u = 0; u < kAhead; ++u) sums[u] = A(0);
    for (int64_t lane = member_; lane < group_; lane += team_.width) {
      if (group_ > team_.width) interpreter_.place(first_ + lane);
      A values[kAhead][1];
      interpreter_.run(edges, values);
#pragma unroll
      for (int u = 0; u < kAhead; ++u) sums[u] += values[u][0];
    }
    if (group_ == 1) return;
#pragma unroll
    for (int u = 0; u < kAhead; ++u) sums[u] = team_.sum(sums[u]);
  }

 private:
  const Team team_;
  const int64_t first_, group_;
  const int member_;
  Interpreter<T, R> interpreter_;
};

const Program& widest(const Program& one, const Program& other) {
  return one.registers < other.registers ? other : one;
}

// Runs a kernel with as many teams as are asked for.
template <typename Job>
void launch_teams(const DeviceScope& scope, int64_t teams, const Team& team, void (*kernel)(Job),
                  const std::remove_const_t<Job>& job) {
  const int64_t threads = teams * team.width;
  if (team.width == 1) return launch(scope, threads, kernel, job);
  launch_blocks(scope, (threads + kThreads - 1) / kThreads, kThreads, kernel, job);
}

// -- forward ----------------------------------------------------------------------------------------

// What scores are taken below: the largest of them, unless all are negative infinity.
template <typename A>
GNNSCRIPT_DEVICE A reference_of(A high) {
  return high == -A(INFINITY) ? A(0) : high;
}

// What is kept of a row per lane: its largest score, the sum of the exponentials of scores below
// that, and the sum of messages weighted by these.
struct AttentionReduction {
  static constexpr int kStates = 3;

  template <typename A>
  GNNSCRIPT_DEVICE void merge(A* s, int64_t, const A* t, int64_t) const {
    const A high = largest(s[0], t[0]), reference = reference_of(high);
    const A own = s[0] == high ? A(1) : exp(s[0] - reference);
    const A its = t[0] == high ? A(1) : exp(t[0] - reference);
    s[0] = high;
    s[1] = s[1] * own + t[1] * its;
    s[2] = s[2] * own + t[2] * its;
  }
};

template <typename T>
struct AttendedRows {
  using A = compute_t<T>;
  T* out;  // [rows, lanes]
  A* high;  // [rows, heads]
  A* total;
  int64_t period;  // lanes of a head

  template <int V, typename Op>
  __device__ __forceinline__ void write(const Op&, int64_t row, int64_t lane, int64_t lanes,
                                        int64_t count, const A (&states)[V][Op::kStates]) const {
    const int64_t head = lane / period;
    write_head<V>(row, lane, lanes, row * (lanes / period) + head, lane == head * period, count,
                  states);
  }

  // The same, with the place of the row's head, which the first lane of a head writes.
  template <int V>
  __device__ __forceinline__ void write_head(
      int64_t row, int64_t lane, int64_t lanes, int64_t at, bool is_first, int64_t count,
      const A (&states)[V][AttentionReduction::kStates]) const {
    A results[V];
#pragma unroll
    for (int v = 0; v < V; ++v) results[v] = count > 0 ? states[v][2] / states[v][1] : A(0);
    store_pack<V>(out + row * lanes + lane, results);
    if (!is_first) return;
    high[at] = count > 0 ? states[0][0] : A(0);
    total[at] = count > 0 ? states[0][1] : A(1);
  }
};

template <typename A>
struct NoSource {
  using Value = A;
};

template <typename T>
using AttentionRows = RowJob<AttentionReduction, NoSource<compute_t<T>>, AttendedRows<T>>;

template <typename T, typename Message>
struct AttendJob {
  AttentionRows<T> rows;
  Message message;
  DeviceProgram score;
  int64_t heads, period, group;  // group: lanes of the score that are summed
  int64_t tiles;                 // teams that share a head, each with its own lanes of the message
  Team team;
};

// Writes the scores of a chunk's edges for a head, one after the other: where there is nothing to add
// up, each member those of some edges, else all of them for some lanes each.
template <typename T, int R, typename Job>
__device__ __forceinline__ void score_chunk(const Job& job, int64_t k, int64_t head,
                                            compute_t<T>* scores) {
  using A = compute_t<T>;
  const Walk& walk = job.rows.walk;
  const Ends& ends = job.score.ends;
  const int member = job.team.member();
  const bool alone = job.group == 1;
  const int64_t ahead = alone ? member * kAhead : 0;
  const int64_t step = alone ? job.team.width * kAhead : kAhead;
  for (int64_t at = member; job.group == 0 && at < walk.chunk; at += job.team.width) {
    scores[at] = A(0);  // sums of nothing
  }
  for (int64_t base = 0; base < job.group; base += job.team.width) {
    const int64_t own = alone ? 0 : base + member;
    const bool counts = own < job.group;
    const Interpreter<T, R> interpreter(job.score, head * job.group + (counts ? own : 0));
    int64_t first = 0;
    walk.for_each(k, [&](int64_t row, int64_t begin, int64_t end, bool, bool) {
      for (int64_t at = begin + ahead; at < end; at += step) {
        const int count = end - at < kAhead ? static_cast<int>(end - at) : kAhead;
        Edge edges[kAhead];
#pragma unroll
        for (int u = 0; u < kAhead; ++u) {
          // The node of an edge is its row: to read it would be to look all over memory.
          edges[u] = {walk.readable_edge(at + (u < count ? u : 0)), row, 0};
          if (ends.reads_other) {
            edges[u].other =
                Ends::node(ends.other, ends.wide_other, edges[u].edge, ends.other_bound);
          }
        }
        A values[kAhead][1];
        interpreter.run(edges, values);
#pragma unroll
        for (int u = 0; u < kAhead; ++u) {
          A value = values[u][0];
          if (!alone) value = job.team.sum(counts ? value : A(0));
          const int64_t place = first + at - begin + u;
          if (u >= count || place >= walk.chunk) continue;  // whatever `ptr` says
          if (alone || member == 0) scores[place] = base == 0 ? value : scores[place] + value;
        }
      }
      first += end > begin ? end - begin : 0;
    });
  }
}

constexpr int64_t kScoreBytes = 16 << 10;  // of a block's shared memory

// A chunk's edges: first their scores, into shared memory, which the members share out among them;
// then the sums, of which every member has V lanes. Both in one loop would leave too few registers.
template <int V, typename T, int R, typename Message>
__global__ void __launch_bounds__(128)
    attend_chunks(const __grid_constant__ AttendJob<T, Message> job) {
  using A = compute_t<T>;
  __shared__ A kept[kScoreBytes / sizeof(A)];
  const Walk& walk = job.rows.walk;
  const Team& team = job.team;
  const int64_t tile = team.number() % job.tiles;
  const int64_t head = team.number() / job.tiles % job.heads;
  const int64_t k = team.number() / job.tiles / job.heads;
  if (k >= walk.chunks) return;
  A* scores = kept + static_cast<int>(threadIdx.x) / team.width * walk.chunk;
  score_chunk<T, R>(job, k, head, scores);
  team.wait();
  const int64_t within = (tile * team.width + team.member()) * V;
  const bool works = within < job.period;
  const int64_t lane = head * job.period + (works ? within : 0);
  const typename Message::template Reader<V> reader(job.message, walk, lane);
  int64_t first = 0;
  const int64_t open = walk.for_each(
      k, [&](int64_t row, int64_t begin, int64_t end, bool opens, bool closes) {
        A high = -A(INFINITY), total = A(0), sums[V];
#pragma unroll
        for (int v = 0; v < V; ++v) sums[v] = A(0);
        for (int64_t at = begin; at < end; at += kAhead) {
          const int count = end - at < kAhead ? static_cast<int>(end - at) : kAhead;
          A values[kAhead][V];
          reader.load(at, count, values);
          A score[kAhead], top = high;
#pragma unroll
          for (int u = 0; u < kAhead; ++u) {
            const int64_t place = first + at - begin + u;
            score[u] = u < count && place < walk.chunk ? scores[place] : -A(INFINITY);
            top = largest(top, score[u]);
          }
          const A reference = reference_of(top);
          if (top != high) {
            const A scale = exp(high - reference);
            high = top;
            total *= scale;
#pragma unroll
            for (int v = 0; v < V; ++v) sums[v] *= scale;
          }
#pragma unroll
          for (int u = 0; u < kAhead; ++u) {
            if (u < count) {
              const A weight = exp(score[u] - reference);
              total += weight;
#pragma unroll
              for (int v = 0; v < V; ++v) sums[v] = fma(weight, values[u][v], sums[v]);
            }
          }
        }
        first += end > begin ? end - begin : 0;
        if (!works) return;
        A states[V][AttentionReduction::kStates];
#pragma unroll
        for (int v = 0; v < V; ++v) {
          states[v][0] = high;
          states[v][1] = total;
          states[v][2] = sums[v];
        }
        if (opens && closes) {
          job.rows.sink.template write_head<V>(row, lane, walk.lanes, row * job.heads + head,
                                               within == 0, end - begin, states);
          return;
        }
        A* part = job.rows.part(k, opens ? 1 : 0, lane);
#pragma unroll
        for (int j = 0; j < AttentionReduction::kStates; ++j) {
#pragma unroll
          for (int v = 0; v < V; ++v) part[j * walk.lanes + v] = states[v][j];
        }
      });
  if (head == 0 && tile == 0 && team.member() == 0) job.rows.open[k] = open;
}

template <int V, typename T, int R, typename Message>
void attend_rows(const DeviceScope& scope, const Sorted& sorted, const AttentionOperands& operands,
                 const EdgeCall& score, const Message& message, const AttendedRows<T>& sink) {
  AttendJob<T, Message> job{};
  job.rows.sink = sink;
  job.message = message;
  job.score = score.program;
  job.heads = operands.heads;
  job.period = sink.period;
  job.group = operands.group;
  const int64_t packs = (job.period + V - 1) / V;
  // So many that the scores of all teams of a block have room.
  const int64_t bytes = chunk_of(operands.message.lanes) * kThreads * int64_t{sizeof(compute_t<T>)};
  job.team.width = team_width(std::max({packs, job.group, bytes / kScoreBytes}));
  job.tiles = (packs + job.team.width - 1) / job.team.width;
  run_chunks(scope, sorted, score.index, operands.message.lanes, job.rows, [&] {
    launch_teams(scope, job.rows.walk.chunks * job.heads * job.tiles, job.team,
                 &attend_chunks<V, T, R, Message>, job);
  });
}

template <typename T>
void attend(const DeviceScope& scope, const Sorted& sorted, const AttentionOperands& operands,
            const EdgeCall& score, const EdgeCall& message, const AttendedRows<T>& sink) {
  with_registers(widest(operands.score.program(), operands.message.program()), [&](auto registers) {
    constexpr int R = decltype(registers)::value;
    Direct<T> direct{};
    constexpr int V = kWidest<T>;
    if (find_direct(operands.message, message.program, &direct) && sink.period % V == 0 &&
        packs_fit<T>(direct.rows, direct.row_stride, operands.message.lanes, V)) {
      return attend_rows<V, T, R>(scope, sorted, operands, score, direct, sink);
    }
    const Interpreted<T, R> source{message.program};
    attend_rows<1, T, R>(scope, sorted, operands, score, source, sink);
  });
}

// -- the gradient of scores -------------------------------------------------------------------------

template <typename T>
struct SlopeJob {
  using A = compute_t<T>;
  Walk walk;  // of heads
  DeviceProgram score;
  DeviceProgram along;  // the messages times the gradients of their rows
  int64_t group, period;
  int64_t steps;  // teams that a head's edges are spread over, kAhead to each
  Team team;
  const A* high;  // [rows, heads]
  const A* total;
  const A* mean;
  T* weight;  // [edges, heads]
  T* slope;
};

// The weights of edges, found again, and the gradients of their scores.
template <typename T, int R>
__global__ void __launch_bounds__(128) write_slopes(const __grid_constant__ SlopeJob<T> job) {
  using A = compute_t<T>;
  const Walk& walk = job.walk;
  const int64_t head = job.team.number() % walk.lanes, step = job.team.number() / walk.lanes;
  if (step >= job.steps) return;
  Edge edges[kAhead];
#pragma unroll
  for (int u = 0; u < kAhead; ++u) {
    const int64_t at = step * kAhead + u;
    edges[u] = edge_at(job.along.ends, walk.readable_edge(at < walk.edges ? at : step * kAhead));
  }
  A scores[kAhead], along[kAhead];
  HeadValue<T, R>(job.score, job.team, head, job.group).load(edges, scores);
  HeadValue<T, R>(job.along, job.team, head, job.period).load(edges, along);
  if (job.team.member() != 0) return;
#pragma unroll
  for (int u = 0; u < kAhead; ++u) {
    const int64_t position = step * kAhead + u;
    if (position < walk.ptr[0] || position >= walk.ptr[walk.rows] || position >= walk.edges ||
        walk.edge(position) < 0) {
      continue;
    }
    const int64_t row = edges[u].index * walk.lanes + head;
    const A w = exp(scores[u] - job.high[row]) / job.total[row];
    const int64_t place = edges[u].edge * walk.lanes + head;
    job.weight[place] = narrow<T>(w);
    job.slope[place] = narrow<T>(w * (along[u] - job.mean[row]));
  }
}

// -- the ops ----------------------------------------------------------------------------------------

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
  dispatch_dtype(operands.score.dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    using A = compute_t<T>;
    attend<T>(scope, sorted, operands, score, message,
              {static_cast<T*>(out.mutable_data_ptr()), static_cast<A*>(high.mutable_data_ptr()),
               static_cast<A*>(total.mutable_data_ptr()),
               operands.message.lanes / operands.heads});
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
  dispatch_dtype(operands.score.dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    using A = compute_t<T>;
    SlopeJob<T> job{};
    job.walk = walk_over(sorted, operands.heads);
    job.score = score.program;
    job.along = along.program;
    // Every row has a gradient, and the score's values are those of the same nodes.
    job.along.ends.reads_other = operands.reads('j');
    job.along.ends.other_bound = operands.other_bound();
    job.group = operands.group;
    job.period = product.lanes / operands.heads;
    job.steps = (edges + kAhead - 1) / kAhead;
    job.team.width = team_width(std::max(job.group, job.period));
    job.high = static_cast<const A*>(high.const_data_ptr());
    job.total = static_cast<const A*>(total.const_data_ptr());
    job.mean = static_cast<const A*>(mean.const_data_ptr());
    job.weight = static_cast<T*>(weight.mutable_data_ptr());
    job.slope = static_cast<T*>(slope.mutable_data_ptr());
    clear_edges(scope, job.walk, job.weight);
    clear_edges(scope, job.walk, job.slope);
    const Program& wider = widest(operands.score.program(), product.program());
    with_registers(wider, [&](auto registers) {
      launch_teams(scope, job.steps * operands.heads, job.team,
                   &write_slopes<T, decltype(registers)::value>, job);
    });
  });
  return {weight, slope};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gnnscript, GNNSCRIPT_CUDA_KEY, m) {
  m.impl("edge_attention", TORCH_BOX(&edge_attention));
  m.impl("edge_attention_backward", TORCH_BOX(&edge_attention_backward));
}

}  // namespace gnnscript
