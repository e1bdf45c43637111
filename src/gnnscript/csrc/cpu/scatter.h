// Reductions of edge values whose edges are in no order.
#pragma once

#include <cstdint>

#include "cpu/segment.h"

namespace gnnscript {

struct ScatterArgs {
  Dtype dtype;
  Reduce reduce;
  const void* src;  // [edges, features], `stride` elements from one edge to the next
  int64_t stride;
  const void* index;  // [edges], int64 or int32
  bool wide;          // whether it is int64
  int64_t edges;
  int64_t features;
  int64_t size;
  // In how many parts the edges are reduced, each on its own, before the parts are joined in order:
  // a matter of sizes alone, so that results are the same bits for any number of threads.
  int64_t parts;
  void* out;     // [size, features]
  void* states;  // [parts, size, features] of the compute type
  void* counts;  // [parts, size], uint32: what is known of how many edges a row has
  int64_t bad;   // a position of `index` whose value is no row, or -1
};

// Parts have several edges for each row, or more time would go into joining them.
inline int64_t scatter_parts(int64_t edges, int64_t size) {
  const int64_t least = 4 * size > (1 << 14) ? 4 * size : (1 << 14);
  int64_t parts = 1;
  while (parts < 16 && 2 * parts * least <= edges) parts *= 2;
  while (edges / parts >= INT32_MAX) parts *= 2;
  return parts;
}

GNNSCRIPT_KERNEL(scatter_reduce, ScatterArgs&)

}  // namespace gnnscript
