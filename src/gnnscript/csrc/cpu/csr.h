// Sorting edges by node.
#pragma once

#include <cstdint>

#include "isa.h"

namespace gnnscript {

struct CsrArgs {
  const void* index;  // [edges], int64 or int32
  bool wide;          // whether it is int64
  int64_t edges;
  int64_t size;
  int64_t* ptr;   // [size + 1]
  int64_t* perm;  // [edges]
  int64_t parts;  // how many threads count on their own; the result is the same for any number
  void* counts;   // [parts, size], int64 where `edges` needs it, else int32; unused where sorted
  bool sorted;
  int64_t bad;  // a position of `index` whose value is no row, or -1
};

// Says whether the values are sorted.
GNNSCRIPT_KERNEL(csr_scan, CsrArgs&)
// Writes ptr and perm, unless a value is out of range.
GNNSCRIPT_KERNEL(csr_fill, CsrArgs&)

// Where each edge's count fits into 32 bits, the counts take half the memory.
inline bool csr_wide_counts(int64_t edges) { return edges > INT32_MAX; }

}  // namespace gnnscript
