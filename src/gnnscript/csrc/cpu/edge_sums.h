// The values of a program on each edge, summed over neighbouring lanes.
#pragma once

#include "cpu/edge_block.h"

namespace gnnscript {
namespace GNNSCRIPT_ISA {
namespace {

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

// Calls use(start, count, first, lanes, values) with blocks of the program's values for `count`
// edges, whose ids are resolved: those of the edges from `start` on, in the lanes from `first` on.
template <typename T, typename Use>
void each_block(const EdgeArgs& args, Workspace<T>& work, int64_t count, const Use& use) {
  const bool whole = work.tile == args.lanes;
  if (whole) work.prepare(0, args.lanes);
  for (int64_t start = 0; start < count; start += work.block) {
    const int64_t left = count - start;
    const int64_t size = left < work.block ? left : work.block;
    for (int64_t first = 0; first < args.lanes; first += work.tile) {
      const int64_t lanes = args.lanes - first < work.tile ? args.lanes - first : work.tile;
      if (!whole) work.prepare(first, lanes);
      use(start, size, first, lanes, work.evaluate(start, size, first, lanes));
    }
  }
}

// Writes [count, groups]: for each edge the sums over `group` neighbouring lanes.
template <typename T, typename Out, typename A = compute_t<T>>
void sum_edges(const EdgeArgs& args, Workspace<T>& work, int64_t count, Out* out) {
  const int64_t group = args.group, groups = args.lanes / group;
  each_block<T>(args, work, count, [&](int64_t start, int64_t size, int64_t first, int64_t lanes,
                                       const A* values) {
    Out* to = out + start * groups;
    if (group == 1) return narrow(to + first, values, size * lanes);
    if (lanes == args.lanes) {
      for (int64_t g = 0; g < size * groups; ++g) {
        store<A, 1>(to + g, sum_of(values + g * group, group));
      }
      return;
    }
    if (first == 0) {
      for (int64_t g = 0; g < groups; ++g) work.sums[g] = A(0);
    }
    for (int64_t l = 0; l < lanes;) {  // a block of several tiles is one edge
      const int64_t g = (first + l) / group;
      const int64_t ends = (g + 1) * group - first;
      const int64_t stop = ends < lanes ? ends : lanes;
      work.sums[g] += sum_of(values + l, stop - l);
      l = stop;
    }
    if (first + lanes == args.lanes) narrow(to, work.sums, groups);
  });
}

}  // namespace
}  // namespace GNNSCRIPT_ISA
}  // namespace gnnscript
