#include "cpu/segment_reducer.h"

namespace gnnscript {
namespace GNNSCRIPT_ISA {
namespace {

// What guards the division, as in PyG.
constexpr double kGuard = 1e-16;

// Values that are worked on at a time: whole rows, side by side, whatever the number of features.
// An exponential then takes full vectors also where an edge has a single value.
constexpr int64_t kBuffer = 4096;


template <typename T>
struct Softmax {
  using A = compute_t<T>;
  using Reducer = SegmentReducer<LogSumExpReduction, T>;

  SoftmaxArgs& args;
  SegmentArgs reduce_args;
  Reducer reducer;

  explicit Softmax(SoftmaxArgs& a) : args(a), reduce_args(as_reduction(a)), reducer(reduce_args) {}

  static SegmentArgs as_reduction(const SoftmaxArgs& a) {
    SegmentArgs reduction{};
    reduction.src = a.src;
    reduction.stride = a.stride;
    reduction.perm = a.perm;
    reduction.edges = a.edges;
    reduction.features = a.features;
    reduction.rows = a.rows;
    reduction.partials = a.partials;
    reduction.bad = -1;
    return reduction;
  }

  int64_t edge(int64_t i) const { return args.perm != nullptr ? args.perm[i] : i; }
  T* out(int64_t i) const { return static_cast<T*>(args.out) + edge(i) * args.features; }

  // The rows [first, last) with the sorted edges [begin, end), all of which fit into the buffer.
  void run_rows(int64_t first, int64_t last, int64_t begin, int64_t end) const {
    if (begin == end) return;
    const int64_t F = args.features;
    const int64_t values = (end - begin) * F;
    alignas(64) A buffer[kBuffer + kLanes<A>];
    for (int64_t i = begin; i < end; ++i) {
      if (i + kPrefetchAhead < end) __builtin_prefetch(reducer.edge(i + kPrefetchAhead));
      const T* x = reducer.edge(i);
      A* to = buffer + (i - begin) * F;
      for (int64_t f = 0; f < F; ++f) to[f] = load<A, 1>(x + f);
    }
    subtract_maxima<kLanes<A>>(buffer, first, last, begin, 0);
    for (int64_t i = 0; i < values; i += kLanes<A>) {  // the buffer ends in a spare vector
      store<A, kLanes<A>>(buffer + i, exponential<A, kLanes<A>>(load<A, kLanes<A>>(buffer + i)));
    }
    divide_by_sums<kLanes<A>>(buffer, first, last, begin, 0);
    for (int64_t i = begin; i < end; ++i) {
      const A* from = buffer + (i - begin) * F;
      T* to = out(i);
      for (int64_t f = 0; f < F; ++f) store<A, 1>(to + f, from[f]);
    }
  }

  // Takes from each value in the buffer the maximum of its row and feature, W features at a time.
  template <int W>
  void subtract_maxima(A* buffer, int64_t first, int64_t last, int64_t begin, int64_t column) const {
    if constexpr (W >= 1) {
      const int64_t F = args.features;
      const int64_t* ptr = args.rows.ptr;
      for (; F - column >= W; column += W) {
        for (int64_t row = first; row < last; ++row) {
          A* x = buffer + (ptr[row] - begin) * F + column;
          const int64_t size = (ptr[row + 1] - ptr[row]) * F;
          if (size == 0) continue;
          auto m = load<A, W>(x);
          for (int64_t i = F; i < size; i += F) m = maximum(m, load<A, W>(x + i));
          for (int64_t i = 0; i < size; i += F) store<A, W>(x + i, load<A, W>(x + i) - m);
        }
      }
      subtract_maxima<W / 2>(buffer, first, last, begin, column);
    }
  }

  // Divides each value in the buffer by the sum of its row and feature.
  template <int W>
  void divide_by_sums(A* buffer, int64_t first, int64_t last, int64_t begin, int64_t column) const {
    if constexpr (W >= 1) {
      const int64_t F = args.features;
      const int64_t* ptr = args.rows.ptr;
      for (; F - column >= W; column += W) {
        for (int64_t row = first; row < last; ++row) {
          A* x = buffer + (ptr[row] - begin) * F + column;
          const int64_t size = (ptr[row + 1] - ptr[row]) * F;
          Vector<A, W> total{};
          for (int64_t i = 0; i < size; i += F) total = total + load<A, W>(x + i);
          total = total + static_cast<A>(kGuard);
          for (int64_t i = 0; i < size; i += F) store<A, W>(x + i, load<A, W>(x + i) / total);
        }
      }
      divide_by_sums<W / 2>(buffer, first, last, begin, column);
    }
  }

  // Part of a row whose maxima and sums are known.
  template <int W>
  void write(int64_t begin, int64_t end, int64_t column, const A* kept) const {
    if constexpr (W >= 1) {
      for (; args.features - column >= W; column += W) {
        const auto m = load<A, W>(kept + column);
        const auto total = load<A, W>(kept + args.features + column) + static_cast<A>(kGuard);
        for (int64_t i = begin; i < end; ++i) {
          const auto x = load<A, W>(reducer.edge(i) + column);
          store<A, W>(out(i) + column, exponential<A, W>(x - m) / total);
        }
      }
      write<W / 2>(begin, end, column, kept);
    }
  }

