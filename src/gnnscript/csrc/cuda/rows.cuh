// The sorted edges of all rows, cut into chunks of equal work, as on CPU (cpu/rows.h): a unit is an
// edge or the beginning of a row. A thread takes one chunk and one lane, or a few neighbouring ones.
//
// A chunk writes the rows that lie within it. Of a row that reaches beyond it keeps a part, and
// `join_rows` puts parts together in the order of the chunks, for long rows those of kFold chunks
// beforehand. So there are no atomics, a hub is spread over many threads, and results do not depend
// on scheduling.
#pragma once

#include "cuda/values.cuh"
#include "dtypes.h"

namespace gnnscript {

constexpr int64_t kFold = 64;  // chunks
constexpr int kAhead = 4;      // edges whose values are asked for at a time

struct Walk {
  const int64_t* ptr;   // [rows + 1]
  const int64_t* perm;  // [edges], or null where the edges are sorted
  int64_t rows, edges;
  int64_t lanes;  // values per row and edge
  int64_t chunk;  // units
  int64_t chunks;

  __device__ __forceinline__ int64_t start(int64_t row) const { return ptr[row] - ptr[0] + row; }

  // The edge at a position in [0, edges), or -1 where `perm` holds none.
  __device__ __forceinline__ int64_t edge(int64_t position) const {
    if (perm == nullptr) return position;
    const int64_t found = perm[position];
    return is_within(found, edges) ? found : -1;
  }

  // The same, but an edge that can be read.
  __device__ __forceinline__ int64_t readable_edge(int64_t position) const {
    const int64_t found = edge(position);
    return found < 0 ? 0 : found;
  }

