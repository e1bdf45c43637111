// Vectors of the width that the instruction set has, and what the kernels do with them.
//
// These are the vector types of GCC and Clang: + - * / < ?: work lane by lane, on any processor. A
// vector of one lane is the plain number, so one template serves the remainder of a row, too.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "dtypes.h"

#if defined(__F16C__)
#include <immintrin.h>
#endif

#ifndef GNNSCRIPT_ISA
#error "only a *_kernels.cpp, compiled once per instruction set, includes this"
#endif

namespace gnnscript {
namespace GNNSCRIPT_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <typename A>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(A));

template <typename A, int W>
struct VectorOf {
  typedef A type __attribute__((vector_size(W * sizeof(A))));
};
template <typename A>
struct VectorOf<A, 1> {
  using type = A;
};
template <typename A, int W>
using Vector = typename VectorOf<A, W>::type;

template <typename A>
struct BitsOf;
template <>
struct BitsOf<float> {
  using type = int32_t;
};
template <>
struct BitsOf<double> {
  using type = int64_t;
};

template <typename To, typename From>
inline __attribute__((always_inline)) To bit_cast(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast between sizes");
  To to;
  __builtin_memcpy(&to, &from, sizeof(To));
  return to;
}

// -- loading and storing --------------------------------------------------------------------------

// Half to single by arithmetic: moves the exponent by a multiplication, which is exact for
// subnormal numbers as well. W lanes; one lane works on plain integers.
template <int W>
inline __attribute__((always_inline)) Vector<float, W> half_to_float(Vector<uint32_t, W> h) {
  using U = Vector<uint32_t, W>;
  using V = Vector<float, W>;
  const U magnitude = (h & 0x7fffu) << 13;
  V value = bit_cast<V>(magnitude) * 0x1p112f;
  const U special = (h & 0x7c00u) == 0x7c00u ? U{} + 0x7f800000u : U{};
  return bit_cast<V>(bit_cast<U>(value) | special | ((h & 0x8000u) << 16));
}

