// Reducing edges of a row: blocks of values, or rows of the other side straight from memory.
#pragma once

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
         (direct->weight->spread == Spread::repeat && (direct->period >= 16 || direct->period % 4 == 0));
}

enum class Weights { none, shared, grouped, per_lane };

template <EdgeReduction R, Weights K, typename A, int N, int W = kLanes<A>>
GNNSCRIPT_ALWAYS void direct_vectors(A* sums, const A* source, int64_t stride,
                                     const int64_t* others, int64_t count, const A* weights,
                                     int64_t weight_stride, const int64_t* edges,
                                     int64_t period = 1) {
  using V = Vector<A, W>;
  int64_t place[N];  // of the weight of each vector, where neighbouring ones share it
  for (int v = 0; v < N; ++v) place[v] = v * W / period;
  V s[N];
  for (int v = 0; v < N; ++v) s[v] = load<A, W>(sums + v * W);
  for (int64_t k = 0; k < count; ++k) {
    const A* x = source + others[k] * stride;
    prefetch(source + others[k + kPrefetchAhead] * stride, N * W);
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
    __builtin_prefetch(source + others[k + kPrefetchAhead] * stride);
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
// edges; false where no vector comes out even.
template <EdgeReduction R, typename A, int W>
bool grouped_rows(const Direct& direct, const Ids& ids, int64_t start, int64_t count, int64_t lanes,
                  A* sums) {
  const int64_t period = direct.period;
  if (period >= lanes) return false;
  if (period % W != 0) {
    if constexpr (W > 2) return grouped_rows<R, A, W / 2>(direct, ids, start, count, lanes, sums);
    return false;
  }
  const A* source = static_cast<const A*>(direct.other->data);
  const A* weights = static_cast<const A*>(direct.weight->data);
  int64_t l = 0;
  const auto vectors = [&](auto number) {
    constexpr int N = decltype(number)::value;
    const bool even = N * W % period == 0 || period % (N * W) == 0;
    for (; even && l + N * W <= lanes; l += N * W) {
      direct_vectors<R, Weights::grouped, A, N, W>(
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
    if (grouped_rows<R, A, kLanes<A>>(direct, ids, start, count, lanes, sums)) return;
    direct_rows<R, Weights::shared>(direct, ids, start, count, lanes, sums);
  } else {
    direct_rows<R, Weights::per_lane>(direct, ids, start, count, lanes, sums);
  }
}

}  // namespace
}  // namespace GNNSCRIPT_ISA
}  // namespace gnnscript
