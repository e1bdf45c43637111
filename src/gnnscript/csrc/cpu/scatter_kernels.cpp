#include "cpu/scatter.h"

#include <type_traits>

#include "cpu/reductions.h"

namespace gnnscript {
namespace GNNSCRIPT_ISA {
namespace {

constexpr int64_t kReadTwice = 1 << 10;  // values, which the cache still holds the second time
constexpr int64_t kRowsPerTask = 1 << 12;

// Op: one of reductions.h with one state, that of a row without edges. T: the element type.
template <typename Op, typename T>
struct Scatterer {
  using A = compute_t<T>;
  // What is kept of a row's edges beside the state: their number, or whether there are any.
  static constexpr bool kCounts = std::is_same_v<Op, MeanReduction>;
  static constexpr bool kNothing =
      std::is_same_v<Op, SumReduction> || std::is_same_v<Op, MulReduction>;

  static constexpr bool kExtremum =
      std::is_same_v<Op, MinReduction> || std::is_same_v<Op, MaxReduction>;

  ScatterArgs& args;

  A* states(int64_t part) const {
    return static_cast<A*>(args.states) + part * args.size * args.features;
  }
  uint32_t* counts(int64_t part) const {
    return static_cast<uint32_t*>(args.counts) + part * args.size;
  }

  static A start() {
    constexpr A infinity = static_cast<A>(__builtin_inf());
    A state{};
    Op::template init<A, 1>(&state, A{});
    if constexpr (std::is_same_v<Op, MinReduction>) state = infinity;
    if constexpr (std::is_same_v<Op, MaxReduction>) state = -infinity;
    return state;
  }

  template <typename I>
  void run_part(int64_t part, const I* index) const {
    const int64_t length = ceil_div(args.edges, args.parts);
    const int64_t last = (part + 1) * length < args.edges ? (part + 1) * length : args.edges;
    A* state = states(part);
    const A first = start();
    for (int64_t i = 0; i < args.size * args.features; ++i) state[i] = first;
    if constexpr (!kNothing) __builtin_memset(counts(part), 0, args.size * sizeof(uint32_t));
    for (int64_t begin = part * length; begin < last; begin += kReadTwice) {
      const int64_t end = begin + kReadTwice < last ? begin + kReadTwice : last;
      const int64_t bad = find_outside(index, begin, end, args.size);
      if (bad >= 0) return report(&args.bad, bad);
      if (args.features == 1) {
        take(state, counts(part), index, begin, end, 1);
      } else {
        take(state, counts(part), index, begin, end, args.features);
      }
    }
  }

  template <typename I>
  GNNSCRIPT_ALWAYS void take(A* state, uint32_t* counts, const I* index, int64_t begin,
                             int64_t end, int64_t features) const {
    const T* x = static_cast<const T*>(args.src) + begin * args.stride;
    for (int64_t i = begin; i < end; ++i, x += args.stride) {
      const int64_t row = index[i];
      if constexpr (kCounts) ++counts[row];
      else if constexpr (!kNothing) counts[row] = 1;
      for (int64_t f = 0; f < features; ++f) {
        step(state + row * features + f, load<A, 1>(x + f));
      }
    }
  }

  // The larger of two numbers is a branch to a compiler, that of two vectors is none.
  static GNNSCRIPT_ALWAYS void step(A* state, A x) {
    if constexpr (kExtremum) {
      constexpr int lanes = 16 / sizeof(A);
      Vector<A, lanes> both = {*state}, given = {x};
      Op::template step<A, lanes>(&both, given);
      *state = both[0];
    } else {
      Op::template step<A, 1>(state, x);
    }
  }

  // Brings what the parts have of some rows together, in order.
  void join(int64_t first, int64_t last) const {
    for (int64_t row = first; row < last; ++row) {
      int64_t total = 0;
      for (int64_t part = 0; !kNothing && part < args.parts; ++part) total += counts(part)[row];
      for (int64_t f = 0; f < args.features; ++f) {
        const int64_t at = row * args.features + f;
        A state = states(0)[at];
        int64_t count = kNothing ? 1 : counts(0)[row];
        for (int64_t part = 1; part < args.parts; ++part) {
          const int64_t more = kNothing ? 1 : counts(part)[row];
          Op::template merge<A>(&state, count, &states(part)[at], more);
          count += more;
        }
        if (!kNothing && total == 0) state = A{};
        A result;
        Op::template finish<A, 1>(&state, total, &result);
        store<A, 1>(static_cast<T*>(args.out) + at, result);
      }
    }
  }

  void run() const {
    parallel_tasks(args.parts, [&](int64_t part) {
      if (args.wide) {
        run_part(part, static_cast<const int64_t*>(args.index));
      } else {
        run_part(part, static_cast<const int32_t*>(args.index));
      }
    });
    if (args.bad >= 0) return;
    parallel_tasks(ceil_div(args.size, kRowsPerTask), [&](int64_t task) {
      const int64_t end = (task + 1) * kRowsPerTask;
      join(task * kRowsPerTask, end < args.size ? end : args.size);
    });
  }
};

template <typename Op>
void scatter_by(ScatterArgs& args) {
  dispatch_dtype(args.dtype, [&](auto* tag) {
    Scatterer<Op, std::remove_pointer_t<decltype(tag)>>{args}.run();
  });
}

}  // namespace

void scatter_reduce(ScatterArgs& args) {
  switch (args.reduce) {
    case Reduce::sum:
      return scatter_by<SumReduction>(args);
    case Reduce::mean:
      return scatter_by<MeanReduction>(args);
    case Reduce::min:
      return scatter_by<MinReduction>(args);
    case Reduce::max:
      return scatter_by<MaxReduction>(args);
    case Reduce::mul:
      return scatter_by<MulReduction>(args);
    case Reduce::any:
      return scatter_by<AnyReduction>(args);
    default:  // the op takes no others
      return;
  }
}

}  // namespace GNNSCRIPT_ISA
}  // namespace gnnscript
