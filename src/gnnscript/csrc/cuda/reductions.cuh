// The reductions of cpu/reductions.h, one lane at a time: what is kept per node while its edges
// pass, and how it becomes the result.
//
// `init` sees the first edge where a reduction is kFirst (0 where there is none), or the row's value
// in the target where it is kTargeted; `step` takes an edge in; `merge` takes in what a later part
// of the row has kept, with the number of edges on both sides; `finish` writes kOutputs results, in
// the element type, or in the compute type where they are kWide.
#pragma once

#include "cuda/values.cuh"

namespace gnnscript {

#define GNNSCRIPT_DEVICE __device__ __forceinline__

// NaN is the largest and the least of all values.
template <typename A>
GNNSCRIPT_DEVICE A largest(A a, A b) {
  return b > a || b != b ? b : a;
}
template <typename A>
GNNSCRIPT_DEVICE A least(A a, A b) {
  return b < a || b != b ? b : a;
}

struct Reduction {
  static constexpr int kStates = 1, kOutputs = 1;
  static constexpr bool kFirst = false, kTargeted = false, kWide = false;

  template <typename A>
  GNNSCRIPT_DEVICE void finish(const A* s, int64_t, A* out) const {
    out[0] = s[0];
  }
};

struct SumReduction : Reduction {
  template <typename A>
  GNNSCRIPT_DEVICE void init(A* s, A) const {
    s[0] = A(0);
  }
  template <typename A>
  GNNSCRIPT_DEVICE void step(A* s, A x) const {
    s[0] += x;
  }
  template <typename A>
  GNNSCRIPT_DEVICE void merge(A* s, int64_t, const A* t, int64_t) const {
    s[0] += t[0];
  }
};

struct MeanReduction : SumReduction {
  template <typename A>
  GNNSCRIPT_DEVICE void finish(const A* s, int64_t count, A* out) const {
    out[0] = s[0] / static_cast<A>(count > 0 ? count : 1);
  }
};

struct WideMeanReduction : MeanReduction {
  static constexpr bool kWide = true;
};

struct MulReduction : Reduction {
  template <typename A>
  GNNSCRIPT_DEVICE void init(A* s, A) const {
    s[0] = A(1);
  }
  template <typename A>
  GNNSCRIPT_DEVICE void step(A* s, A x) const {
    s[0] *= x;
  }
  template <typename A>
  GNNSCRIPT_DEVICE void merge(A* s, int64_t, const A* t, int64_t) const {
    s[0] *= t[0];
  }
};

template <bool kMax>
struct ExtremumReduction : Reduction {
  static constexpr bool kFirst = true;
  template <typename A>
  GNNSCRIPT_DEVICE void init(A* s, A first) const {
    s[0] = first;
  }
  template <typename A>
  GNNSCRIPT_DEVICE void step(A* s, A x) const {
    s[0] = kMax ? largest(s[0], x) : least(s[0], x);
  }
  template <typename A>
  GNNSCRIPT_DEVICE void merge(A* s, int64_t count, const A* t, int64_t more) const {
    if (more <= 0) return;
    if (count == 0) s[0] = t[0];
    else step(s, t[0]);
  }
};
using MinReduction = ExtremumReduction<false>;
using MaxReduction = ExtremumReduction<true>;

// The value of the last edge.
struct AnyReduction : Reduction {
  static constexpr bool kFirst = true;
  template <typename A>
  GNNSCRIPT_DEVICE void init(A* s, A first) const {
    s[0] = first;
  }
  template <typename A>
  GNNSCRIPT_DEVICE void step(A* s, A x) const {
    s[0] = x;
  }
  template <typename A>
  GNNSCRIPT_DEVICE void merge(A* s, int64_t, const A* t, int64_t more) const {
    if (more > 0) s[0] = t[0];
  }
};

// Sums of the differences from the first edge, and of their squares.
template <bool kRoot>
struct MomentReduction : Reduction {
  static constexpr int kStates = 3;
  static constexpr bool kFirst = true;
  template <typename A>
  GNNSCRIPT_DEVICE void init(A* s, A first) const {
    s[0] = first;
    s[1] = A(0);
    s[2] = A(0);
  }
  template <typename A>
  GNNSCRIPT_DEVICE void step(A* s, A x) const {
    const A d = x - s[0];
    s[1] += d;
    s[2] += d * d;
  }
  template <typename A>
  GNNSCRIPT_DEVICE void merge(A* s, int64_t count, const A* t, int64_t more) const {
    if (more <= 0) return;
    if (count == 0) {
      for (int i = 0; i < 3; ++i) s[i] = t[i];
      return;
    }
    const A d = t[0] - s[0];
    s[1] += t[1] + static_cast<A>(more) * d;
    s[2] += t[2] + A(2) * d * t[1] + static_cast<A>(more) * d * d;
  }
  template <typename A>
  GNNSCRIPT_DEVICE void finish(const A* s, int64_t count, A* out) const {
    const A n = static_cast<A>(count > 0 ? count : 1);
    const A mean = s[1] / n;
    const A var = s[2] / n - mean * mean;
    out[0] = var < A(0) ? A(0) : var;
    if (kRoot) out[0] = sqrt(out[0]);
  }
};
using VarReduction = MomentReduction<false>;
using StdReduction = MomentReduction<true>;

// The largest value m, and the sum of exp(x - m); both move when a larger value comes.
struct LogSumExpReduction : Reduction {
  static constexpr int kStates = 2;
  template <typename A>
  GNNSCRIPT_DEVICE void init(A* s, A) const {
    s[0] = -A(INFINITY);
    s[1] = A(0);
  }
  template <typename A>
  GNNSCRIPT_DEVICE void step(A* s, A x) const {
    // Equal infinities differ by nothing, not by NaN.
    const A m = largest(s[0], x);
    const A lower = x > s[0] ? s[0] : x;
    const A e = exp(lower == m ? A(0) : lower - m);
    s[1] = x > s[0] ? s[1] * e + A(1) : s[1] + e;
    s[0] = m;
  }
  template <typename A>
  GNNSCRIPT_DEVICE void merge(A* s, int64_t count, const A* t, int64_t more) const {
    if (more <= 0) return;
    if (count == 0) {
      s[0] = t[0];
      s[1] = t[1];
      return;
    }
    const A m = largest(s[0], t[0]);
    s[1] = s[1] * exp(s[0] == m ? A(0) : s[0] - m) + t[1] * exp(t[0] == m ? A(0) : t[0] - m);
    s[0] = m;
  }
  template <typename A>
  GNNSCRIPT_DEVICE void finish(const A* s, int64_t, A* out) const {
    out[0] = s[0] + log(s[1]);
  }
};

// sum, mean, min, max, var and std at once: reading the edges costs more than all of them.
struct StatisticsReduction : Reduction {
  static constexpr int kStates = 6, kOutputs = 6;
  static constexpr bool kFirst = true;
  template <typename A>
  GNNSCRIPT_DEVICE void init(A* s, A first) const {
    s[0] = A(0);
    s[1] = s[2] = first;
    VarReduction().init(s + 3, first);
  }
  template <typename A>
  GNNSCRIPT_DEVICE void step(A* s, A x) const {
    s[0] += x;
    MinReduction().step(s + 1, x);
    MaxReduction().step(s + 2, x);
    VarReduction().step(s + 3, x);
  }
  template <typename A>
  GNNSCRIPT_DEVICE void merge(A* s, int64_t count, const A* t, int64_t more) const {
    s[0] += t[0];
    MinReduction().merge(s + 1, count, t + 1, more);
    MaxReduction().merge(s + 2, count, t + 2, more);
    VarReduction().merge(s + 3, count, t + 3, more);
  }
  template <typename A>
  GNNSCRIPT_DEVICE void finish(const A* s, int64_t count, A* out) const {
    out[0] = s[0];
    MeanReduction().finish(s, count, out + 1);
    out[2] = s[1];
    out[3] = s[2];
    VarReduction().finish(s + 3, count, out + 4);
    StdReduction().finish(s + 3, count, out + 5);
  }
};

// How many edges have the value that the row was reduced to.
struct TiesReduction : Reduction {
  static constexpr int kStates = 2;
  static constexpr bool kTargeted = true, kWide = true;
  template <typename A>
  GNNSCRIPT_DEVICE void init(A* s, A target) const {
    s[0] = target;
    s[1] = A(0);
  }
  template <typename A>
  GNNSCRIPT_DEVICE void step(A* s, A x) const {
    s[1] += x == s[0] ? A(1) : A(0);
  }
  template <typename A>
  GNNSCRIPT_DEVICE void merge(A* s, int64_t, const A* t, int64_t) const {
    s[1] += t[1];
  }
  template <typename A>
  GNNSCRIPT_DEVICE void finish(const A* s, int64_t, A* out) const {
    out[0] = s[1];
  }
};

// How many edges are zero, and the product of the others.
struct ProductsReduction : Reduction {
  static constexpr int kStates = 2, kOutputs = 2;
  static constexpr bool kWide = true;
  template <typename A>
  GNNSCRIPT_DEVICE void init(A* s, A) const {
    s[0] = A(0);
    s[1] = A(1);
  }
  template <typename A>
  GNNSCRIPT_DEVICE void step(A* s, A x) const {
    s[0] += x == A(0) ? A(1) : A(0);
    s[1] *= x == A(0) ? A(1) : x;
  }
  template <typename A>
  GNNSCRIPT_DEVICE void merge(A* s, int64_t, const A* t, int64_t) const {
    s[0] += t[0];
    s[1] *= t[1];
  }
  template <typename A>
  GNNSCRIPT_DEVICE void finish(const A* s, int64_t, A* out) const {
    out[0] = s[0];
    out[1] = s[1];
  }
};

}  // namespace gnnscript
