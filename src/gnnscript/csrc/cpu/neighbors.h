// Neighbour search among points in blocks of sixteen, under a tree of bounding boxes per example.
//
// The points of an example are sorted so that each block holds neighbours in space. A block stores
// coordinate after coordinate, so that sixteen distances are one vector. Node 1 of an example's
// tree covers all of its blocks; nodes 2 n and 2 n + 1 halve the blocks of node n. Search goes to
// the nearer child first and leaves out what is farther than the farthest neighbour so far.
#pragma once

#include <cstdint>

#include "isa.h"

namespace gnnscript {

constexpr int64_t kLanes = 16;

// The blocks and boxes of one example.
struct Tree {
  int64_t first_block, blocks;
  int64_t first_box;  // box of node 0, which is not used
};

template <typename T>
struct NeighborArgs {
  const T* blocks;           // [blocks, dims, kLanes]; what is missing in the last one is infinite
  const int64_t* positions;  // [blocks, kLanes]: where a point stands in x
  const T* boxes;            // [boxes, 2, dims]: least and greatest coordinates
  const Tree* trees;         // [examples]
  const T* y;                // [queries, dims]
  const int64_t* example;    // [queries]
  int64_t queries, dims;
  int64_t limit;             // most neighbours of a point
  T within;                  // squared distances stay below it
  bool skip_same;            // whether the point at the same position does not count
  bool by_distance;          // order of the neighbours: by distance, else by position
  int64_t* counts;           // [queries]: how many there are, `limit` at most
  const int64_t* starts;     // [queries]: where they go in `found`; null to count alone
  int64_t* found;            // positions in x
  char* scratch;             // [tasks, scratch_bytes(limit)]
};

constexpr int64_t kQueries = 64;  // queries of a task

// Distance and position of each of `limit` neighbours.
template <typename T>
constexpr int64_t scratch_bytes(int64_t limit) {
  return limit * static_cast<int64_t>(sizeof(T) + sizeof(int64_t));
}

GNNSCRIPT_KERNEL(search_float, NeighborArgs<float>&)
GNNSCRIPT_KERNEL(search_double, NeighborArgs<double>&)

template <typename T>
struct SampleArgs {
  const T* src;           // [points, dims]
  const int64_t* ptr;     // [examples + 1]
  const int64_t* counts;  // [examples + 1]: where the samples of each example begin and end
  const int64_t* first;   // [examples]: the first sample, counted within the example
  T* distance;            // [points]
  int64_t* out;
  int64_t examples, dims;
};

GNNSCRIPT_KERNEL(sample_float, SampleArgs<float>&)
GNNSCRIPT_KERNEL(sample_double, SampleArgs<double>&)

}  // namespace gnnscript
