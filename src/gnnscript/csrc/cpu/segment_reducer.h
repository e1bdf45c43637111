// The walk of a reduction over the sorted edges: by rows, by blocks of features, in chunks.
#pragma once

#include <type_traits>

#include "cpu/reductions.h"
#include "cpu/segment.h"

namespace gnnscript {
namespace GNNSCRIPT_ISA {
namespace {

// Op: one of reductions.h. T: the element type.
template <typename Op, typename T>
struct SegmentReducer {
  using A = compute_t<T>;
  using R = std::conditional_t<Op::kWide, A, T>;  // of the results
  static constexpr int kStates = Op::kStates;

  SegmentArgs& args;
  const T* src;
  A* partials;

  explicit SegmentReducer(SegmentArgs& a)
      : args(a), src(static_cast<const T*>(a.src)), partials(static_cast<A*>(a.partials)) {}

  A* slot(int64_t chunk, int64_t which) const {
    return partials + (2 * chunk + which) * kStates * args.features;
  }

  const T* edge(int64_t i) const {
    return src + (args.perm != nullptr ? args.perm[i] : i) * args.stride;
  }

  // Reduces K vectors of W features from `column` on. The result of a whole row goes to the outputs,
  // what is kept of a part to `part`.
  template <int K, int W>
  void block(int64_t row, int64_t begin, int64_t end, int64_t count, int64_t column, A* part) const {
    using V = Vector<A, W>;
    V s[K][kStates];
#pragma GCC unroll 8
    for (int k = 0; k < K; ++k) {
      V first{};
      if constexpr (Op::kTargeted) {
        first = load<A, W>(static_cast<const T*>(args.target) + row * args.features + column + k * W);
      } else if (begin < end) {
        first = load<A, W>(edge(begin) + column + k * W);
      }
      Op::template init<A, W>(s[k], first);
    }
    if (args.perm != nullptr) {
      // The order of the edges is random to the hardware, but known here.
      const int64_t last = end - 1;
      for (int64_t i = begin; i < end; ++i) {
        const T* x = src + args.perm[i] * args.stride + column;
        const int64_t ahead = i + kPrefetchAhead < last ? i + kPrefetchAhead : last;
        const char* next =
            reinterpret_cast<const char*>(src + args.perm[ahead] * args.stride + column);
#pragma GCC unroll 8
        for (unsigned byte = 0; byte < K * W * sizeof(T); byte += 64) __builtin_prefetch(next + byte);
#pragma GCC unroll 8
        for (int k = 0; k < K; ++k) Op::template step<A, W>(s[k], load<A, W>(x + k * W));
      }
    } else {
      const T* x = src + begin * args.stride + column;
      for (int64_t i = begin; i < end; ++i, x += args.stride) {
#pragma GCC unroll 8
        for (int k = 0; k < K; ++k) Op::template step<A, W>(s[k], load<A, W>(x + k * W));
      }
    }
    if (part != nullptr) {
      for (int k = 0; k < K; ++k) {
        for (int j = 0; j < kStates; ++j) {
          store<A, W>(part + j * args.features + column + k * W, s[k][j]);
        }
      }
      return;
    }
    for (int k = 0; k < K; ++k) {
      V results[Op::kOutputs];
      Op::template finish<A, W>(s[k], count, results);
      for (int j = 0; j < Op::kOutputs; ++j) {
        if (Op::kOutputs > 1 && args.out[j] == nullptr) continue;
        R* out = static_cast<R*>(args.out[j]) + row * args.features + column + k * W;
        store<A, W>(out, results[j]);
      }
    }
  }

  // The features in blocks as wide as they come, then the remainder in halves.
  template <int W>
  void remainder(int64_t row, int64_t begin, int64_t end, int64_t count, int64_t column,
                 A* part) const {
    if constexpr (W >= 1) {
      if (args.features - column >= W) {
        block<1, W>(row, begin, end, count, column, part);
        column += W;
      }
      remainder<W / 2>(row, begin, end, count, column, part);
    }
  }

