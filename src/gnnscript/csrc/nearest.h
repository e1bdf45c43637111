// The nearest neighbours so far, for the kernels of any device. No torch; GNNSCRIPT_ISA as in isa.h.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define GNNSCRIPT_ANYWHERE __host__ __device__
#else
#define GNNSCRIPT_ANYWHERE
#endif

namespace gnnscript {
namespace GNNSCRIPT_ISA {
namespace {

// The nearest neighbours so far, as a heap: the farthest, of equally far ones the last, on top.
template <typename T>
struct Nearest {
  T* distance;
  int64_t* position;
  int64_t size, limit;
  T within;

  GNNSCRIPT_ANYWHERE bool takes(T d, int64_t p) const {
    if (!(d < within)) return false;  // NaN is no neighbour
    return size < limit || before(d, p, distance[0], position[0]);
  }

  // What no neighbour that may still enter is farther than.
  GNNSCRIPT_ANYWHERE T farthest() const { return size < limit ? within : distance[0]; }

  GNNSCRIPT_ANYWHERE static bool before(T d, int64_t p, T other, int64_t q) {
    return d < other || (d == other && p < q);
  }

  GNNSCRIPT_ANYWHERE void put(int64_t at, T d, int64_t p) {
    distance[at] = d;
    position[at] = p;
  }

  GNNSCRIPT_ANYWHERE void sink(int64_t at, int64_t end, T d, int64_t p) {
    for (;;) {
      int64_t child = 2 * at + 1;
      if (child >= end) break;
      if (child + 1 < end &&
          before(distance[child], position[child], distance[child + 1], position[child + 1])) {
        ++child;
      }
      if (!before(d, p, distance[child], position[child])) break;
      put(at, distance[child], position[child]);
      at = child;
    }
    put(at, d, p);
  }

  GNNSCRIPT_ANYWHERE void add(T d, int64_t p) {
    if (size == limit) return sink(0, size, d, p);
    int64_t at = size++;
    while (at > 0) {
      const int64_t parent = (at - 1) / 2;
      if (!before(distance[parent], position[parent], d, p)) break;
      put(at, distance[parent], position[parent]);
      at = parent;
    }
    put(at, d, p);
  }

  // Sorts by distance, then position; or, with all distances made equal, by position.
  GNNSCRIPT_ANYWHERE void sort(bool by_distance) {
    if (!by_distance) {
      for (int64_t i = 0; i < size; ++i) distance[i] = T(0);
      for (int64_t at = size / 2 - 1; at >= 0; --at) sink(at, size, distance[at], position[at]);
    }
    for (int64_t end = size - 1; end > 0; --end) {
      const T d = distance[end];
      const int64_t p = position[end];
      put(end, distance[0], position[0]);
      sink(0, end, d, p);
    }
  }
};

}  // namespace
}  // namespace GNNSCRIPT_ISA
}  // namespace gnnscript
