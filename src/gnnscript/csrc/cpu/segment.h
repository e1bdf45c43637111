// Reductions of edge values over rows of sorted edges, and their counterparts.
#pragma once

#include <cstdint>

#include "cpu/rows.h"
#include "dtypes.h"
#include "isa.h"

namespace gnnscript {

// `statistics` is sum, mean, min, max, var and std at once, in this order. The last three serve
// gradients: the mean, the number of edges equal to `target`, and the number of zeros with the
// product of the other edges, all in the compute type.
enum class Reduce {
  sum,
  mean,
  min,
  max,
  mul,
  any,
  var,
  std,
  logsumexp,
  statistics,
  mean_wide,
  ties,
  products,
};

constexpr int kMaxOutputs = 6;

inline int64_t reduce_states(Reduce reduce) {
  switch (reduce) {
    case Reduce::var:
    case Reduce::std:
      return 3;
    case Reduce::logsumexp:
    case Reduce::ties:
    case Reduce::products:
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
  const void* target;      // [rows, features], for `ties`
  void* out[kMaxOutputs];  // [rows, features] each; null where not asked for
  // [chunks, 2, states, features] of the compute type: what is kept of a row that began before a
  // chunk, and of one that goes on after it. Null where there is but one chunk.
  void* partials;
  int64_t bad;  // a position of `perm` that holds no edge, or -1
};

GNNSCRIPT_KERNEL(segment_reduce, SegmentArgs&)

// The gradient to the edges of what `segment_reduce` returns; all contiguous.
struct SegmentGradientArgs {
  Dtype dtype;
  Reduce reduce;
  const void* grad;     // [rows, features]
  const void* src;      // [edges, features]
  const void* out;      // [rows, features]
  const void* first;    // [rows, features] of the compute type: mean, ties or the number of zeros
  const void* second;   // [rows, features] of the compute type: the product without zeros
  const int64_t* perm;  // [edges], or null; checked
  int64_t features;
  Rows rows;
  void* result;  // [edges, features]; holds what edges of no row get
};

GNNSCRIPT_KERNEL(segment_gradient, SegmentGradientArgs&)

struct SoftmaxArgs {
  Dtype dtype;
  const void* src;      // forward: [edges, features], `stride` apart. backward: the weights
  int64_t stride;
  const void* grad;     // backward: [edges, features]
  const int64_t* perm;  // [edges], or null
  int64_t edges;
  int64_t features;
  Rows rows;
  void* out;       // [edges, features]; holds what edges of no row get
  void* partials;  // [chunks, 2, 2 (backward: 1), features] of the compute type
  int64_t bad;     // a position of `perm` that holds no edge, or -1
};

GNNSCRIPT_KERNEL(softmax_forward, SoftmaxArgs&)
GNNSCRIPT_KERNEL(softmax_backward, SoftmaxArgs&)

}  // namespace gnnscript
