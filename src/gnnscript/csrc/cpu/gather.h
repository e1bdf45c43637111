// Copying rows: from nodes to edges.
#pragma once

#include <cstdint>

#include "cpu/rows.h"
#include "isa.h"

namespace gnnscript {

struct GatherArgs {
  const char* src;     // [nodes], rows of `bytes` bytes, `stride` bytes apart
  const void* index;   // [edges], int64 or int32
  bool wide;           // whether it is int64
  char* out;           // [edges], rows of `bytes` bytes
  int64_t nodes, edges, bytes, stride;
  int64_t bad;  // a position of `index` whose value is no row, or -1
};

GNNSCRIPT_KERNEL(gather_rows, GatherArgs&)

struct ExpandArgs {
  const char* src;      // [rows], rows of `bytes` bytes, `stride` bytes apart
  const int64_t* perm;  // [edges], or null
  char* out;            // [edges], rows of `bytes` bytes
  int64_t edges, bytes, stride;
  Rows rows;
  int64_t bad;  // a position of `perm` that holds no edge, or -1
};

// Writes the row of each edge that belongs to one; `out` holds what the others get.
GNNSCRIPT_KERNEL(expand_rows, ExpandArgs&)

}  // namespace gnnscript
