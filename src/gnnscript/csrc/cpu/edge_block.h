// Evaluates an edge program on a block: registers of some edges times some lanes, edge by edge.
#pragma once

#include "cpu/edge_program.h"
#include "cpu/elementary.h"
#include "cpu/simd.h"

#if defined(__clang__)
#define GNNSCRIPT_IVDEP _Pragma("clang loop vectorize(assume_safety)")
#else
#define GNNSCRIPT_IVDEP _Pragma("GCC ivdep")
#endif

namespace gnnscript {
namespace GNNSCRIPT_ISA {
namespace {

constexpr int64_t kRegisterBytes = 4096;
template <typename A>
constexpr int64_t kRegisterLanes = kRegisterBytes / static_cast<int64_t>(sizeof(A));

// Asks for the values of a row, or as many as are worth it: more come by themselves.
template <typename T>
GNNSCRIPT_ALWAYS void prefetch(const T* values, int64_t count) {
  const char* at = reinterpret_cast<const char*>(values);
  const int64_t bytes = count * int64_t{sizeof(T)};
  for (int64_t byte = 0; byte < bytes && byte < 512; byte += 64) __builtin_prefetch(at + byte);
}

// Registers may coincide, so the loops below are free of any order between lanes. They run over
// whole multiples of 16 lanes: every lane takes the same instructions, whatever its place.
//
// An argument of an operation of two is a register, or rows of an operand read where they are, in
// multiples of 16 lanes.
template <typename A>
struct Argument {
  const A* data;        // of the register, or of the operand's first row
  const int64_t* rows;  // null for a register
  int64_t stride;

