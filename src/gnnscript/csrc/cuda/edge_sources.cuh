// Reducing the values of edge programs on CUDA: where they come from, and what programs are told.
#pragma once

#include "cuda/interpreter.cuh"
#include "cuda/row_jobs.h"
#include "edge_program/operands.h"

namespace gnnscript {

// -- reductions ------------------------------------------------------------------------------------

enum class EdgeReduction : int32_t { sum, mean, min, max, mul };

inline EdgeReduction parse_reduction(const std::string& reduce) {
  if (reduce == "sum" || reduce == "add") return EdgeReduction::sum;
  if (reduce == "mean") return EdgeReduction::mean;
  if (reduce == "min" || reduce == "amin") return EdgeReduction::min;
  if (reduce == "max" || reduce == "amax") return EdgeReduction::max;
  if (reduce == "mul" || reduce == "prod") return EdgeReduction::mul;
  throw std::invalid_argument(
      message("expected reduce to be one of sum, mean, min, max and mul, got '", reduce, "'"));
}

// All of them in one kernel: what they do is little beside what an edge's value takes.
struct AnyEdgeReduction {
  static constexpr int kStates = 1;
  static constexpr bool kFirst = false, kTargeted = false;
  EdgeReduction kind;

  template <typename A>
  __device__ __forceinline__ void init(A* s, A) const {
    s[0] = kind == EdgeReduction::mul   ? A(1)
           : kind == EdgeReduction::min ? A(INFINITY)
           : kind == EdgeReduction::max ? -A(INFINITY)
                                        : A(0);
  }
  template <typename A>
  __device__ __forceinline__ void step(A* s, A x) const {
    switch (kind) {
      case EdgeReduction::mul: s[0] = s[0] * x; return;
      case EdgeReduction::min: s[0] = x < s[0] || x != x ? x : s[0]; return;
      case EdgeReduction::max: s[0] = x > s[0] || x != x ? x : s[0]; return;
      default: s[0] = s[0] + x;
    }
  }
  template <typename A>
  __device__ __forceinline__ void merge(A* s, int64_t, const A* t, int64_t) const {
    step(s, t[0]);
  }
  template <typename A>
  __device__ __forceinline__ A finish(A s, int64_t count) const {
    if (kind == EdgeReduction::mul) return s;
    if (count <= 0) return A(0);
    return kind == EdgeReduction::mean ? s / static_cast<A>(count) : s;
  }
};

template <typename T>
struct NodeValues {
  T* out;  // [rows, lanes]

  template <int V, typename Op, typename A>
  __device__ __forceinline__ void write(const Op& op, int64_t row, int64_t lane, int64_t lanes,
                                        int64_t count, const A (&states)[V][1]) const {
    A results[V];
#pragma unroll
    for (int v = 0; v < V; ++v) results[v] = op.finish(states[v][0], count);
    store_pack<V>(out + row * lanes + lane, results);
  }
};

// -- where the values of edges come from -----------------------------------------------------------

template <typename T, int R>
struct Interpreted {
  using Value = compute_t<T>;
  DeviceProgram program;

  template <int V>
  struct Reader {
    static_assert(V == 1, "the interpreter computes one lane");
    const Walk& walk;
    Interpreter<T, R> interpreter;

    __device__ Reader(const Interpreted& source, const Walk& of, int64_t lane)
        : walk(of), interpreter(source.program, lane) {}

    __device__ __forceinline__ void load(int64_t at, int count,
                                         Value (&values)[kAhead][1]) const {
      Edge edges[kAhead];
#pragma unroll
      for (int u = 0; u < kAhead; ++u) {
        const int64_t position = at + (u < count ? u : 0);
        edges[u] = edge_at(interpreter.program.ends, walk.readable_edge(position));
      }
      interpreter.run(edges, values);
    }
  };
};

enum class Weights : int32_t { none, shared, packed, scattered };

// The other side's rows, times a weight or not, straight from memory.
template <typename T>
struct Direct {
  using Value = compute_t<T>;
  const T* rows;
  const T* weights;
  int64_t row_stride, weight_stride;
  const void* other;
  int64_t other_bound;
  bool wide_other;
  Weights kind;
  // Where a lane finds its weight: lane / period, or by the shape.
  int64_t period;
  uint32_t broadcast;
  int32_t rank;
  int64_t shape[kMaxDims];

