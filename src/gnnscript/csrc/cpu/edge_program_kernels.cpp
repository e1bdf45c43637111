#include "cpu/edge_program.h"

#include "cpu/edge_block.h"

namespace gnnscript {
namespace GNNSCRIPT_ISA {
namespace {

// -- reductions -----------------------------------------------------------------------------------

template <EdgeReduction R, typename A>
GNNSCRIPT_ALWAYS A first_value() {
  if (R == EdgeReduction::mul) return A(1);
  if (R == EdgeReduction::min) return A(__builtin_inf());
  if (R == EdgeReduction::max) return -A(__builtin_inf());
  return A(0);
}

template <EdgeReduction R, typename V>
GNNSCRIPT_ALWAYS V combine(V sum, V x) {
  if constexpr (R == EdgeReduction::mul) return sum * x;
  else if constexpr (R == EdgeReduction::min) return minimum(sum, x);
  else if constexpr (R == EdgeReduction::max) return maximum(sum, x);
  else return sum + x;
}

// Takes `count` rows of `lanes` values into `sums`.
template <EdgeReduction R, typename A>
void accumulate(A* sums, const A* x, int64_t count, int64_t lanes) {
  constexpr int W = kLanes<A>;
  using V = Vector<A, W>;
  int64_t l = 0;
  for (; l + 4 * W <= lanes; l += 4 * W) {
    V s[4];
    for (int v = 0; v < 4; ++v) s[v] = load<A, W>(sums + l + v * W);
    for (int64_t k = 0; k < count; ++k) {
      for (int v = 0; v < 4; ++v) s[v] = combine<R>(s[v], load<A, W>(x + k * lanes + l + v * W));
    }
    for (int v = 0; v < 4; ++v) store<A, W>(sums + l + v * W, s[v]);
  }
  for (; l + W <= lanes; l += W) {
    V s = load<A, W>(sums + l);
    for (int64_t k = 0; k < count; ++k) s = combine<R>(s, load<A, W>(x + k * lanes + l));
    store<A, W>(sums + l, s);
  }
  for (; l < lanes; ++l) {
    A s = sums[l];
    for (int64_t k = 0; k < count; ++k) s = combine<R>(s, x[k * lanes + l]);
    sums[l] = s;
  }
}

// -- programs that need no registers --------------------------------------------------------------

// The other side's rows, times a weight or not, straight from memory.
struct Direct {
  const EdgeOperand* other = nullptr;
  const EdgeOperand* weight = nullptr;
  int64_t period = 0;  // neighbouring lanes that share a weight; 0: a weight for every lane
  bool outer = false;  // each weight of the edge times each value of the other side
};

GNNSCRIPT_ALWAYS bool find_direct(const EdgeArgs& args, Direct* direct) {
  const Program& program = *args.program;
  if (program.pattern == Pattern::general || args.lanes < 16) return false;
  direct->other = &args.operands[program.pattern_other];
  direct->period = args.lanes;
  if (direct->other->spread == Spread::tile && program.pattern == Pattern::edge_times_other) {
    direct->weight = &args.operands[program.pattern_edge];
    direct->period = direct->other->period;
    direct->outer = true;
    return direct->weight->spread == Spread::repeat && direct->weight->period == direct->period;
  }
  if (direct->other->spread != Spread::full) return false;
  if (program.pattern == Pattern::other_row) return true;
  direct->weight = &args.operands[program.pattern_edge];
  if (direct->weight->spread == Spread::scalar) return true;
  direct->period = direct->weight->spread == Spread::full ? 0 : direct->weight->period;
  return direct->weight->spread == Spread::full ||
         (direct->weight->spread == Spread::repeat && direct->period >= 16);
}

enum class Weights { none, shared, grouped, per_lane };

template <EdgeReduction R, Weights K, typename A, int N>
GNNSCRIPT_ALWAYS void direct_vectors(A* sums, const A* source, int64_t stride,
                                     const int64_t* others, int64_t count, const A* weights,
                                     int64_t weight_stride, const int64_t* edges,
                                     int64_t period = 1) {
  constexpr int W = kLanes<A>;
  using V = Vector<A, W>;
  int64_t place[N];  // of the weight of each vector, where neighbouring ones share it
  for (int v = 0; v < N; ++v) place[v] = v * W / period;
  V s[N];
  for (int v = 0; v < N; ++v) s[v] = load<A, W>(sums + v * W);
  for (int64_t k = 0; k < count; ++k) {
    const A* x = source + others[k] * stride;
    const char* ahead = reinterpret_cast<const char*>(source + others[k + 8] * stride);
    for (int byte = 0; byte < N * kVectorBytes; byte += 64) __builtin_prefetch(ahead + byte);
    if constexpr (K == Weights::none) {
      for (int v = 0; v < N; ++v) s[v] = combine<R>(s[v], load<A, W>(x + v * W));
    } else if constexpr (K == Weights::shared) {
      const A w = weights[edges[k] * weight_stride];
      for (int v = 0; v < N; ++v) s[v] = combine<R>(s[v], V(load<A, W>(x + v * W) * w));
    } else if constexpr (K == Weights::grouped) {
      const A* w = weights + edges[k] * weight_stride;
      for (int v = 0; v < N; ++v) s[v] = combine<R>(s[v], V(load<A, W>(x + v * W) * w[place[v]]));
    } else {
      const A* w = weights + edges[k] * weight_stride;
      for (int v = 0; v < N; ++v) {
        s[v] = combine<R>(s[v], V(load<A, W>(x + v * W) * load<A, W>(w + v * W)));
      }
    }
  }
  for (int v = 0; v < N; ++v) store<A, W>(sums + v * W, s[v]);
}

template <EdgeReduction R, Weights K, typename A>
void direct_rows(const Direct& direct, const Ids& ids, int64_t start, int64_t count, int64_t lanes,
                 A* sums) {
  constexpr int W = kLanes<A>;
  const A* source = static_cast<const A*>(direct.other->data);
  const A* weights = K == Weights::none ? nullptr : static_cast<const A*>(direct.weight->data);
  const int64_t stride = direct.other->row_stride;
  const int64_t weight_stride = K == Weights::none ? 0 : direct.weight->row_stride;
  const int64_t* others = ids.other + start;
  const int64_t* edges = ids.edge + start;
  const int64_t period = K == Weights::shared ? direct.period : lanes;
  for (int64_t begin = 0; begin < lanes; begin += period, weights += K == Weights::shared) {
    const int64_t end = begin + period;
    int64_t l = begin;
    const auto vectors = [&](auto number) {
      constexpr int N = decltype(number)::value;
      for (; l + N * W <= end; l += N * W) {
        direct_vectors<R, K, A, N>(sums + l, source + l, stride, others, count,
                                   K == Weights::per_lane ? weights + l : weights, weight_stride,
                                   edges);
      }
    };
    vectors(std::integral_constant<int, 8>());
    vectors(std::integral_constant<int, 4>());
    vectors(std::integral_constant<int, 2>());
    vectors(std::integral_constant<int, 1>());
    for (; l < end; ++l) {
      A s = sums[l];
      for (int64_t k = 0; k < count; ++k) {
        A x = source[others[k] * stride + l];
        if (K != Weights::none) x = x * weights[edges[k] * weight_stride + (K == Weights::per_lane ? l : 0)];
        s = combine<R>(s, x);
      }
      sums[l] = s;
    }
  }
}

// N weights of each edge times W values of its other side: N vectors of `sums`, `period` apart.
template <EdgeReduction R, typename A, int N, int W>
GNNSCRIPT_ALWAYS void outer_vectors(A* sums, int64_t period, const A* source, int64_t stride,
                                    const int64_t* others, int64_t count, const A* weights,
                                    int64_t weight_stride, const int64_t* edges) {
  using V = Vector<A, W>;
  V s[N];
  for (int v = 0; v < N; ++v) s[v] = load<A, W>(sums + v * period);
  for (int64_t k = 0; k < count; ++k) {
    __builtin_prefetch(source + others[k + 8] * stride);
    const V x = load<A, W>(source + others[k] * stride);
    const A* w = weights + edges[k] * weight_stride;
    for (int v = 0; v < N; ++v) s[v] = combine<R>(s[v], V(x * w[v]));
  }
  for (int v = 0; v < N; ++v) store<A, W>(sums + v * period, s[v]);
}

template <EdgeReduction R, typename A, int W>
void outer_rows(const Direct& direct, const Ids& ids, int64_t start, int64_t count, int64_t lanes,
                int64_t column, A* sums) {
  if constexpr (W >= 1) {
    const A* source = static_cast<const A*>(direct.other->data);
    const A* weights = static_cast<const A*>(direct.weight->data);
    const int64_t period = direct.period, number = lanes / period;
    for (; period - column >= W; column += W) {
      int64_t k = 0;
      const auto vectors = [&](auto n) {
        constexpr int N = decltype(n)::value;
        for (; k + N <= number; k += N) {
          outer_vectors<R, A, N, W>(sums + k * period + column, period, source + column,
                                    direct.other->row_stride, ids.other + start, count, weights + k,
                                    direct.weight->row_stride, ids.edge + start);
        }
      };
      vectors(std::integral_constant<int, 8>());
      vectors(std::integral_constant<int, 1>());
    }
    outer_rows<R, A, W / 2>(direct, ids, start, count, lanes, column, sums);
  }
}

// Heads of a multiple of W lanes, each with a weight of its own, N vectors in one pass over the
// edges; false where they do not come out even.
template <EdgeReduction R, typename A>
bool grouped_rows(const Direct& direct, const Ids& ids, int64_t start, int64_t count, int64_t lanes,
                  A* sums) {
  constexpr int W = kLanes<A>;
  const int64_t period = direct.period;
  if (period % W != 0 || period >= lanes) return false;
  const A* source = static_cast<const A*>(direct.other->data);
  const A* weights = static_cast<const A*>(direct.weight->data);
  int64_t l = 0;
  const auto vectors = [&](auto number) {
    constexpr int N = decltype(number)::value;
    const bool even = N * W % period == 0 || period % (N * W) == 0;
    for (; even && l + N * W <= lanes; l += N * W) {
      direct_vectors<R, Weights::grouped, A, N>(
          sums + l, source + l, direct.other->row_stride, ids.other + start, count,
          weights + l / period, direct.weight->row_stride, ids.edge + start, period);
    }
  };
  vectors(std::integral_constant<int, 8>());
  vectors(std::integral_constant<int, 4>());
  vectors(std::integral_constant<int, 2>());
  vectors(std::integral_constant<int, 1>());
  return true;
}

template <EdgeReduction R, typename A>
GNNSCRIPT_ALWAYS void reduce_direct(const Direct& direct, const Ids& ids, int64_t start,
                                    int64_t count, int64_t lanes, A* sums) {
  if (direct.outer) {
    outer_rows<R, A, kLanes<A>>(direct, ids, start, count, lanes, 0, sums);
  } else if (direct.weight == nullptr) {
    direct_rows<R, Weights::none>(direct, ids, start, count, lanes, sums);
  } else if (direct.period > 0) {
    if (grouped_rows<R, A>(direct, ids, start, count, lanes, sums)) return;
    direct_rows<R, Weights::shared>(direct, ids, start, count, lanes, sums);
  } else {
    direct_rows<R, Weights::per_lane>(direct, ids, start, count, lanes, sums);
  }
}

// -- edge_reduce ----------------------------------------------------------------------------------

template <EdgeReduction R, typename T>
struct Reducer {
  using A = compute_t<T>;
  EdgeArgs& args;
  Direct direct;
  bool is_direct;

