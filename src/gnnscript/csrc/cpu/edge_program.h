// What the torch side of the edge programs and their kernels have in common. No torch here.
#pragma once

#include <cstdint>

#include "cpu/rows.h"
#include "dtypes.h"
#include "edge_program/program.h"
#include "edge_program/spread.h"
#include "isa.h"

namespace gnnscript {

enum class EdgeReduction : int32_t { sum, mean, min, max, mul };

// One call. Positions count the edges in the order of `perm`.
struct EdgeArgs {
  const Program* program;
  const EdgeOperand* operands;
  Dtype dtype;
  int64_t lanes;      // features of the program's value
  int64_t edges;
  const void* index;  // [edges], int64 or int32; null where no operand stands at its nodes
  const void* other;
  bool wide_index, wide_other;
  int64_t index_bound, other_bound;  // nodes on either side
  void* out;
  // edge_reduce
  Rows rows;
  const int64_t* perm;  // [ptr[rows] - ptr[0]], from the position ptr[0] on
  EdgeReduction reduction;
  void* partials;  // [chunks, 2, lanes] of the compute type, as in segment.h
  // edge_map
  int64_t group;  // neighbouring lanes summed to one value
  // Set where an index value is out of range.
  int64_t bad_edge, bad_index, bad_other;
};

GNNSCRIPT_KERNEL(edge_reduce, EdgeArgs&)
GNNSCRIPT_KERNEL(edge_map, EdgeArgs&)

// Memory that a task works in: torch-free code has no other way to get some.
char* allocate_scratch(int64_t bytes);
void free_scratch(char* scratch);

}  // namespace gnnscript