  GNNSCRIPT_ALWAYS const A* row(int64_t k, int64_t lanes) const {
    if (rows == nullptr) return data + k * lanes;
    prefetch(data + rows[k + kPrefetchAhead] * stride, lanes);
    return data + rows[k] * stride;
  }
};

// The expression in x, or in x and y, on every lane of a block of `count` edges times `lanes`.
#define GNNSCRIPT_EACH(expression)                              \
  {                                                             \
    if (n % 16) __builtin_unreachable();                        \
    GNNSCRIPT_IVDEP                                             \
    for (int64_t l = 0; l < n; ++l) {                           \
      const A x = a[l];                                         \
      d[l] = (expression);                                      \
    }                                                           \
    return;                                                     \
  }
#define GNNSCRIPT_PAIR(expression)                              \
  {                                                             \
    const bool flat = p.rows == nullptr && q.rows == nullptr;   \
    const int64_t width = flat ? n : lanes;                     \
    if (width % 16) __builtin_unreachable();                    \
    for (int64_t k = 0; k < (flat ? 1 : count); ++k) {          \
      const A* xs = flat ? p.data : p.row(k, lanes);     \
      const A* ys = flat ? q.data : q.row(k, lanes);     \
      A* to = d + k * lanes;                                    \
      GNNSCRIPT_IVDEP                                           \
      for (int64_t l = 0; l < width; ++l) {                     \
        const A x = xs[l], y = ys[l];                           \
        to[l] = (expression);                                   \
      }                                                         \
    }                                                           \
    return;                                                     \
  }

// The same as vectors by hand, for what compilers branch on lane by lane.
#define GNNSCRIPT_VECTORS(expression)                                             \
  {                                                                               \
    constexpr int W = kLanes<A>;                                                  \
    using V = Vector<A, W>;                                                       \
    [[maybe_unused]] const V one = V{} + A(1), zero = V{};                        \
    const bool flat = p.rows == nullptr && q.rows == nullptr;                     \
    const int64_t width = flat ? n : lanes;                                       \
    for (int64_t k = 0; k < (flat ? 1 : count); ++k) {                            \
      const A* xs = flat ? p.data : p.row(k, lanes);                       \
      const A* ys = flat ? q.data : q.row(k, lanes);                       \
      for (int64_t l = 0; l < width; l += W) {                                    \
        const V x = load<A, W>(xs + l), y = load<A, W>(ys + l);                   \
        store<A, W>(d + k * lanes + l, (expression));                             \
      }                                                                           \
    }                                                                             \
    return;                                                                       \
  }

GNNSCRIPT_ALWAYS float root(float x) { return __builtin_sqrtf(x); }
GNNSCRIPT_ALWAYS double root(double x) { return __builtin_sqrt(x); }

template <typename A>
void apply_pow(A* d, const A* a, double value, int64_t n) {
  for (int64_t l = 0; l < n; ++l) {
    d[l] = sizeof(A) == 4 ? A(__builtin_powf(float(a[l]), float(value)))
                          : A(__builtin_pow(double(a[l]), value));
  }
}

// Sine, or with odd = 1 cosine.
inline void apply_sine(float* d, const float* a, int odd, int64_t n) {
  float x[16];
  for (int64_t first = 0; first < n; first += 16) {
    int far = 0;
    for (int l = 0; l < 16; ++l) {
      x[l] = a[first + l];
      far |= !(absolute(x[l]) < 6000.0f);
    }
    for (int l = 0; l < 16; ++l) d[first + l] = sine_of_quadrant(x[l], odd);
    if (!far) continue;
    for (int l = 0; l < 16; ++l) {
      if (!(absolute(x[l]) < 6000.0f)) {
        d[first + l] = odd ? __builtin_cosf(x[l]) : __builtin_sinf(x[l]);
      }
    }
  }
}
inline void apply_sine(double* d, const double* a, int odd, int64_t n) {
  for (int64_t l = 0; l < n; ++l) d[l] = odd ? __builtin_cos(a[l]) : __builtin_sin(a[l]);
}

// What remains of a value once it is stored as T.
template <typename T, typename A>
void apply_rounded(A* d, const A* a, int64_t n) {
  constexpr int W = kLanes<A>;
  for (int64_t l = 0; l < n; l += W) {
    T stored[W];
    store<A, W>(stored, load<A, W>(a + l));
    store<A, W>(d + l, load<A, W>(stored));
  }
}

// One instruction on a block of `count` edges times `lanes`. `argument` says where an argument is.
template <typename T, typename A = compute_t<T>, typename Find>
void apply(const Instruction& instruction, A* registers, int64_t count, int64_t lanes,
           const Find& argument) {
  const int64_t n = (count * lanes + 15) / 16 * 16;
  const auto at = [&](int32_t number) {
    return registers + (number < 0 ? 0 : number) * kRegisterLanes<A>;
  };
  A* d = at(instruction.dst);
  const A* a = at(instruction.a);
  const A* b = at(instruction.b);
  const A* c = at(instruction.c);
  const Argument<A> p = argument(instruction.load_a, a);
  const Argument<A> q = argument(instruction.load_b, b);
  const A value = static_cast<A>(instruction.value);
  switch (instruction.op) {
    case Op::load:
      return;
    case Op::constant:
      for (int64_t l = 0; l < n; ++l) d[l] = value;
      return;
    case Op::negate: GNNSCRIPT_EACH(-x)
    case Op::relu: GNNSCRIPT_EACH(x <= A(0) ? A(0) : x)
    case Op::leaky_relu: GNNSCRIPT_EACH(x > A(0) ? x : x * value)
    case Op::elu: GNNSCRIPT_EACH(x > A(0) ? x : value * exponential_minus_1(x))
    case Op::exp: GNNSCRIPT_EACH(exponential_of(x))
    case Op::log: GNNSCRIPT_EACH(logarithm(x))
    case Op::sqrt: GNNSCRIPT_EACH(root(x))
    case Op::rsqrt: GNNSCRIPT_EACH(A(1) / root(x))
    case Op::abs: GNNSCRIPT_EACH(absolute(x))
    case Op::sign: GNNSCRIPT_EACH((x > A(0) ? A(1) : A(0)) - (x < A(0) ? A(1) : A(0)))
    case Op::square: GNNSCRIPT_EACH(x * x)
    case Op::reciprocal: GNNSCRIPT_EACH(A(1) / x)
    case Op::sigmoid: GNNSCRIPT_EACH(sigmoid(x))
    case Op::tanh: GNNSCRIPT_EACH(hyperbolic_tangent(x))
    case Op::softplus: GNNSCRIPT_EACH(softplus(x))
    case Op::silu: GNNSCRIPT_EACH(x * sigmoid(x))
    case Op::gelu: GNNSCRIPT_EACH(A(0.5) * x * (A(1) + error_function(x * A(0.70710678118654752))))
    case Op::gelu_tanh:
      GNNSCRIPT_EACH(
          A(0.5) * x *
          (A(1) + hyperbolic_tangent(A(0.79788456080286536) * (x + A(0.044715) * x * x * x))))
    case Op::erf: GNNSCRIPT_EACH(error_function(x))
    case Op::sin: return apply_sine(d, a, 0, n);
    case Op::cos: return apply_sine(d, a, 1, n);
    case Op::pow:
      if (instruction.value == 2) GNNSCRIPT_EACH(x * x)
      if (instruction.value == 3) GNNSCRIPT_EACH(x * x * x)
      if (instruction.value == 4) GNNSCRIPT_EACH((x * x) * (x * x))
      if (instruction.value == -1) GNNSCRIPT_EACH(A(1) / x)
      if (instruction.value == -2) GNNSCRIPT_EACH(A(1) / (x * x))
      return apply_pow(d, a, instruction.value, n);
    case Op::clamp_min: GNNSCRIPT_EACH(x < value ? value : x)
    case Op::clamp_max: GNNSCRIPT_EACH(x > value ? value : x)
    case Op::rounded: return apply_rounded<T>(d, a, n);
    case Op::add: GNNSCRIPT_PAIR(x + y)
    case Op::subtract: GNNSCRIPT_PAIR(x - y)
    case Op::multiply: GNNSCRIPT_PAIR(x * y)
    case Op::divide: GNNSCRIPT_PAIR(x / y)
    case Op::equal: GNNSCRIPT_VECTORS(x == y ? one : zero)
    case Op::not_equal: GNNSCRIPT_VECTORS(x != y ? one : zero)
    case Op::less: GNNSCRIPT_VECTORS(x < y ? one : zero)
    case Op::less_equal: GNNSCRIPT_VECTORS(x <= y ? one : zero)
    case Op::greater: GNNSCRIPT_VECTORS(x > y ? one : zero)
    case Op::greater_equal: GNNSCRIPT_VECTORS(x >= y ? one : zero)
    case Op::maximum: GNNSCRIPT_VECTORS(maximum(y, x))
    case Op::minimum: GNNSCRIPT_VECTORS(minimum(y, x))
    case Op::where:
      for (int64_t l = 0; l < n; l += kLanes<A>) {
        const auto yes = load<A, kLanes<A>>(b + l), no = load<A, kLanes<A>>(c + l);
        store<A, kLanes<A>>(d + l, load<A, kLanes<A>>(a + l) != A(0) ? yes : no);
      }
      return;
  }
}

#undef GNNSCRIPT_EACH
#undef GNNSCRIPT_PAIR
#undef GNNSCRIPT_VECTORS

template <typename T, typename A>
GNNSCRIPT_ALWAYS void widen(A* d, const T* from, int64_t count) {
  constexpr int W = kLanes<A>;
  int64_t l = 0;
  for (; l + W <= count; l += W) store<A, W>(d + l, load<A, W>(from + l));
  if constexpr (W > 4) {  // few lanes, such as a score for every head
    for (; l + 4 <= count; l += 4) store<A, 4>(d + l, load<A, 4>(from + l));
  }
  for (; l < count; ++l) d[l] = load<A, 1>(from + l);
}

template <typename T, typename A>
GNNSCRIPT_ALWAYS void narrow(T* to, const A* from, int64_t count) {
  constexpr int W = kLanes<A>;
  int64_t l = 0;
  for (; l + W <= count; l += W) store<A, W>(to + l, load<A, W>(from + l));
  for (; l < count; ++l) store<A, 1>(to + l, from[l]);
}

// The rows that edges read of the operands on each side.
struct Ids {
  int64_t* edge;
  int64_t* index;
  int64_t* other;

