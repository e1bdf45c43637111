// Evaluating an edge program on the device: kAhead edges at a time, so that reading an instruction
// is paid for by several, one lane per thread.
//
// Indices out of range read row 0 in place of memory that is not theirs.
#pragma once

#include "cuda/rows.cuh"
#include "edge_program/program.h"

namespace gnnscript {

constexpr int kMaxCode = 512, kMaxOperands = 16, kMaxDims = 8;

struct Code {
  int16_t op, dst, a, b, c;
  double value;
};

struct DeviceOperand {
  const void* data;
  int64_t row_stride;
  int32_t side;        // i, j, e, s
  uint32_t broadcast;  // bit d: dimension d is broadcast
};

// The nodes of an edge.
struct Ends {
  const void* index;
  const void* other;
  int64_t index_bound, other_bound;
  bool wide_index, wide_other, reads_index, reads_other;

  static __device__ __forceinline__ int64_t node(const void* nodes, bool wide, int64_t edge,
                                                 int64_t bound) {
    const int64_t found = wide ? static_cast<const int64_t*>(nodes)[edge]
                               : static_cast<const int32_t*>(nodes)[edge];
    return is_within(found, bound) ? found : 0;
  }
};

struct Edge {
  int64_t edge, index, other;
  __device__ __forceinline__ int64_t row(int32_t side) const {
    return side == 'i' ? index : side == 'j' ? other : side == 'e' ? edge : 0;
  }
};

__device__ __forceinline__ Edge edge_at(const Ends& ends, int64_t edge) {
  Edge found{edge, 0, 0};
  if (ends.reads_index) {
    found.index = Ends::node(ends.index, ends.wide_index, edge, ends.index_bound);
  }
  if (ends.reads_other) {
    found.other = Ends::node(ends.other, ends.wide_other, edge, ends.other_bound);
  }
  return found;
}

// A program with its operands, passed by value: nothing is copied to the device, so that graphs can
// capture a call.
struct DeviceProgram {
  Code code[kMaxCode];
  DeviceOperand operands[kMaxOperands];
  int64_t shape[kMaxDims];
  int32_t rank, length, result, count;  // dimensions, instructions, register, operands
  Ends ends;