  __device__ __forceinline__ int64_t row_of(int64_t unit) const {
    int64_t low = 0, high = rows - 1;
    while (low < high) {
      const int64_t middle = low + (high - low + 1) / 2;
      if (start(middle) <= unit) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  // Calls f(row, begin, end, opens, closes) for the part of each row within a chunk: its positions
  // [begin, end), all within [0, edges), and whether the chunk has the first and the last of the
  // row's units. Returns the row that goes on after the chunk, or -1.
  template <typename F>
  __device__ __forceinline__ int64_t for_each(int64_t k, const F& f) const {
    const int64_t units = start(rows), first = k * chunk;
    if (first >= units) return -1;
    const int64_t last = first + chunk < units ? first + chunk : units;
    const int64_t base = ptr[0];
    int64_t open = -1;
    int64_t row = row_of(first);
    int64_t begins = start(row);
    for (; row < rows && begins < last; ++row) {
      const int64_t next = start(row + 1);
      const bool opens = begins >= first, closes = next <= last;
      const int64_t offset = base - row - 1;  // from a unit to its position
      int64_t begin = (opens ? begins + 1 : first) + offset;
      int64_t end = (closes ? next : last) + offset;
      // What `ptr` says was not read on the host.
      begin = begin < 0 ? 0 : begin;
      end = end > edges ? edges : end;
      f(row, begin, end, opens, closes);
      if (!closes) open = row;
      begins = next;
    }
    return open;
  }
};

// Units of a chunk: few where a row has few lanes, so that there are enough threads. The number of
// lanes alone decides, so results are the same on every device and for every layout.
inline int64_t chunk_of(int64_t lanes) { return lanes < 16 ? 16 : (lanes > 128 ? 128 : lanes); }

// Reducing rows: `Op` of reductions.cuh, `Source` reads the values of edges, `Sink` takes rows.
template <typename Op, typename Source, typename Sink>
struct RowJob {
  Walk walk;
  Op op;
  Source source;
  Sink sink;
  void* partials;  // [chunks, 2, states, lanes] of the compute type: see cpu/segment.h
  int64_t* open;   // [chunks]: the row that goes on after each
  bool folds;

  using A = typename Source::Value;

  __device__ __forceinline__ A* part(int64_t k, int which, int64_t lane) const {
    return static_cast<A*>(partials) + (2 * k + which) * Op::kStates * walk.lanes + lane;
  }
};

template <int V, typename Op, typename Source, typename Sink>
__global__ void __launch_bounds__(128)
    reduce_chunks(const __grid_constant__ RowJob<Op, Source, Sink> job) {
  using A = typename Source::Value;
  const Walk& walk = job.walk;
  const int64_t packs = walk.lanes / V;
  const int64_t k = thread_number() / packs, lane = thread_number() % packs * V;
  if (k >= walk.chunks) return;
  const typename Source::template Reader<V> reader(job.source, walk, lane);
  const int64_t open = walk.for_each(
      k, [&](int64_t row, int64_t begin, int64_t end, bool opens, bool closes) {
        A states[V][Op::kStates];
        A values[kAhead][V];
#pragma unroll
        for (int v = 0; v < V; ++v) values[0][v] = A(0);
        if constexpr (Op::kTargeted) {
          job.sink.template target<V>(row, lane, walk.lanes, values[0]);
        } else if constexpr (Op::kFirst) {
          if (begin < end) reader.load(begin, 1, values);
        }
#pragma unroll
        for (int v = 0; v < V; ++v) job.op.init(states[v], values[0][v]);
        for (int64_t at = begin; at < end; at += kAhead) {
          const int count = end - at < kAhead ? static_cast<int>(end - at) : kAhead;
          reader.load(at, count, values);
#pragma unroll
          for (int u = 0; u < kAhead; ++u) {
            if (u < count) {
#pragma unroll
              for (int v = 0; v < V; ++v) job.op.step(states[v], values[u][v]);
            }
          }
        }
        if (opens && closes) {
          job.sink.template write<V>(job.op, row, lane, walk.lanes, end - begin, states);
          return;
        }
        A* part = job.part(k, opens ? 1 : 0, lane);
#pragma unroll
        for (int j = 0; j < Op::kStates; ++j) {
#pragma unroll
          for (int v = 0; v < V; ++v) part[j * walk.lanes + v] = states[v][j];
        }
      });
  if (lane == 0) job.open[k] = open;
}

// Whether all of the chunks [at, at + kFold) lie within `row`, which goes on into the first.
template <typename Job>
__device__ __forceinline__ bool is_folded(const Job& job, int64_t at, int64_t row) {
  return job.folds && at % kFold == 0 && at + kFold <= job.walk.chunks &&
         job.open[at + kFold - 1] == row;
}

// Puts the parts of kFold chunks into the first one's, where a row covers all of them.
template <typename Op, typename Source, typename Sink>
__global__ void __launch_bounds__(128)
    fold_parts(const __grid_constant__ RowJob<Op, Source, Sink> job) {
  using A = typename Source::Value;
  const int64_t lanes = job.walk.lanes;
  const int64_t at = thread_number() / lanes * kFold, lane = thread_number() % lanes;
  if (at == 0 || at >= job.walk.chunks) return;
  const int64_t row = job.open[at - 1];
  if (row < 0 || !is_folded(job, at, row)) return;
  A kept[Op::kStates], more[Op::kStates];
  for (int j = 0; j < Op::kStates; ++j) kept[j] = job.part(at, 0, lane)[j * lanes];
  for (int64_t i = 1; i < kFold; ++i) {
    for (int j = 0; j < Op::kStates; ++j) more[j] = job.part(at + i, 0, lane)[j * lanes];
    job.op.merge(kept, i * job.walk.chunk, more, job.walk.chunk);
  }
  for (int j = 0; j < Op::kStates; ++j) job.part(at, 0, lane)[j * lanes] = kept[j];
}

// Puts together the row that a chunk opens and does not close.
template <typename Op, typename Source, typename Sink>
__global__ void __launch_bounds__(128)
    join_rows(const __grid_constant__ RowJob<Op, Source, Sink> job) {
  using A = typename Source::Value;
  const Walk& walk = job.walk;
  const int64_t k = thread_number() / walk.lanes, lane = thread_number() % walk.lanes;
  if (k >= walk.chunks) return;
  const int64_t row = job.open[k];
  if (row < 0 || (k > 0 && job.open[k - 1] == row)) return;
  A kept[1][Op::kStates], more[Op::kStates];
  for (int j = 0; j < Op::kStates; ++j) kept[0][j] = job.part(k, 1, lane)[j * walk.lanes];
  const int64_t total = walk.ptr[row + 1] - walk.ptr[row];
  int64_t count = (k + 1) * walk.chunk - walk.start(row) - 1;
  for (int64_t at = k + 1; count < total && at < walk.chunks;) {
    const int64_t chunks = is_folded(job, at, row) ? kFold : 1;
    const int64_t rest = total - count;
    const int64_t edges = rest < chunks * walk.chunk ? rest : chunks * walk.chunk;
    for (int j = 0; j < Op::kStates; ++j) more[j] = job.part(at, 0, lane)[j * walk.lanes];
    job.op.merge(kept[0], count, more, edges);
    count += edges;
    at += chunks;
  }
  job.sink.template write<1>(job.op, row, lane, walk.lanes, total, kept);
}

}  // namespace gnnscript
