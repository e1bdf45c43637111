// The reductions: what is kept per node while its edges pass, and how it becomes the result.
//
// A reduction has `kStates` vectors per block of features, and blocks of up to `kBlock` vectors.
// `init` sees the first edge, where there is one, or the row's value in `args.target` where it is
// `kTargeted`; `step` takes an edge in; `merge` takes in what another part of the row has kept, with
// the number of edges on both sides; `finish` writes the `kOutputs` results, in the element type, or
// in the compute type where they are `kWide`.
#pragma once

#include "cpu/simd.h"

namespace gnnscript {
namespace GNNSCRIPT_ISA {
namespace {

#define GNNSCRIPT_INLINE static inline __attribute__((always_inline))

struct Reduction {
  static constexpr bool kTargeted = false, kWide = false;
};

struct SumReduction : Reduction {
  static constexpr int kStates = 1, kOutputs = 1, kBlock = 8;
  template <typename A, int W, typename V>
  GNNSCRIPT_INLINE void init(V* s, V) {
    s[0] = V{};
  }
  template <typename A, int W, typename V>
  GNNSCRIPT_INLINE void step(V* s, V x) {
    s[0] = s[0] + x;
  }
  template <typename A>
  GNNSCRIPT_INLINE void merge(A* s, int64_t, const A* t, int64_t) {
    s[0] += t[0];
  }
  template <typename A, int W, typename V>
  GNNSCRIPT_INLINE void finish(const V* s, int64_t, V* out) {
    out[0] = s[0];
  }
};

struct MeanReduction : SumReduction {
  template <typename A, int W, typename V>
  GNNSCRIPT_INLINE void finish(const V* s, int64_t count, V* out) {
    out[0] = s[0] / static_cast<A>(count > 0 ? count : 1);
  }
};

struct MulReduction : Reduction {
  static constexpr int kStates = 1, kOutputs = 1, kBlock = 8;
  template <typename A, int W, typename V>
  GNNSCRIPT_INLINE void init(V* s, V) {
    s[0] = V{} + A(1);
  }
  template <typename A, int W, typename V>
  GNNSCRIPT_INLINE void step(V* s, V x) {
    s[0] = s[0] * x;
  }
  template <typename A>
  GNNSCRIPT_INLINE void merge(A* s, int64_t, const A* t, int64_t) {
    s[0] *= t[0];
  }
  template <typename A, int W, typename V>
  GNNSCRIPT_INLINE void finish(const V* s, int64_t, V* out) {
    out[0] = s[0];
  }
};

// A row starts at its first value rather than at an infinity: rows of NaN and of infinities are
// what they should be, and a row without edges finds 0 there.
template <bool kMax>
struct ExtremumReduction : Reduction {
  static constexpr int kStates = 1, kOutputs = 1, kBlock = 8;
  template <typename A, int W, typename V>
  GNNSCRIPT_INLINE void init(V* s, V first) {
    s[0] = first;
  }
  template <typename A, int W, typename V>
  GNNSCRIPT_INLINE void step(V* s, V x) {
    s[0] = kMax ? maximum(s[0], x) : minimum(s[0], x);
  }
  template <typename A>
  GNNSCRIPT_INLINE void merge(A* s, int64_t count, const A* t, int64_t more) {
    if (more == 0) return;
    s[0] = count == 0 ? t[0] : (kMax ? maximum(s[0], t[0]) : minimum(s[0], t[0]));
  }
  template <typename A, int W, typename V>
  GNNSCRIPT_INLINE void finish(const V* s, int64_t, V* out) {
    out[0] = s[0];
  }
};

using MinReduction = ExtremumReduction<false>;
using MaxReduction = ExtremumReduction<true>;

// The value of the last edge.
struct AnyReduction : Reduction {
  static constexpr int kStates = 1, kOutputs = 1, kBlock = 8;
  template <typename A, int W, typename V>
  GNNSCRIPT_INLINE void init(V* s, V first) {
    s[0] = first;
  }
  template <typename A, int W, typename V>
  GNNSCRIPT_INLINE void step(V* s, V x) {
    s[0] = x;
  }
  template <typename A>
  GNNSCRIPT_INLINE void merge(A* s, int64_t, const A* t, int64_t more) {
    if (more > 0) s[0] = t[0];
  }
  template <typename A, int W, typename V>
  GNNSCRIPT_INLINE void finish(const V* s, int64_t, V* out) {
    out[0] = s[0];
  }
};

// Variance in one pass: sums of the differences from the first edge, and of their squares. As the
// first edge lies among the values, little cancels.
template <bool kRoot>
struct MomentReduction : Reduction {
  static constexpr int kStates = 3, kOutputs = 1, kBlock = 4;
  template <typename A, int W, typename V>
  GNNSCRIPT_INLINE void init(V* s, V first) {
    s[0] = first;
    s[1] = V{};
    s[2] = V{};
  }
  template <typename A, int W, typename V>
  GNNSCRIPT_INLINE void step(V* s, V x) {
    const V d = x - s[0];
    s[1] = s[1] + d;
    s[2] = s[2] + d * d;
  }
  template <typename A>
  GNNSCRIPT_INLINE void merge(A* s, int64_t count, const A* t, int64_t more) {
    if (more == 0) return;
    if (count == 0) {
      for (int i = 0; i < 3; ++i) s[i] = t[i];
      return;
    }
    const A d = t[0] - s[0];
    s[1] += t[1] + static_cast<A>(more) * d;
    s[2] += t[2] + A(2) * d * t[1] + static_cast<A>(more) * d * d;
  }
  template <typename A, int W, typename V>
  GNNSCRIPT_INLINE void finish(const V* s, int64_t count, V* out) {
    const A n = static_cast<A>(count > 0 ? count : 1);
    const V mean = s[1] / n;
    const V var = s[2] / n - mean * mean;
    out[0] = var < A(0) ? V{} : var;
    if constexpr (kRoot) {
      out[0] = map_lanes<A, W>(out[0], [](A a) {
        if constexpr (sizeof(A) == 4) {
          return __builtin_sqrtf(a);
        } else {
          return __builtin_sqrt(a);
        }
      });
    }
  }
};

using VarReduction = MomentReduction<false>;
using StdReduction = MomentReduction<true>;

// The largest value m, and the sum of exp(x - m); both move when a larger value comes.
struct LogSumExpReduction : Reduction {
  static constexpr int kStates = 2, kOutputs = 1, kBlock = 2;
  template <typename A, int W, typename V>
  GNNSCRIPT_INLINE void init(V* s, V) {
    s[0] = V{} - A(__builtin_inf());
    s[1] = V{};
  }
  template <typename A, int W, typename V>
  GNNSCRIPT_INLINE void step(V* s, V x) {
    const V m = maximum(s[0], x);
    const V lower = x > s[0] ? s[0] : x;
    // Equal infinities differ by nothing, not by NaN.
    const V e = exponential<A, W>(lower == m ? V{} : lower - m);
    s[1] = x > s[0] ? s[1] * e + A(1) : s[1] + e;
    s[0] = m;
  }
  template <typename A>
  GNNSCRIPT_INLINE void merge(A* s, int64_t count, const A* t, int64_t more) {
    if (more == 0) return;
    if (count == 0) {
      s[0] = t[0];
      s[1] = t[1];
      return;
    }
    const A m = maximum(s[0], t[0]);
    s[1] = s[1] * exponential<A, 1>(s[0] == m ? A(0) : s[0] - m) +
           t[1] * exponential<A, 1>(t[0] == m ? A(0) : t[0] - m);
    s[0] = m;
  }
  template <typename A, int W, typename V>
  GNNSCRIPT_INLINE void finish(const V* s, int64_t, V* out) {
    out[0] = s[0] + map_lanes<A, W>(s[1], [](A a) {
               if constexpr (sizeof(A) == 4) {
                 return __builtin_logf(a);
               } else {
                 return __builtin_log(a);
               }
             });
  }
};

// sum, mean, min, max, var and std at once: reading the edges costs more than all of them.
struct StatisticsReduction : Reduction {
  static constexpr int kStates = 6, kOutputs = 6, kBlock = 2;
  template <typename A, int W, typename V>
  GNNSCRIPT_INLINE void init(V* s, V first) {
    SumReduction::init<A, W>(s, first);
    MinReduction::init<A, W>(s + 1, first);
    MaxReduction::init<A, W>(s + 2, first);
    VarReduction::init<A, W>(s + 3, first);
  }
  template <typename A, int W, typename V>
  GNNSCRIPT_INLINE void step(V* s, V x) {
    SumReduction::step<A, W>(s, x);
    MinReduction::step<A, W>(s + 1, x);
    MaxReduction::step<A, W>(s + 2, x);
    VarReduction::step<A, W>(s + 3, x);
  }
  template <typename A>
  GNNSCRIPT_INLINE void merge(A* s, int64_t count, const A* t, int64_t more) {
    SumReduction::merge<A>(s, count, t, more);
    MinReduction::merge<A>(s + 1, count, t + 1, more);
    MaxReduction::merge<A>(s + 2, count, t + 2, more);
    VarReduction::merge<A>(s + 3, count, t + 3, more);
  }
  template <typename A, int W, typename V>
  GNNSCRIPT_INLINE void finish(const V* s, int64_t count, V* out) {
    SumReduction::finish<A, W>(s, count, out);
    MeanReduction::finish<A, W>(s, count, out + 1);
    MinReduction::finish<A, W>(s + 1, count, out + 2);
    MaxReduction::finish<A, W>(s + 2, count, out + 3);
    VarReduction::finish<A, W>(s + 3, count, out + 4);
    StdReduction::finish<A, W>(s + 3, count, out + 5);
  }
};

// -- for gradients ---------------------------------------------------------------------------------

struct WideMeanReduction : MeanReduction {
  static constexpr bool kWide = true;
};

// How many edges have the value that the row was reduced to.
struct TiesReduction {
  static constexpr int kStates = 2, kOutputs = 1, kBlock = 4;
  static constexpr bool kTargeted = true, kWide = true;
  template <typename A, int W, typename V>
  GNNSCRIPT_INLINE void init(V* s, V target) {
    s[0] = target;
    s[1] = V{};
  }
  template <typename A, int W, typename V>
  GNNSCRIPT_INLINE void step(V* s, V x) {
    s[1] = s[1] + (x == s[0] ? V{} + A(1) : V{});
  }
  template <typename A>
  GNNSCRIPT_INLINE void merge(A* s, int64_t, const A* t, int64_t) {
    s[1] += t[1];
  }
  template <typename A, int W, typename V>
  GNNSCRIPT_INLINE void finish(const V* s, int64_t, V* out) {
    out[0] = s[1];
  }
};

// How many edges are zero, and the product of the others.
struct ProductsReduction {
  static constexpr int kStates = 2, kOutputs = 2, kBlock = 4;
  static constexpr bool kTargeted = false, kWide = true;
  template <typename A, int W, typename V>
  GNNSCRIPT_INLINE void init(V* s, V) {
    s[0] = V{};
    s[1] = V{} + A(1);
  }
  template <typename A, int W, typename V>
  GNNSCRIPT_INLINE void step(V* s, V x) {
    s[0] = s[0] + (x == A(0) ? V{} + A(1) : V{});
    s[1] = s[1] * (x == A(0) ? V{} + A(1) : x);
  }
  template <typename A>
  GNNSCRIPT_INLINE void merge(A* s, int64_t, const A* t, int64_t) {
    s[0] += t[0];
    s[1] *= t[1];
  }
  template <typename A, int W, typename V>
  GNNSCRIPT_INLINE void finish(const V* s, int64_t, V* out) {
    out[0] = s[0];
    out[1] = s[1];
  }
};

}  // namespace
}  // namespace GNNSCRIPT_ISA
}  // namespace gnnscript