  const int64_t* of(char side) const {
    return side == 'i' ? index : side == 'j' ? other : side == 'e' ? edge : nullptr;
  }
};

// Reads lanes [first, first + lanes) of an operand for `count` edges.
template <typename T, typename A = compute_t<T>>
void load_operand(const EdgeOperand& operand, const int64_t* ids, int64_t count, int64_t first,
                  int64_t lanes, bool all_lanes, A* d) {
  const T* data = static_cast<const T*>(operand.data);
  const int64_t stride = operand.row_stride;
  const auto row = [&](int64_t k) { return data + (ids != nullptr ? ids[k] : 0) * stride; };
  const auto lane_at = [&](int64_t lane) -> int64_t {
    switch (operand.spread) {
      case Spread::full: return lane;
      case Spread::scalar: return 0;
      case Spread::repeat: return lane / operand.period;
      case Spread::tile: return lane % operand.period;
      case Spread::table: break;
    }
    return operand.table[lane];
  };
  if (lanes == 1) {
    const int64_t offset = lane_at(first);
    for (int64_t k = 0; k < count; ++k) d[k] = load<A, 1>(row(k) + offset);
  } else if (operand.spread == Spread::full) {
    for (int64_t k = 0; k < count; ++k, d += lanes) {
      if (ids != nullptr) prefetch(row(k + kPrefetchAhead) + first, lanes);
      widen(d, row(k) + first, lanes);
    }
  } else if (operand.spread == Spread::scalar) {
    for (int64_t k = 0; k < count; ++k, d += lanes) {
      const A value = load<A, 1>(row(k));
      for (int64_t l = 0; l < lanes; ++l) d[l] = value;
    }
  } else if (operand.spread == Spread::repeat && all_lanes) {
    for (int64_t k = 0; k < count; ++k) {
      const T* from = row(k);
      for (int64_t l = 0; l < lanes; l += operand.period, d += operand.period, ++from) {
        const A value = load<A, 1>(from);
        for (int64_t m = 0; m < operand.period; ++m) d[m] = value;
      }
    }
  } else if (operand.spread == Spread::tile && all_lanes) {
    for (int64_t k = 0; k < count; ++k) {
      for (int64_t l = 0; l < lanes; l += operand.period, d += operand.period) {
        widen(d, row(k), operand.period);
      }
    }
  } else {
    for (int64_t k = 0; k < count; ++k, d += lanes) {
      const T* from = row(k);
      for (int64_t l = 0; l < lanes; ++l) d[l] = load<A, 1>(from + lane_at(first + l));
    }
  }
}

// Registers, a row of sums, and the ids of a chunk of edges, in one piece of memory.
template <typename T, typename A = compute_t<T>>
class Workspace {
 public:
  Workspace(const EdgeArgs& args, int64_t edges)
      : args_(args),
        memory_(allocate_scratch(args.program->registers * kRegisterBytes +
                                 (args.lanes + 16) * int64_t{sizeof(A)} +
                                 3 * (edges + 16) * int64_t{sizeof(int64_t)})) {
    char* at = memory_;
    registers = reinterpret_cast<A*>(at);
    at += args.program->registers * kRegisterBytes;
    ids.edge = reinterpret_cast<int64_t*>(at);
    ids.index = ids.edge + edges + 16;
    ids.other = ids.index + edges + 16;
    sums = reinterpret_cast<A*>(ids.other + edges + 16);
    tile = args.lanes < kRegisterLanes<A> ? args.lanes : kRegisterLanes<A>;
    block = kRegisterLanes<A> / tile;
    for (int64_t l = 0; l < args.program->registers * kRegisterLanes<A>; ++l) registers[l] = A(0);
  }
  ~Workspace() { free_scratch(memory_); }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  // Finds and checks the ids of the edges at positions [begin, end); false at a bad one.
  bool resolve(EdgeArgs& args, int64_t begin, int64_t end) {
    const int64_t count = end - begin;
    for (int64_t k = 0; k < count; ++k) {
      ids.edge[k] = args.perm != nullptr ? args.perm[begin + k] : begin + k;
    }
    const int64_t bad = find_outside(ids.edge, 0, count, args.edges);
    if (bad >= 0) report(&args.bad_edge, begin + bad);
    if (bad >= 0) return false;
    for (int64_t k = count; k < count + kPrefetchAhead; ++k) {
      ids.edge[k] = ids.index[k] = ids.other[k] = 0;  // memory is asked for there, too
    }
    return resolve_side(args.index, args.wide_index, args.index_bound, count, ids.index,
                        &args.bad_index) &&
           resolve_side(args.other, args.wide_other, args.other_bound, count, ids.other,
                        &args.bad_other);
  }