  explicit Reducer(EdgeArgs& given) : args(given) {
    is_direct = sizeof(T) == sizeof(A) && find_direct(args, &direct);
  }

  // What a chunk keeps of a row that began before it (0), and of one that goes on after it (1).
  A* part(int64_t chunk, int64_t which) const {
    return static_cast<A*>(args.partials) + (2 * chunk + which) * args.lanes;
  }

  void write(int64_t row, A* sums, int64_t first, int64_t lanes) const {
    const int64_t degree = args.rows.ptr[row + 1] - args.rows.ptr[row];
    if (R == EdgeReduction::mean && degree > 0) {
      for (int64_t l = 0; l < lanes; ++l) sums[l] = sums[l] / static_cast<A>(degree);
    }
    if (R != EdgeReduction::mul && degree == 0) {
      for (int64_t l = 0; l < lanes; ++l) sums[l] = A(0);
    }
    narrow(static_cast<T*>(args.out) + row * args.lanes + first, sums, lanes);
  }

  void run_chunk(int64_t chunk, Workspace<T>& work) const {
    int64_t begin = 0, end = 0;
    args.rows.edges(chunk, &begin, &end);
    if (!work.resolve(args, begin, end)) return;
    for (int64_t k = end - begin; k < end - begin + 8; ++k) work.ids.other[k] = 0;  // prefetched
    const int64_t tile = is_direct ? args.lanes : work.tile;
    for (int64_t first = 0; first < args.lanes; first += tile) {
      const int64_t lanes = args.lanes - first < tile ? args.lanes - first : tile;
      if (!is_direct) work.prepare(first, lanes);
      int64_t block_begin = begin, block_end = begin;
      const A* values = nullptr;
      args.rows.for_each(chunk, [&](int64_t row, int64_t from, int64_t to, bool opens, bool closes) {
        for (int64_t l = 0; l < lanes; ++l) work.sums[l] = first_value<R, A>();
        if (is_direct) reduce_direct<R>(direct, work.ids, from - begin, to - from, lanes, work.sums);
        for (int64_t at = from; at < to && !is_direct;) {
          if (at == block_end) {
            block_begin = at;
            block_end = at + work.block < end ? at + work.block : end;
            values = work.evaluate(block_begin - begin, block_end - block_begin, first, lanes);
          }
          const int64_t stop = to < block_end ? to : block_end;
          accumulate<R>(work.sums, values + (at - block_begin) * lanes, stop - at, lanes);
          at = stop;
        }
        if (opens && closes) {
          write(row, work.sums, first, lanes);
        } else {
          A* to_part = part(chunk, opens ? 1 : 0) + first;
          for (int64_t l = 0; l < lanes; ++l) to_part[l] = work.sums[l];
        }
      });
    }
  }