  void run_chunk(int64_t chunk) const {
    if (reducer.bad_perm(chunk)) return;
    int64_t first = -1, from = 0, last_row = 0, to = 0;  // rows that wait to fill the buffer
    const auto flush = [&] {
      if (first >= 0) run_rows(first, last_row, from, to);
      first = -1;
    };
    args.rows.for_each(chunk, [&](int64_t row, int64_t begin, int64_t end, bool opens, bool closes) {
      if (!opens || !closes) {
        flush();
        return reducer.reduce(row, begin, end, end - begin, reducer.slot(chunk, opens ? 1 : 0));
      }
      if ((end - begin) * args.features > kBuffer) {
        flush();
        A* kept = reducer.slot(chunk, 1);  // free until the chunk's last row
        reducer.reduce(row, begin, end, end - begin, kept);
        return write<kLanes<A>>(begin, end, 0, kept);
      }
      if (first >= 0 && (end - from) * args.features > kBuffer) flush();
      if (first < 0) {
        first = row;
        from = begin;
      }
      last_row = row + 1;
      to = end;
    });
    flush();
  }

  void run() {
    const int64_t chunks = args.rows.chunks();
    parallel_tasks(chunks, [&](int64_t chunk) { run_chunk(chunk); });
    args.bad = reduce_args.bad;
    if (args.bad >= 0) return;
    Reducer::for_each_seam(chunks, [&](int64_t chunk) {
      reducer.combine(chunk, [&](int64_t, const A* kept, int64_t, int64_t last) {
        for (int64_t next = chunk + 1; next <= last; ++next) {
          __builtin_memcpy(reducer.slot(next, 0), kept, 2 * args.features * sizeof(A));
        }
      });
    });
    if (chunks < 2) return;
    parallel_tasks(chunks, [&](int64_t chunk) {
      args.rows.for_each(
          chunk, [&](int64_t, int64_t begin, int64_t end, bool opens, bool closes) {
            if (opens && closes) return;
            write<kLanes<A>>(begin, end, 0, reducer.slot(chunk, opens ? 1 : 0));
          });
    });
  }
};

// The gradient: weight times (gradient less the weighted mean of the row's gradients).
template <typename T>
struct SoftmaxGradient {
  using A = compute_t<T>;
  SoftmaxArgs& args;

  A* slot(int64_t chunk, int64_t which) const {
    return static_cast<A*>(args.partials) + (2 * chunk + which) * args.features;
  }
  int64_t at(int64_t i) const {
    return (args.perm != nullptr ? args.perm[i] : i) * args.features;
  }

  void dot(int64_t begin, int64_t end, A* __restrict total) const {
    const T* weights = static_cast<const T*>(args.src);
    const T* grads = static_cast<const T*>(args.grad);
    for (int64_t f = 0; f < args.features; ++f) total[f] = 0;
    for (int64_t i = begin; i < end; ++i) {
      const T* w = weights + at(i);
      const T* g = grads + at(i);
      for (int64_t f = 0; f < args.features; ++f) total[f] += load<A, 1>(w + f) * load<A, 1>(g + f);
    }
  }

  void write(int64_t begin, int64_t end, const A* __restrict total) const {
    const T* weights = static_cast<const T*>(args.src);
    const T* grads = static_cast<const T*>(args.grad);
    for (int64_t i = begin; i < end; ++i) {
      const T* w = weights + at(i);
      const T* g = grads + at(i);
      T* to = static_cast<T*>(args.out) + at(i);
      for (int64_t f = 0; f < args.features; ++f) {
        store<A, 1>(to + f, load<A, 1>(w + f) * (load<A, 1>(g + f) - total[f]));
      }
    }
  }

  void run() const {
    const Rows& rows = args.rows;
    const int64_t chunks = rows.chunks();
    parallel_tasks(chunks, [&](int64_t chunk) {
      if (args.perm != nullptr) {
        int64_t begin, end;
        rows.edges(chunk, &begin, &end);
        const int64_t bad = find_outside(args.perm, begin, end, args.edges);
        if (bad >= 0) return report(&args.bad, bad);
      }
      rows.for_each(chunk, [&](int64_t, int64_t begin, int64_t end, bool opens, bool closes) {
        A* total = slot(chunk, opens ? 1 : 0);
        dot(begin, end, total);
        if (opens && closes) write(begin, end, total);
      });
    });
    if (args.bad >= 0 || chunks < 2) return;
    parallel_tasks(chunks - 1, [&](int64_t chunk) {
      const int64_t limit = (chunk + 1) * rows.chunk;
      const int64_t row = rows.row_of(limit - 1);
      if (rows.start(row) < chunk * rows.chunk || rows.start(row + 1) <= limit) return;
      const int64_t last = (rows.start(row + 1) - 1) / rows.chunk;
      A* total = slot(chunk, 1);
      for (int64_t next = chunk + 1; next <= last; ++next) {
        for (int64_t f = 0; f < args.features; ++f) total[f] += slot(next, 0)[f];
      }
      for (int64_t next = chunk + 1; next <= last; ++next) {
        __builtin_memcpy(slot(next, 0), total, args.features * sizeof(A));
      }
    });
    parallel_tasks(chunks, [&](int64_t chunk) {
      rows.for_each(chunk, [&](int64_t, int64_t begin, int64_t end, bool opens, bool closes) {
        if (!opens || !closes) write(begin, end, slot(chunk, opens ? 1 : 0));
      });
    });
  }
};

}  // namespace

void softmax_forward(SoftmaxArgs& args) {
  dispatch_dtype(args.dtype, [&](auto* tag) {
    Softmax<std::remove_pointer_t<decltype(tag)>>(args).run();
  });
}

void softmax_backward(SoftmaxArgs& args) {
  dispatch_dtype(args.dtype, [&](auto* tag) {
    SoftmaxGradient<std::remove_pointer_t<decltype(tag)>>{args}.run();
  });
}

}  // namespace GNNSCRIPT_ISA
}  // namespace gnnscript