  __device__ __forceinline__ int64_t weight_offset(int64_t lane) const {
    int64_t offset = 0, step = 1;
    for (int d = rank - 1; d >= 0; --d) {
      if (!((broadcast >> d) & 1u)) {
        offset += lane % shape[d] * step;
        step *= shape[d];
      }
      lane /= shape[d];
    }
    return offset;
  }

  template <int V>
  struct Reader {
    const Walk& walk;
    const Direct& source;
    const T* from;
    const T* weight;
    int64_t offsets[V];

    __device__ Reader(const Direct& of, const Walk& walked, int64_t lane)
        : walk(walked), source(of), from(of.rows + lane), weight(of.weights) {
      if (of.kind == Weights::shared) weight += lane / of.period;
      if (of.kind == Weights::packed) weight += lane;
      if (of.kind != Weights::scattered) return;
      for (int v = 0; v < V; ++v) offsets[v] = of.weight_offset(lane + v);
    }

    __device__ __forceinline__ void load(int64_t at, int count,
                                         Value (&values)[kAhead][V]) const {
      int64_t edges[kAhead], nodes[kAhead];
#pragma unroll
      for (int u = 0; u < kAhead; ++u) {
        edges[u] = walk.readable_edge(at + (u < count ? u : 0));
      }
#pragma unroll
      for (int u = 0; u < kAhead; ++u) {
        nodes[u] = Ends::node(source.other, source.wide_other, edges[u], source.other_bound);
      }
#pragma unroll
      for (int u = 0; u < kAhead; ++u) load_pack<V>(from + nodes[u] * source.row_stride, values[u]);
      if (source.kind == Weights::shared) {
#pragma unroll
        for (int u = 0; u < kAhead; ++u) {
          const Value w = widen(weight[edges[u] * source.weight_stride]);
#pragma unroll
          for (int v = 0; v < V; ++v) values[u][v] = values[u][v] * w;
        }
      } else if (source.kind == Weights::packed) {
#pragma unroll
        for (int u = 0; u < kAhead; ++u) {
          Value w[V];
          load_pack<V>(weight + edges[u] * source.weight_stride, w);
#pragma unroll
          for (int v = 0; v < V; ++v) values[u][v] = values[u][v] * w[v];
        }
      } else if (source.kind == Weights::scattered) {
#pragma unroll
        for (int u = 0; u < kAhead; ++u) {
#pragma unroll
          for (int v = 0; v < V; ++v) {
            const Value w = widen(weight[edges[u] * source.weight_stride + offsets[v]]);
            values[u][v] = values[u][v] * w;
          }
        }
      }
    }
  };
};

// -- launching -------------------------------------------------------------------------------------

// The indices stay alive as long as the program that points into them.
struct EdgeCall {
  EdgeCall(const DeviceScope& scope, const EdgeOperands& operands, const Tensor& index_given,
           const Tensor& other_given)
      : index(torch::stable::contiguous(index_given)),
        other(torch::stable::contiguous(other_given)) {
    const Program& text = operands.program();
    check(operands.operands.size() <= kMaxOperands, "expected at most ", kMaxOperands,
          " operands on CUDA, got ", operands.operands.size());
    check(operands.shape.size() <= kMaxDims, "expected at most ", kMaxDims,
          " feature dimensions on CUDA, got ", operands.shape.size());
    for (const auto* part : {&text.prologue, &text.body}) {
      for (const Instruction& from : *part) {
        check(program.length < kMaxCode, "edge program of more than ", kMaxCode,
              " operations on CUDA: '", text.text, "'");
        program.code[program.length++] = {
            static_cast<int16_t>(from.op), static_cast<int16_t>(from.dst),
            static_cast<int16_t>(from.a),  static_cast<int16_t>(from.b),
            static_cast<int16_t>(from.c),  from.value};
      }
    }
    for (const EdgeOperand& from : operands.operands) {
      program.operands[program.count++] = {from.data, from.row_stride, from.side, from.broadcast};
    }
    for (const int64_t size : operands.shape) program.shape[program.rank++] = size;
    program.result = text.result;
    Ends& ends = program.ends;
    ends.index = index.const_data_ptr();
    ends.other = other.const_data_ptr();
    ends.index_bound = operands.index_bound;
    ends.other_bound = operands.other_bound;
    ends.wide_index = is_wide(index);
    ends.wide_other = is_wide(other);
    ends.reads_index = operands.reads('i');
    ends.reads_other = operands.reads('j');
    if (ends.reads_index) {
      check_range(scope, index, ends.index_bound, "index", "the number of nodes");
    }
    if (ends.reads_other) {
      check_range(scope, other, ends.other_bound, "other", "the number of nodes");
    }
    // Without nodes there is nothing to read, and no valid edge.
    check(operands.edges == 0 || ((!ends.reads_index || ends.index_bound > 0) &&
                                  (!ends.reads_other || ends.other_bound > 0)),
          "expected nodes for ", operands.edges, " edges, got none");
  }