  template <int K>
  int64_t blocks(int64_t row, int64_t begin, int64_t end, int64_t count, int64_t column,
                 A* part) const {
    constexpr int L = kLanes<A>;
    for (; args.features - column >= K * L; column += K * L) {
      block<K, L>(row, begin, end, count, column, part);
    }
    if constexpr (K > 1) column = blocks<K / 2>(row, begin, end, count, column, part);
    return column;
  }

  void reduce(int64_t row, int64_t begin, int64_t end, int64_t count, A* part) const {
    const int64_t column = blocks<Op::kBlock>(row, begin, end, count, 0, part);
    remainder<kLanes<A> / 2>(row, begin, end, count, column, part);
  }

  // Checks what a chunk reads of `perm`, which then is in the cache.
  bool bad_perm(int64_t chunk) const {
    if (args.perm == nullptr) return false;
    int64_t begin, end;
    args.rows.edges(chunk, &begin, &end);
    const int64_t bad = find_outside(args.perm, begin, end, args.edges);
    if (bad >= 0) report(&args.bad, bad);
    return bad >= 0;
  }

  void run_chunk(int64_t chunk) const {
    if (bad_perm(chunk)) return;
    args.rows.for_each(chunk, [&](int64_t row, int64_t begin, int64_t end, bool opens, bool closes) {
      A* part = opens && closes ? nullptr : slot(chunk, opens ? 1 : 0);
      reduce(row, begin, end, end - begin, part);
    });
  }

  // Puts together the row that begins in a chunk and ends in a later one, in the order of chunks,
  // and calls done(row, kept, edges, last chunk).
  template <typename F>
  void combine(int64_t chunk, const F& done) const {
    const Rows& rows = args.rows;
    const int64_t limit = (chunk + 1) * rows.chunk;
    const int64_t row = rows.row_of(limit - 1);
    if (rows.start(row) < chunk * rows.chunk || rows.start(row + 1) <= limit) return;
    A* kept = slot(chunk, 1);
    int64_t count = limit - rows.start(row) - 1;
    const int64_t total = rows.ptr[row + 1] - rows.ptr[row];
    int64_t last = chunk;
    while (count < total) {
      const A* part = slot(++last, 0);
      const int64_t more = total - count < rows.chunk ? total - count : rows.chunk;
      for (int64_t f = 0; f < args.features; ++f) {
        A s[kStates], t[kStates];
        for (int j = 0; j < kStates; ++j) s[j] = kept[j * args.features + f];
        for (int j = 0; j < kStates; ++j) t[j] = part[j * args.features + f];
        Op::template merge<A>(s, count, t, more);
        for (int j = 0; j < kStates; ++j) kept[j * args.features + f] = s[j];
      }
      count += more;
    }
    done(row, kept, total, last);
  }

  void finish(int64_t row, const A* kept, int64_t total) const {
    for (int64_t f = 0; f < args.features; ++f) {
      A s[kStates], results[Op::kOutputs];
      for (int j = 0; j < kStates; ++j) s[j] = kept[j * args.features + f];
      Op::template finish<A, 1>(s, total, results);
      for (int j = 0; j < Op::kOutputs; ++j) {
        if (args.out[j] == nullptr) continue;
        store<A, 1>(static_cast<R*>(args.out[j]) + row * args.features + f, results[j]);
      }
    }
  }

  // Runs f(chunk) for the chunks that a row may go on after.
  template <typename F>
  static void for_each_seam(int64_t chunks, const F& f) {
    constexpr int64_t each = 64;
    parallel_tasks(ceil_div(chunks - 1, each), [&](int64_t task) {
      for (int64_t k = task * each; k < (task + 1) * each && k < chunks - 1; ++k) f(k);
    });
  }

  void run() const {
    const int64_t chunks = args.rows.chunks();
    parallel_tasks(chunks, [&](int64_t chunk) { run_chunk(chunk); });
    if (args.bad >= 0) return;
    for_each_seam(chunks, [&](int64_t chunk) {
      combine(chunk, [&](int64_t row, const A* kept, int64_t total, int64_t) {
        finish(row, kept, total);
      });
    });
  }
};

}  // namespace
}  // namespace GNNSCRIPT_ISA
}  // namespace gnnscript