  // Joins the parts of rows that several chunks share, in the order of the chunks.
  void join() const {
    const int64_t chunks = args.rows.chunks();
    for (int64_t chunk = 0; chunk + 1 < chunks; ++chunk) {
      const int64_t row = args.rows.row_of((chunk + 1) * args.rows.chunk - 1);
      const int64_t start = args.rows.start(row);
      const bool opens_here = start >= chunk * args.rows.chunk;
      if (!opens_here || args.rows.start(row + 1) <= (chunk + 1) * args.rows.chunk) continue;
      A* sums = part(chunk, 1);
      for (int64_t next = chunk + 1; next < chunks && next * args.rows.chunk < args.rows.start(row + 1);
           ++next) {
        accumulate<R>(sums, part(next, 0), 1, args.lanes);
      }
      write(row, sums, 0, args.lanes);
    }
  }

  void run() const {
    const int64_t chunks = args.rows.chunks();
    const int64_t batch = ceil_div(chunks, 64);  // of chunks that share a workspace
    parallel_tasks(ceil_div(chunks, batch > 0 ? batch : 1), [&](int64_t task) {
      Workspace<T> work(args, args.rows.chunk);
      const int64_t last = (task + 1) * batch < chunks ? (task + 1) * batch : chunks;
      for (int64_t chunk = task * batch; chunk < last; ++chunk) run_chunk(chunk, work);
    });
    if (args.bad_edge < 0 && args.bad_index < 0 && args.bad_other < 0) join();
  }
};

template <EdgeReduction R>
void reduce_as(EdgeArgs& args) {
  dispatch_dtype(args.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    Reducer<R, T>(args).run();
  });
}

// -- edge_map -------------------------------------------------------------------------------------

template <typename A, int W>
GNNSCRIPT_ALWAYS A sum_lanes(Vector<A, W> v) {
  if constexpr (W == 1) {
    return v;
  } else {
    A halves[W];
    store<A, W>(halves, v);
    return sum_lanes<A, W / 2>(load<A, W / 2>(halves) + load<A, W / 2>(halves + W / 2));
  }
}

// Adds up in sixteen lanes whatever the instruction set, so that all of them round alike.
template <typename A>
GNNSCRIPT_ALWAYS A sum_of(const A* x, int64_t count) {
  constexpr int W = 16;
  A total = A(0);
  int64_t k = 0;
  if (count >= W) {
    Vector<A, W> partial = load<A, W>(x);
    for (k = W; k + W <= count; k += W) partial = partial + load<A, W>(x + k);
    total = sum_lanes<A, W>(partial);
  }
  if (k + 8 <= count) {
    total = total + sum_lanes<A, 8>(load<A, 8>(x + k));
    k += 8;
  }
  if (k + 4 <= count) {
    total = total + sum_lanes<A, 4>(load<A, 4>(x + k));
    k += 4;
  }
  for (; k < count; ++k) total = total + x[k];
  return total;
}

template <typename T>
void map_edges(EdgeArgs& args, int64_t begin, int64_t end, Workspace<T>& work) {
  using A = compute_t<T>;
  if (!work.resolve(args, begin, end)) return;
  const int64_t groups = args.lanes / args.group;
  const bool whole = work.tile == args.lanes;
  if (whole) work.prepare(0, args.lanes);
  for (int64_t start = 0; start < end - begin; start += work.block) {
    const int64_t left = end - begin - start;
    const int64_t count = left < work.block ? left : work.block;
    T* out = static_cast<T*>(args.out) + (begin + start) * groups;
    for (int64_t g = 0; !whole && g < groups; ++g) work.sums[g] = A(0);
    for (int64_t first = 0; first < args.lanes; first += work.tile) {
      const int64_t lanes = args.lanes - first < work.tile ? args.lanes - first : work.tile;
      if (!whole) work.prepare(first, lanes);
      const A* values = work.evaluate(start, count, first, lanes);
      if (args.group == 1) {
        narrow(out + first, values, count * lanes);
      } else if (whole) {
        for (int64_t g = 0; g < count * groups; ++g) {
          store<A, 1>(out + g, sum_of(values + g * args.group, args.group));
        }
      } else {
        for (int64_t l = 0; l < lanes;) {
          const int64_t g = (first + l) / args.group;
          const int64_t ends = (g + 1) * args.group - first;
          const int64_t stop = ends < lanes ? ends : lanes;
          work.sums[g] += sum_of(values + l, stop - l);
          l = stop;
        }
      }
    }
    if (!whole && args.group > 1) narrow(out, work.sums, groups);
  }
}

}  // namespace

void edge_reduce(EdgeArgs& args) {
  switch (args.reduction) {
    case EdgeReduction::sum: return reduce_as<EdgeReduction::sum>(args);
    case EdgeReduction::mean: return reduce_as<EdgeReduction::mean>(args);
    case EdgeReduction::min: return reduce_as<EdgeReduction::min>(args);
    case EdgeReduction::max: return reduce_as<EdgeReduction::max>(args);
    case EdgeReduction::mul: return reduce_as<EdgeReduction::mul>(args);
  }
}

void edge_map(EdgeArgs& args) {
  dispatch_dtype(args.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const int64_t size = chunk_units(args.lanes * int64_t{sizeof(T)});
    const int64_t chunks = ceil_div(args.edges, size);
    const int64_t batch = ceil_div(chunks, 64);
    parallel_tasks(ceil_div(chunks, batch > 0 ? batch : 1), [&](int64_t task) {
      Workspace<T> work(args, size);
      const int64_t last = (task + 1) * batch < chunks ? (task + 1) * batch : chunks;
      for (int64_t chunk = task * batch; chunk < last; ++chunk) {
        const int64_t end = (chunk + 1) * size;
        map_edges<T>(args, chunk * size, end < args.edges ? end : args.edges, work);
      }
    });
  });
}

}  // namespace GNNSCRIPT_ISA
}  // namespace gnnscript
