// The sorted edges of all rows, cut into chunks of equal work.
//
// A unit of work is an edge or the beginning of a row; chunk k covers the units [k C, (k + 1) C).
// A hub's edges thus spread over many chunks, and many empty rows make chunks, too. Where the ends
// lie depends on the sizes and `ptr` alone, and with them the order in which parts are combined.
#pragma once

#include <cstdint>

#include "parallel.h"

namespace gnnscript {

// Inlined everywhere, for no instruction set must find another one's copy of a function.
#define GNNSCRIPT_ALWAYS inline __attribute__((always_inline))

struct Rows {
  const int64_t* ptr;  // [rows + 1], checked
  int64_t rows;
  int64_t chunk;  // units per chunk

  GNNSCRIPT_ALWAYS int64_t start(int64_t row) const { return ptr[row] - ptr[0] + row; }  // its first unit
  GNNSCRIPT_ALWAYS int64_t units() const { return rows == 0 ? 0 : start(rows); }
  GNNSCRIPT_ALWAYS int64_t chunks() const { return ceil_div(units(), chunk); }

  // The row that a unit belongs to.
  GNNSCRIPT_ALWAYS int64_t row_of(int64_t unit) const {
    int64_t low = 0, high = rows - 1;
    while (low < high) {
      const int64_t middle = low + (high - low + 1) / 2;
      if (start(middle) <= unit) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    return low;
  }

  // Calls f(row, begin, end, opens, closes) for the part of each row within a chunk: its sorted
  // edges [begin, end), and whether the chunk has the first and the last of the row's units.
  template <typename F>
  GNNSCRIPT_ALWAYS void for_each(int64_t k, const F& f) const {
    const int64_t first = k * chunk;
    const int64_t last = first + chunk < units() ? first + chunk : units();
    for (int64_t row = row_of(first); row < rows && start(row) < last; ++row) {
      const int64_t offset = ptr[row] - start(row) - 1;  // from a unit to its edge
      const bool opens = start(row) >= first;
      const bool closes = start(row + 1) <= last;
      f(row, opens ? ptr[row] : first + offset, closes ? ptr[row + 1] : last + offset, opens,
        closes);
    }
  }

  // The sorted edges of a chunk.
  GNNSCRIPT_ALWAYS void edges(int64_t k, int64_t* begin, int64_t* end) const {
    const int64_t first = k * chunk;
    const int64_t last = first + chunk < units() ? first + chunk : units();
    int64_t row = row_of(first);
    *begin = start(row) >= first ? ptr[row] : first + ptr[row] - start(row) - 1;
    row = row_of(last - 1);
    *end = start(row + 1) <= last ? ptr[row + 1] : last + ptr[row] - start(row) - 1;
  }
};

namespace {

// How many edges ahead memory is asked for: their order is random to the hardware, but known here. In
// edge programs of 64 features that is one block: while one is computed, the next is on its way.
constexpr int64_t kPrefetchAhead = 16;

// Units per chunk, for rows of `bytes` bytes: large enough to be worth a task, small enough to give
// every thread several.
inline int64_t chunk_units(int64_t bytes) {
  const int64_t units = (int64_t{1} << 18) / (bytes > 0 ? bytes : 1);
  return units < 512 ? 512 : (units > 16384 ? 16384 : units);
}

// The first position in [begin, end) whose value lies outside of [0, bound), or -1.
template <typename I>
inline int64_t find_outside(const I* values, int64_t begin, int64_t end, int64_t bound) {
  bool outside = false;
  for (int64_t i = begin; i < end; ++i) {
    outside |= static_cast<uint64_t>(static_cast<int64_t>(values[i])) >=
               static_cast<uint64_t>(bound);  // a negative number is a large one
  }
  if (outside) {
    for (int64_t i = begin; i < end; ++i) {
      if (values[i] < 0 || values[i] >= bound) return i;
    }
  }
  return -1;
}

// Keeps the smallest position reported; -1 stands for none.
inline void report(int64_t* position, int64_t found) {
  int64_t seen = __atomic_load_n(position, __ATOMIC_RELAXED);
  while ((seen < 0 || found < seen) &&
         !__atomic_compare_exchange_n(position, &seen, found, true, __ATOMIC_RELAXED,
                                      __ATOMIC_RELAXED)) {
  }
}

}  // namespace
}  // namespace gnnscript