  Tensor index, other;
  DeviceProgram program{};
};

// Calls `use` with a number of registers that holds the program's.
template <typename Use>
void with_registers(const Program& program, const Use& use) {
  if (program.registers <= 12) return use(std::integral_constant<int, 12>());
  check(program.registers <= 128, "edge program '", program.text,
        "' keeps more than 128 values at a time, which CUDA kernels do not");
  return use(std::integral_constant<int, 128>());
}

// Whether a program has a kernel of its own; fills in what that is told.
template <typename T>
bool find_direct(const EdgeOperands& operands, const DeviceProgram& program, Direct<T>* direct) {
  const Program& text = operands.program();
  if (text.pattern == Pattern::general) return false;
  const DeviceOperand& rows = program.operands[text.pattern_other];
  if (rows.broadcast != 0) return false;
  direct->rows = static_cast<const T*>(rows.data);
  direct->row_stride = rows.row_stride;
  direct->other = program.ends.other;
  direct->other_bound = program.ends.other_bound;
  direct->wide_other = program.ends.wide_other;
  direct->period = operands.lanes;
  if (text.pattern == Pattern::other_row) return true;
  const EdgeOperand& weight = operands.operands[text.pattern_edge];
  direct->weights = static_cast<const T*>(weight.data);
  direct->weight_stride = weight.row_stride;
  direct->broadcast = weight.broadcast;
  direct->rank = program.rank;
  for (int d = 0; d < program.rank; ++d) direct->shape[d] = program.shape[d];
  direct->kind = Weights::scattered;
  constexpr int V = kWidest<T>;
  if (weight.spread == Spread::scalar) {
    direct->kind = Weights::shared;
  } else if (weight.spread == Spread::repeat && weight.period % V == 0) {
    direct->kind = Weights::shared;
    direct->period = weight.period;
  } else if (weight.spread == Spread::full &&
             packs_fit<T>(weight.data, weight.row_stride, operands.lanes, V)) {
    direct->kind = Weights::packed;
  }
  return true;
}

// Writes the values of a program for each edge, summed over `group` neighbouring lanes; of the
// operands' type, or of the type that they are computed in.
void map_edges(const DeviceScope& scope, const EdgeOperands& operands, const EdgeCall& call,
               int64_t group, bool is_wide, void* out);

}  // namespace gnnscript
