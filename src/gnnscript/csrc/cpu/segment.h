// Reductions of edge values over rows of sorted edges, and their counterparts.
#pragma once

#include <cstdint>

#include "cpu/rows.h"
#include "dtypes.h"
#include "isa.h"

namespace gnnscript {

// `statistics` is sum, mean, min, max, var and std at once, in this order.
enum class Reduce { sum, mean, min, max, mul, any, var, std, logsumexp, statistics };

constexpr int kMaxOutputs = 6;

inline int64_t reduce_states(Reduce reduce) {
  switch (reduce) {
    case Reduce::var:
    case Reduce::std:
      return 3;
    case Reduce::logsumexp:
      return 2;
    case Reduce::statistics:
      return 6;
    default:
      return 1;
  }
}

struct SegmentArgs {
  Dtype dtype;
  Reduce reduce;
  const void* src;      // [edges, features], `stride` elements from one edge to the next
  int64_t stride;
  const int64_t* perm;  // [edges], or null where the edges are sorted
  int64_t edges;
  int64_t features;
  Rows rows;
  void* out[kMaxOutputs];  // [rows, features] each; null where not asked for
  // [chunks, 2, states, features] of the compute type: what is kept of a row that began before a
  // chunk, and of one that goes on after it. Null where there is but one chunk.
  void* partials;
  int64_t bad;  // a position of `perm` that holds no edge, or -1
};

GNNSCRIPT_KERNEL(segment_reduce, SegmentArgs&)

}  // namespace gnnscript