inline uint16_t float_to_half(float value) {
  uint32_t x = bit_cast<uint32_t>(value);
  const uint32_t sign = (x >> 16) & 0x8000u;
  x &= 0x7fffffffu;
  if (x > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (x >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // 65520 rounds to infinity
  if (x < 0x38800000u) {  // subnormal: adding a half aligns and rounds the bits
    const float shifted = bit_cast<float>(x) + 0.5f;
    return static_cast<uint16_t>(sign | (bit_cast<uint32_t>(shifted) - 0x3f000000u));
  }
  x += 0xc8000fffu + ((x >> 13) & 1u);
  return static_cast<uint16_t>(sign | (x >> 13));
}

template <typename A, int W, typename T>
inline __attribute__((always_inline)) Vector<A, W> load(const T* p) {
  using V = Vector<A, W>;
  if constexpr (sizeof(T) == sizeof(A)) {
    V v;
    __builtin_memcpy(&v, p, sizeof(V));
    return v;
  } else {
    static_assert(sizeof(T) == 2 && sizeof(A) == 4, "halves are computed in float");
    constexpr bool bfloat = std::is_same_v<T, BFloat16>;
#if defined(__F16C__)
    if constexpr (!bfloat && W == 1) {
      return _cvtsh_ss(p->bits);
    }
    if constexpr (!bfloat && W == 4) {
      return reinterpret_cast<V>(_mm_cvtph_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
    }
    if constexpr (!bfloat && W == 8) {
      return reinterpret_cast<V>(
          _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
    }
#if defined(__AVX512F__)
    if constexpr (!bfloat && W == 16) {
      return reinterpret_cast<V>(
          _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
    }
#endif
#endif
    Vector<uint16_t, W> h;
    __builtin_memcpy(&h, p, sizeof(h));
    Vector<uint32_t, W> wide;
    if constexpr (W == 1) {
      wide = h;
    } else {
      wide = __builtin_convertvector(h, Vector<uint32_t, W>);
    }
    if constexpr (bfloat) {
      return bit_cast<V>(wide << 16);
    } else {
      return half_to_float<W>(wide);
    }
  }
}

template <typename A, int W, typename T>
inline __attribute__((always_inline)) void store(T* p, Vector<A, W> v) {
  if constexpr (sizeof(T) == sizeof(A)) {
    __builtin_memcpy(p, &v, sizeof(v));
  } else if constexpr (std::is_same_v<T, BFloat16>) {
    using U = Vector<uint32_t, W>;
    U u = bit_cast<U>(v);
    const U rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    const U quiet = (u >> 16) | 0x0040u;
    u = (u & 0x7fffffffu) > 0x7f800000u ? quiet : rounded;
    Vector<uint16_t, W> h;
    if constexpr (W == 1) {
      h = static_cast<uint16_t>(u);
    } else {
      h = __builtin_convertvector(u, Vector<uint16_t, W>);
    }
    __builtin_memcpy(p, &h, sizeof(h));
  } else {
#if defined(__AVX512F__)
    if constexpr (W == 16) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                          _mm512_cvtps_ph(bit_cast<__m512>(v), _MM_FROUND_TO_NEAREST_INT));
      return;
    }
#endif
#if defined(__F16C__)
    if constexpr (W == 8) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                       _mm256_cvtps_ph(bit_cast<__m256>(v), _MM_FROUND_TO_NEAREST_INT));
      return;
    }
#endif
    float lanes[W];
    __builtin_memcpy(lanes, &v, sizeof(v));
    for (int i = 0; i < W; ++i) p[i].bits = float_to_half(lanes[i]);
  }
}

// -- arithmetic -----------------------------------------------------------------------------------

// NaN wins, as in ATen.
template <typename V>
inline __attribute__((always_inline)) V maximum(V a, V b) {
  return (b > a) | (b != b) ? b : a;
}

template <typename V>
inline __attribute__((always_inline)) V minimum(V a, V b) {
  return (b < a) | (b != b) ? b : a;
}

// Applies a function of the C library lane by lane: for what is done once per node.
template <typename A, int W, typename F>
inline Vector<A, W> map_lanes(Vector<A, W> v, const F& f) {
  A lanes[W];
  __builtin_memcpy(lanes, &v, sizeof(v));
  for (int i = 0; i < W; ++i) lanes[i] = f(lanes[i]);
  __builtin_memcpy(&v, lanes, sizeof(v));
  return v;
}

// exp within two units in the last place, lane by lane: 2^n times the Taylor series of the rest,
// which lies within +-ln(2)/2. 0 below the smallest number, infinity above the largest.
template <typename A, int W>
inline __attribute__((always_inline)) Vector<A, W> exponential(Vector<A, W> x) {
  using V = Vector<A, W>;
  using I = Vector<typename BitsOf<A>::type, W>;
  constexpr bool single = sizeof(A) == 4;
  constexpr A log2e = static_cast<A>(1.44269504088896340735992468100189214);
  constexpr A ln2_high = single ? A(0.693359375) : A(6.93145751953125e-1);
  constexpr A ln2_low = single ? A(-2.12194440e-4) : A(1.42860682030941723212e-6);
  constexpr A highest = single ? A(88.72283935546875) : A(709.782712893383973096);
  constexpr A lowest = single ? A(-104) : A(-746);
  // Adding and taking away 1.5 * 2^mantissa rounds to an integer, whose bits then stand low.
  constexpr A magic = single ? A(12582912.0) : A(6755399441055744.0);

  const V below = x < highest ? x : V{} + highest;
  const V clamped = x > lowest ? below : V{} + lowest;  // of NaN, too
  const V shifted = clamped * log2e + magic;
  const V n = shifted - magic;
  const V r = (clamped - n * ln2_high) - n * ln2_low;
  V p;
  if constexpr (single) {
    p = V{} + A(1.0 / 5040);
    p = p * r + A(1.0 / 720);
  } else {
    p = V{} + A(1.0 / 6227020800);
    p = p * r + A(1.0 / 479001600);
    p = p * r + A(1.0 / 39916800);
    p = p * r + A(1.0 / 3628800);
    p = p * r + A(1.0 / 362880);
    p = p * r + A(1.0 / 40320);
    p = p * r + A(1.0 / 5040);
    p = p * r + A(1.0 / 720);
  }
  p = p * r + A(1.0 / 120);
  p = p * r + A(1.0 / 24);
  p = p * r + A(1.0 / 6);
  p = p * r + A(0.5);
  p = p * r + A(1);
  p = p * r + A(1);
  // Two factors, for the exponent of either stays within range; n is at least -150 (-1077).
  constexpr int mantissa = single ? 23 : 52;
  constexpr int bias = single ? 127 : 1023;
  const I k = bit_cast<I>(shifted) - bit_cast<I>(V{} + magic);
  const I half = k >> 1;
  const V first = bit_cast<V>((half + bias) << mantissa);
  const V second = bit_cast<V>((k - half + bias) << mantissa);
  V result = p * first * second;
  result = x > highest ? V{} + A(__builtin_inf()) : result;
  result = x < lowest ? V{} : result;
  return x != x ? x : result;
}

}  // namespace
}  // namespace GNNSCRIPT_ISA
}  // namespace gnnscript