  // Evaluates what is the same for all edges.
  void prepare(int64_t first, int64_t lanes) {
    run(args_.program->prologue_code, args_.program->prologue_length, 0, block, first, lanes);
  }

  // Evaluates the program for `count` edges, at most `block`.
  const A* evaluate(int64_t start, int64_t count, int64_t first, int64_t lanes) {
    run(args_.program->body_code, args_.program->body_length, start, count, first, lanes);
    return registers + args_.program->result * kRegisterLanes<A>;
  }

  A* registers;
  A* sums;         // [lanes]
  Ids ids;
  int64_t tile;    // lanes that are evaluated together
  int64_t block;   // edges that are evaluated together

 private:
  // In the order of sorted edges an index is read all over, so memory is asked for ahead.
  template <typename I>
  GNNSCRIPT_ALWAYS void take(const I* index, int64_t count, int64_t* to) const {
    constexpr int64_t kAhead = 64;
    int64_t k = 0;
    for (; k + kAhead < count; ++k) {
      __builtin_prefetch(index + ids.edge[k + kAhead]);
      to[k] = index[ids.edge[k]];
    }
    for (; k < count; ++k) to[k] = index[ids.edge[k]];
  }

  bool resolve_side(const void* index, bool wide, int64_t bound, int64_t count, int64_t* to,
                    int64_t* bad) const {
    if (index == nullptr) return true;
    if (wide) {
      take(static_cast<const int64_t*>(index), count, to);
    } else {
      take(static_cast<const int32_t*>(index), count, to);
    }
    const int64_t found = find_outside(to, 0, count, bound);
    if (found >= 0) report(bad, ids.edge[found]);
    return found < 0;
  }

