// Elementary functions without branches, so that loops over them vectorise; exp is in simd.h. Errors
// are within 2 units in the last place, within 4 for the functions made of several others. The
// coefficients are minimax fits.
#pragma once

#include "cpu/rows.h"
#include "cpu/simd.h"

namespace gnnscript {
namespace GNNSCRIPT_ISA {
namespace {

template <typename A>
struct FloatBits;
template <> struct FloatBits<float> {
  static constexpr int mantissa = 23, bias = 127;
  static constexpr float ln2_high = 0x1.62e400p-1f, ln2_low = 0x1.7f7d1cp-20f;
};
template <> struct FloatBits<double> {
  static constexpr int mantissa = 52, bias = 1023;
  static constexpr double ln2_high = 0x1.62e42fee00000p-1, ln2_low = 0x1.a39ef35793c76p-33;
};

// (exp(r) - 1 - r) / r^2 for |r| <= log(2) / 2
GNNSCRIPT_ALWAYS float exp_tail(float r) {
  return 0.50000001f +
         r * (0.16666513f + r * (0.0416661908f + r * (0.00836958546f + r * 0.00139515543f)));
}
GNNSCRIPT_ALWAYS double exp_tail(double r) {
  return 0.50000000000000144 +
         r * (0.16666666666666696 +
              r * (0.041666666666502698 +
                   r * (0.0083333333333079629 +
                        r * (0.0013888888950622071 +
                             r * (0.00019841269916194172 +
                                  r * (2.4801485970288952e-05 +
                                       r * (2.7557217023841734e-06 +
                                            r * (2.7632770732316783e-07 +
                                                 r * 2.5117721078444311e-08))))))));
}

// R in log((1 + s) / (1 - s)) = 2 s + s z R(z), z = s^2
GNNSCRIPT_ALWAYS float log_tail(float z) { return 0.666667833f + z * (0.399766125f + z * 0.298985339f); }
GNNSCRIPT_ALWAYS double log_tail(double z) {
  return 0.66666666666667451 +
         z * (0.39999999999339975 +
              z * (0.28571428760401196 +
                   z * (0.22222196592264215 +
                        z * (0.18183673635418132 +
                             z * (0.15311102976962429 + z * 0.14826849068746148)))));
}

template <typename A>
GNNSCRIPT_ALWAYS A copy_sign(A value, A sign) {
  using Int = typename BitsOf<A>::type;
  constexpr Int top = sizeof(Int) == 4 ? Int(INT32_MIN) : Int(INT64_MIN);
  return bit_cast<A>(Int((bit_cast<Int>(value) & ~top) | (bit_cast<Int>(sign) & top)));
}

template <typename A>
GNNSCRIPT_ALWAYS A absolute(A x) { return copy_sign(x, A(0)); }

template <typename A>
GNNSCRIPT_ALWAYS A exponential_of(A x) {
  return exponential<A, 1>(x);
}

// 2^n (exp(r) - 1) + (2^n - 1), halved until the end: 2^n may lie beyond the largest number.
template <typename A>
GNNSCRIPT_ALWAYS A exponential_minus_1(A x) {
  using Bits = FloatBits<A>;
  using Int = typename BitsOf<A>::type;
  constexpr bool single = sizeof(A) == 4;
  constexpr A highest = single ? A(89.5) : A(710.5);  // infinity, and below: -1
  constexpr A lowest = A(-40);
  constexpr A magic = single ? A(12582912.0) : A(6755399441055744.0);  // see exponential
  const A below = highest < x ? highest : x;
  const A clamped = lowest > below ? lowest : below;  // NaN stays
  const A shifted = clamped * A(1.44269504088896340735992468100189214) + magic;
  const A n = shifted - magic;
  const A r = (clamped - n * Bits::ln2_high) - n * Bits::ln2_low;
  const A p = r + r * r * exp_tail(r);
  const Int k = bit_cast<Int>(shifted) - bit_cast<Int>(magic);
  const A half = bit_cast<A>(Int((k + Bits::bias - 1) << Bits::mantissa));
  return (half * p + (half - A(0.5))) * A(2);
}

template <typename A>
GNNSCRIPT_ALWAYS A logarithm(A x) {
  using Bits = FloatBits<A>;
  using Int = typename BitsOf<A>::type;
  constexpr A smallest = sizeof(A) == 4 ? A(0x1p-126) : A(0x1p-1022);
  constexpr A scale = sizeof(A) == 4 ? A(0x1p+24) : A(0x1p+54);
  constexpr A infinity = A(__builtin_inf());
  const bool tiny = x < smallest;
  const A normal = tiny ? x * scale : x;
  constexpr Int root_half = sizeof(A) == 4 ? Int(0x3f3504f3) : Int(0x3fe6a09e667f3bcd);
  // The exponent such that the rest lies within [sqrt(1/2), sqrt(2)).
  const Int bits = bit_cast<Int>(normal);
  using Unsigned = std::make_unsigned_t<Int>;  // what is no positive number may wrap around
  const Int above = static_cast<Int>(static_cast<Unsigned>(bits) - Unsigned(root_half));
  const Int exponent = above >> Bits::mantissa;
  const Unsigned steps = static_cast<Unsigned>(above & ~((Int(1) << Bits::mantissa) - 1));
  const Int rest = static_cast<Int>(static_cast<Unsigned>(bits) - steps);
  const A f = bit_cast<A>(rest) - A(1);
  const A s = f / (A(2) + f);
  const A z = s * s;
  const A half_square = A(0.5) * f * f;
  const A n = A(exponent) - (tiny ? (sizeof(A) == 4 ? A(24) : A(54)) : A(0));
  const A value =
      n * Bits::ln2_high - ((half_square - (s * (half_square + z * log_tail(z)) + n * Bits::ln2_low)) - f);
  A result = x == infinity ? x : value;
  result = x == A(0) ? -infinity : result;
  result = x < A(0) ? A(__builtin_nan("")) : result;
  return x != x ? x : result;
}

template <typename A>
GNNSCRIPT_ALWAYS A sigmoid(A x) { return A(1) / (A(1) + exponential_of(-x)); }

template <typename A>
GNNSCRIPT_ALWAYS A hyperbolic_tangent(A x) {
  const A t = exponential_minus_1(A(-2) * absolute(x));
  return copy_sign(-t / (t + A(2)), x);
}

template <typename A>
GNNSCRIPT_ALWAYS A softplus(A x) {
  const A t = exponential_of(-absolute(x));
  const A u = A(1) + t;
  const A gap = u - A(1);
  const A tail = gap == A(0) ? t : logarithm(u) * t / (gap == A(0) ? A(1) : gap);
  return (x > A(0) ? x : A(0)) + (x != x ? x : tail);
}

GNNSCRIPT_ALWAYS float error_function(float x) {
  const float t = absolute(x) < 4.0f ? absolute(x) : 4.0f;
  const float square = t * t;
  const float inner =
      0.128379146f +
      square * (-0.376124648f +
                square * (0.112814897f +
                          square * (-0.0267541678f +
                                    square * (0.00497431401f + square * -0.000589270436f))));
  const float outer =
      0.128663876f +
      t * (0.635088778f +
           t * (0.106340407f +
                t * (-0.0238513292f +
                     t * (0.00368470718f + t * (-0.000333204294f + t * 1.22713241e-05f)))));
  const float value = t < 0.94f ? t + t * inner : 1.0f - exponential_of(-(t + t * outer));
  return x != x ? x : copy_sign(value, x);
}
GNNSCRIPT_ALWAYS double error_function(double x) { return __builtin_erf(x); }

// Sine (odd = 0) or cosine (odd = 1), for |x| < 6000.
GNNSCRIPT_ALWAYS float sine_of_quadrant(float x, int32_t odd) {
  const float shifted = x * 0.636619772f + 12582912.0f;
  const float n = shifted - 12582912.0f;
  const int32_t quadrant = (bit_cast<int32_t>(shifted) & 3) + odd;
  float r = x - n * 0x1.92p+0f;  // pi / 2 in four parts, n times the first three is exact
  r = r - n * 0x1.fb4p-12f;
  r = r - n * 0x1.444p-24f;
  r = r - n * 0x1.68c234p-39f;
  const float z = r * r;
  const float sine =
      r + r * z * (-0.166666546f + z * (0.00833215491f + z * -0.000195140992f));
  const float cosine = 1.0f - 0.5f * z +
                       z * z * (0.0416666463f + z * (-0.00138873401f + z * 2.44351453e-05f));
  const float value = quadrant & 1 ? cosine : sine;
  return quadrant & 2 ? -value : value;
}

}  // namespace
}  // namespace GNNSCRIPT_ISA
}  // namespace gnnscript