  // Where a lane finds its value in a row of an operand.
  __device__ __forceinline__ int64_t offset_of(uint32_t broadcast, int64_t lane) const {
    if (broadcast == 0) return lane;
    int64_t offset = 0, step = 1;
    for (int d = rank - 1; d >= 0; --d) {
      const int64_t size = shape[d];
      if (!((broadcast >> d) & 1u)) {
        offset += lane % size * step;
        step *= size;
      }
      lane /= size;
    }
    return offset;
  }
};

// One value for each of the edges that are evaluated together.
template <typename A>
struct alignas(kAhead * sizeof(A)) Values {
  A of[kAhead];
};

// The compiler must not fuse what the CPU rounds twice: built with --fmad=false.
template <typename T, typename A = compute_t<T>>
__device__ __forceinline__ void apply(Op op, Values<A>& d, const Values<A>& a, const Values<A>& b,
                                      const Values<A>& c, A value) {
#define GNNSCRIPT_CASE(name, expression)           \
  case Op::name:                                   \
    _Pragma("unroll") for (int u = 0; u < kAhead; ++u) { \
      const A x = a.of[u], y = b.of[u], z = c.of[u];     \
      (void)x, (void)y, (void)z;                   \
      d.of[u] = (expression);                      \
    }                                              \
    return;
  switch (op) {
    GNNSCRIPT_CASE(constant, value)
    case Op::load: return;
    GNNSCRIPT_CASE(negate, -x)
    GNNSCRIPT_CASE(relu, x <= A(0) ? A(0) : x)
    GNNSCRIPT_CASE(leaky_relu, x > A(0) ? x : x * value)
    GNNSCRIPT_CASE(elu, x > A(0) ? x : value * expm1(x))
    GNNSCRIPT_CASE(exp, exp(x))
    GNNSCRIPT_CASE(log, log(x))
    GNNSCRIPT_CASE(sqrt, sqrt(x))
    GNNSCRIPT_CASE(rsqrt, A(1) / sqrt(x))
    GNNSCRIPT_CASE(abs, fabs(x))
    GNNSCRIPT_CASE(sign, (x > A(0) ? A(1) : A(0)) - (x < A(0) ? A(1) : A(0)))
    GNNSCRIPT_CASE(square, x * x)
    GNNSCRIPT_CASE(reciprocal, A(1) / x)
    GNNSCRIPT_CASE(sigmoid, A(1) / (A(1) + exp(-x)))
    GNNSCRIPT_CASE(tanh, tanh(x))
    GNNSCRIPT_CASE(softplus, (x > A(0) ? x : A(0)) + (x != x ? x : log1p(exp(-fabs(x)))))
    GNNSCRIPT_CASE(silu, x * (A(1) / (A(1) + exp(-x))))
    GNNSCRIPT_CASE(gelu, A(0.5) * x * (A(1) + erf(x * A(0.70710678118654752))))
    GNNSCRIPT_CASE(gelu_tanh, A(0.5) * x *
                   (A(1) + tanh(A(0.79788456080286536) * (x + A(0.044715) * x * x * x))))
    GNNSCRIPT_CASE(erf, erf(x))
    GNNSCRIPT_CASE(sin, sin(x))
    GNNSCRIPT_CASE(cos, cos(x))
    GNNSCRIPT_CASE(pow, value == A(2) ? x * x : value == A(3) ? x * x * x : pow(x, value))
    GNNSCRIPT_CASE(clamp_min, x < value ? value : x)
    GNNSCRIPT_CASE(clamp_max, x > value ? value : x)
    GNNSCRIPT_CASE(rounded, widen(narrow<T>(x)))
    GNNSCRIPT_CASE(add, x + y)
    GNNSCRIPT_CASE(subtract, x - y)
    GNNSCRIPT_CASE(multiply, x * y)
    GNNSCRIPT_CASE(divide, x / y)
    GNNSCRIPT_CASE(equal, x == y ? A(1) : A(0))
    GNNSCRIPT_CASE(not_equal, x != y ? A(1) : A(0))
    GNNSCRIPT_CASE(less, x < y ? A(1) : A(0))
    GNNSCRIPT_CASE(less_equal, x <= y ? A(1) : A(0))
    GNNSCRIPT_CASE(greater, x > y ? A(1) : A(0))
    GNNSCRIPT_CASE(greater_equal, x >= y ? A(1) : A(0))
    GNNSCRIPT_CASE(maximum, x != x ? x : (y != y ? y : (x > y ? x : y)))
    GNNSCRIPT_CASE(minimum, x != x ? x : (y != y ? y : (x < y ? x : y)))
    GNNSCRIPT_CASE(where, x != A(0) ? y : z)
  }
#undef GNNSCRIPT_CASE
}

// A program for one lane; R bounds its registers.
template <typename T, int R>
struct Interpreter {
  using A = compute_t<T>;
  const DeviceProgram& program;
  int64_t offsets[kMaxOperands];  // where the lane finds its value in a row of each operand

  __device__ Interpreter(const DeviceProgram& of, int64_t lane) : program(of) { place(lane); }

  // Goes to another lane.
  __device__ void place(int64_t lane) {
    for (int n = 0; n < program.count; ++n) {
      offsets[n] = program.offset_of(program.operands[n].broadcast, lane);
    }
  }

  __device__ void run(const Edge (&edges)[kAhead], A (&results)[kAhead][1]) const {
    Values<A> registers[R];
    for (int at = 0; at < program.length; ++at) {
      const Code& code = program.code[at];
      const Op op = static_cast<Op>(code.op);
      Values<A>& d = registers[code.dst];
      if (op == Op::load) {
        const DeviceOperand& from = program.operands[code.a];
        const T* data = static_cast<const T*>(from.data) + offsets[code.a];
#pragma unroll
        for (int u = 0; u < kAhead; ++u) {
          d.of[u] = widen(data[edges[u].row(from.side) * from.row_stride]);
        }
        continue;
      }
      // What an operation has no argument for is not used.
      const Values<A> a = code.a < 0 ? Values<A>{} : registers[code.a];
      const Values<A> b = code.b < 0 ? Values<A>{} : registers[code.b];
      const Values<A> c = code.c < 0 ? Values<A>{} : registers[code.c];
      apply<T>(op, d, a, b, c, A(code.value));
    }
#pragma unroll
    for (int u = 0; u < kAhead; ++u) results[u][0] = registers[program.result].of[u];
  }
};

}  // namespace gnnscript