  void run(const Instruction* code, int64_t length, int64_t start, int64_t count, int64_t first,
           int64_t lanes) {
    const auto argument = [&](int32_t load, const A* loaded) -> Argument<A> {
      if (load < 0 || !skips(load, lanes)) return {loaded, nullptr, 0};
      const EdgeOperand& operand = args_.operands[load];
      return {static_cast<const A*>(operand.data) + first, ids.of(operand.side) + start,
              operand.row_stride};
    };
    for (int64_t at = 0; at < length; ++at) {
      if (code[at].op != Op::load) {
        apply<T>(code[at], registers, count, lanes, argument);
        continue;
      }
      if (skips(code[at].a, lanes)) continue;
      const EdgeOperand& operand = args_.operands[code[at].a];
      const int64_t* of = ids.of(operand.side);
      load_operand<T>(operand, of != nullptr ? of + start : nullptr, count, first, lanes,
                      lanes == args_.lanes, registers + code[at].dst * kRegisterLanes<A>);
    }
  }

  // Whether an operand is read where it is, and not loaded into a register.
  bool skips(int32_t operand, int64_t lanes) const {
    return sizeof(T) == sizeof(A) && lanes % 16 == 0 && args_.operands[operand].side != 's' &&
           args_.operands[operand].spread == Spread::full && args_.program->skip_loads[operand];
  }

  const EdgeArgs& args_;
  char* memory_;
};

}  // namespace
}  // namespace GNNSCRIPT_ISA
}  // namespace gnnscript
