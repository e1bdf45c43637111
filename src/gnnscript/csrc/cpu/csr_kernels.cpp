#include "cpu/csr.h"

#include "cpu/rows.h"

namespace gnnscript {
namespace GNNSCRIPT_ISA {
namespace {

constexpr int64_t kGrain = 1 << 15;
constexpr int64_t kChecked = 1 << 10;  // values that are still in the cache when they are counted

// How many edges ahead the place of an edge is asked for, and the count that says where it is. The
// neighbours of a place are often written by another thread, and a core that comes to them unprepared
// waits for that thread's cache.
constexpr int64_t kPlaceAhead = 32;
constexpr int64_t kCountAhead = 64;

// Whether a value in [begin, end) is smaller than the one before it.
template <typename I>
bool falls(const I* index, int64_t begin, int64_t end) {
  bool found = false;
  for (int64_t i = begin > 0 ? begin : 1; i < end; ++i) found |= index[i] < index[i - 1];
  return found;
}

template <typename I>
void scan(CsrArgs& args) {
  const I* index = static_cast<const I*>(args.index);
  const int64_t first = kChecked < args.edges ? kChecked : args.edges;
  int unsorted = falls(index, 0, first);  // of most that are unsorted, this is all that is read
  if (!unsorted) {
    parallel_tasks(ceil_div(args.edges, kGrain), [&](int64_t task) {
      if (__atomic_load_n(&unsorted, __ATOMIC_RELAXED)) return;
      const int64_t begin = task * kGrain;
      const int64_t end = begin + kGrain < args.edges ? begin + kGrain : args.edges;
      if (falls(index, begin, end)) __atomic_store_n(&unsorted, 1, __ATOMIC_RELAXED);
    });
  }
  args.sorted = unsorted == 0;
}

template <typename I>
void fill_sorted(CsrArgs& args) {
  const I* index = static_cast<const I*>(args.index);
  if (args.edges > 0 && (index[0] < 0 || index[args.edges - 1] >= args.size)) {
    args.bad = find_outside(index, 0, args.edges, args.size);
    return;
  }
  parallel_tasks(ceil_div(args.edges, kGrain), [&](int64_t task) {
    const int64_t begin = task * kGrain;
    const int64_t end = begin + kGrain < args.edges ? begin + kGrain : args.edges;
    for (int64_t i = begin; i < end; ++i) args.perm[i] = i;
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t row = i > 0 ? index[i - 1] + 1 : 0; row <= index[i]; ++row) args.ptr[row] = i;
    }
  });
  const int64_t first = args.edges > 0 ? index[args.edges - 1] + 1 : 0;
  for (int64_t row = first; row <= args.size; ++row) args.ptr[row] = args.edges;
}

// Counting sort. Each part of the edges counts its rows, then knows where its edges go.
template <typename I, typename C>
void fill_unsorted(CsrArgs& args) {
  const I* index = static_cast<const I*>(args.index);
  C* counts = static_cast<C*>(args.counts);
  const int64_t size = args.size;
  const int64_t length = ceil_div(args.edges, args.parts);
  const auto end_of = [&](int64_t part) {
    const int64_t end = (part + 1) * length;
    return end < args.edges ? end : args.edges;
  };
  parallel_tasks(args.parts, [&](int64_t part) {
    C* mine = counts + part * size;
    __builtin_memset(mine, 0, size * sizeof(C));
    for (int64_t begin = part * length; begin < end_of(part); begin += kChecked) {
      const int64_t end = begin + kChecked < end_of(part) ? begin + kChecked : end_of(part);
      const int64_t bad = find_outside(index, begin, end, size);
      if (bad >= 0) return report(&args.bad, bad);
      for (int64_t i = begin; i < end; ++i) ++mine[index[i]];
    }
  });
  if (args.bad >= 0) return;

  // Sums over blocks of rows, then over the blocks, then within them.
  const int64_t blocks = ceil_div(size, kGrain);
  int64_t* ptr = args.ptr;
  parallel_tasks(blocks, [&](int64_t block) {
    const int64_t begin = block * kGrain;
    const int64_t end = begin + kGrain < size ? begin + kGrain : size;
    int64_t total = 0;
    for (int64_t part = 0; blocks > 1 && part < args.parts; ++part) {
      for (int64_t row = begin; row < end; ++row) total += counts[part * size + row];
    }
    ptr[begin + 1] = total;  // kept there until the block is filled
  });
  int64_t total = 0;
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t here = ptr[block * kGrain + 1];
    ptr[block * kGrain + 1] = total;
    total += here;
  }
  parallel_tasks(blocks, [&](int64_t block) {
    const int64_t begin = block * kGrain;
    const int64_t end = begin + kGrain < size ? begin + kGrain : size;
    int64_t position = ptr[begin + 1];
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t part = 0; part < args.parts; ++part) {
        const int64_t here = counts[part * size + row];
        counts[part * size + row] = static_cast<C>(position);
        position += here;
      }
      ptr[row + 1] = position;
    }
  });
  ptr[0] = 0;

  parallel_tasks(args.parts, [&](int64_t part) {
    C* next = counts + part * size;
    const int64_t last = end_of(part);
    int64_t i = part * length;
    for (; i < last - kCountAhead; ++i) {
      __builtin_prefetch(&next[index[i + kCountAhead]], 1);
      __builtin_prefetch(&args.perm[next[index[i + kPlaceAhead]]], 1);
      args.perm[next[index[i]]++] = i;
    }
    for (; i < last; ++i) args.perm[next[index[i]]++] = i;
  });
}

template <typename I>
void fill(CsrArgs& args) {
  if (args.sorted) {
    fill_sorted<I>(args);
  } else if (csr_wide_counts(args.edges)) {
    fill_unsorted<I, int64_t>(args);
  } else {
    fill_unsorted<I, int32_t>(args);
  }
}

}  // namespace

void csr_scan(CsrArgs& args) { args.wide ? scan<int64_t>(args) : scan<int32_t>(args); }

void csr_fill(CsrArgs& args) { args.wide ? fill<int64_t>(args) : fill<int32_t>(args); }

}  // namespace GNNSCRIPT_ISA
}  // namespace gnnscript
