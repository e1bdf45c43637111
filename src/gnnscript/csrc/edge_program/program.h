// Edge programs: the text of an expression over one edge, compiled to instructions over registers.
// docs/ops.md holds the grammar. Nothing here knows of torch.
#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace gnnscript {

enum class Op : int32_t {
  constant, load,                                       // no arguments
  negate, relu, leaky_relu, elu, exp, log, sqrt, rsqrt, abs, sign, square, reciprocal, sigmoid,
  tanh, softplus, silu, gelu, gelu_tanh, erf, sin, cos, pow, clamp_min, clamp_max, rounded,
  add, subtract, multiply, divide, equal, not_equal, less, less_equal, greater, greater_equal,
  maximum, minimum,                                     // two arguments
  where,                                                // three arguments
};

// dst = op(a, b, c; value), all of them registers but `value`, or dst = operand number `a` (load).
// Where an argument of an operation of two is an operand that nothing else reads, `load_a` or
// `load_b` is its number: a kernel may read it there, and leave the load out.
struct Instruction {
  Op op;
  int32_t dst, a, b, c;
  double value;
  int32_t load_a = -1, load_b = -1;
};

// Shapes of programs that have kernels of their own.
enum class Pattern : int32_t { general, other_row, edge_times_other };

struct Program {
  std::string text;
  std::vector<char> may_skip;             // per operand: whether its load may be left out
  std::vector<char> sides;                // per operand: i, j, e, s, or 0 where it is not read
  std::vector<Instruction> prologue;      // what is the same for all edges, computed once
  std::vector<Instruction> body;
  int32_t registers = 0;
  int32_t result = 0;                     // register of the value
  Pattern pattern = Pattern::general;
  int32_t pattern_edge = -1, pattern_other = -1;  // operands of the pattern
  // The same code as raw memory, for kernels.
  const Instruction* prologue_code = nullptr;
  const Instruction* body_code = nullptr;
  const char* skip_loads = nullptr;
  int64_t prologue_length = 0, body_length = 0;
};

// What is wrong with a program, said with the text and the place.
struct ProgramError : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

// Compiles a program, or finds it among those compiled before; safe to call from many threads.
std::shared_ptr<const Program> compile_program(const std::string& text);

}  // namespace gnnscript
