// Edge programs on CUDA.
//
// The sorted edges of all rows are cut into chunks of equal work, as on CPU (cpu/rows.h): a unit is
// an edge or the beginning of a row. A thread takes one chunk and one lane (or a few neighbouring
// ones), walks the chunk's edges, and writes each row that lies within it; of a row that reaches
// beyond, it writes a part, and a second kernel joins the parts in the order of the chunks. So there
// are no atomics, a hub is spread over many threads, and results do not depend on scheduling.
//
// Indices out of range read row 0 in place of memory that is not theirs.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>

#include "edge_program/operands.h"
#include "rows_checks.h"

namespace gnnscript {
namespace {

constexpr int kThreads = 128;
constexpr int kChunk = 128;  // units
constexpr int kMaxCode = 512, kMaxOperands = 16, kMaxDims = 8;

enum class Reduction { sum, mean, min, max, mul };

struct Code {
  int16_t op, dst, a, b, c;
  double value;
};

struct DeviceOperand {
  const void* data;
  int64_t row_stride;
  int32_t side;       // i, j, e, s
  uint32_t broadcast;  // bit d: dimension d is broadcast
};

// What a kernel is told, by value: nothing is copied to the device, so graphs can capture a call.
struct Arguments {
  Code code[kMaxCode];
  DeviceOperand operands[kMaxOperands];
  int32_t shape[kMaxDims];
  int32_t rank, length, result;
  int64_t lanes, edges, rows, index_bound, other_bound;
  const void* index;
  const void* other;
  bool wide_index, wide_other, reads_index, reads_other;
  const int64_t* ptr;
  const int64_t* perm;
  void* out;
  void* partials;
  int64_t chunks;
  int64_t group;
  Reduction reduction;
  int32_t pattern_other, pattern_edge;  // operands of a program that needs no registers
};
static_assert(sizeof(Arguments) < 32000, "kernel arguments are limited to 32764 bytes");

template <typename T>
struct Compute {
  using type = float;
};
template <>
struct Compute<double> {
  using type = double;
};

__device__ __forceinline__ double widen(double x) { return x; }
__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(__half x) { return __half2float(x); }
__device__ __forceinline__ float widen(__nv_bfloat16 x) { return __bfloat162float(x); }
template <typename T>
__device__ __forceinline__ T narrow(typename Compute<T>::type x);
template <>
__device__ __forceinline__ double narrow<double>(double x) { return x; }
template <>
__device__ __forceinline__ float narrow<float>(float x) { return x; }
template <>
__device__ __forceinline__ __half narrow<__half>(float x) { return __float2half_rn(x); }
template <>
__device__ __forceinline__ __nv_bfloat16 narrow<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}

// -- evaluating -----------------------------------------------------------------------------------

__device__ __forceinline__ int64_t node_of(const void* index, bool wide, int64_t edge,
                                           int64_t bound) {
  const int64_t node = wide ? static_cast<const int64_t*>(index)[edge]
                            : static_cast<const int32_t*>(index)[edge];
  return static_cast<uint64_t>(node) < static_cast<uint64_t>(bound) ? node : 0;
}

// Where a lane finds its value in a row of an operand.
__device__ __forceinline__ int64_t offset_of(const Arguments& args, uint32_t broadcast,
                                             int64_t lane) {
  if (broadcast == 0) return lane;
  int64_t offset = 0, step = 1;
  for (int d = args.rank - 1; d >= 0; --d) {
    const int64_t size = args.shape[d];
    if (!((broadcast >> d) & 1u)) {
      offset += lane % size * step;
      step *= size;
    }
    lane /= size;
  }
  return offset;
}

struct Edge {
  int64_t edge, index, other;
  __device__ __forceinline__ int64_t row(int32_t side) const {
    return side == 'i' ? index : side == 'j' ? other : side == 'e' ? edge : 0;
  }
};

__device__ __forceinline__ Edge edge_at(const Arguments& args, int64_t edge) {
  Edge found{edge, 0, 0};
  if (args.reads_index) found.index = node_of(args.index, args.wide_index, edge, args.index_bound);
  if (args.reads_other) found.other = node_of(args.other, args.wide_other, edge, args.other_bound);
  return found;
}

template <typename T>
__device__ __forceinline__ typename Compute<T>::type load(const Arguments& args, int operand,
                                                          const Edge& edge, int64_t lane) {
  const DeviceOperand& from = args.operands[operand];
  const T* row = static_cast<const T*>(from.data) + edge.row(from.side) * from.row_stride;
  return widen(row[offset_of(args, from.broadcast, lane)]);
}

// One operation. The compiler must not fuse what the CPU rounds twice: built with --fmad=false.
template <typename T, typename A = typename Compute<T>::type>
__device__ A apply(Op op, A x, A y, A z, A value) {
  switch (op) {
    case Op::constant: return value;
    case Op::load: return x;
    case Op::negate: return -x;
    case Op::relu: return x <= A(0) ? A(0) : x;
    case Op::leaky_relu: return x > A(0) ? x : x * value;
    case Op::elu: return x > A(0) ? x : value * expm1(x);
    case Op::exp: return exp(x);
    case Op::log: return log(x);
    case Op::sqrt: return sqrt(x);
    case Op::rsqrt: return A(1) / sqrt(x);
    case Op::abs: return fabs(x);
    case Op::sign: return (x > A(0) ? A(1) : A(0)) - (x < A(0) ? A(1) : A(0));
    case Op::square: return x * x;
    case Op::reciprocal: return A(1) / x;
    case Op::sigmoid: return A(1) / (A(1) + exp(-x));
    case Op::tanh: return tanh(x);
    case Op::softplus: return (x > A(0) ? x : A(0)) + log1p(exp(-fabs(x)));
    case Op::silu: return x * (A(1) / (A(1) + exp(-x)));
    case Op::gelu: return A(0.5) * x * (A(1) + erf(x * A(0.70710678118654752)));
    case Op::gelu_tanh:
      return A(0.5) * x *
             (A(1) + tanh(A(0.79788456080286536) * (x + A(0.044715) * x * x * x)));
    case Op::erf: return erf(x);
    case Op::sin: return sin(x);
    case Op::cos: return cos(x);
    case Op::pow:
      if (value == A(2)) return x * x;
      if (value == A(3)) return x * x * x;
      return pow(x, value);
    case Op::clamp_min: return x < value ? value : x;
    case Op::clamp_max: return x > value ? value : x;
    case Op::rounded: return widen(narrow<T>(x));
    case Op::add: return x + y;
    case Op::subtract: return x - y;
    case Op::multiply: return x * y;
    case Op::divide: return x / y;
    case Op::equal: return x == y ? A(1) : A(0);
    case Op::not_equal: return x != y ? A(1) : A(0);
    case Op::less: return x < y ? A(1) : A(0);
    case Op::less_equal: return x <= y ? A(1) : A(0);
    case Op::greater: return x > y ? A(1) : A(0);
    case Op::greater_equal: return x >= y ? A(1) : A(0);
    case Op::maximum: return x != x ? x : (y != y ? y : (x > y ? x : y));
    case Op::minimum: return x != x ? x : (y != y ? y : (x < y ? x : y));
    case Op::where: return x != A(0) ? y : z;
  }
  return A(0);
}

// The program's value for one edge and lane; R bounds its registers.
template <typename T, int R, typename A = typename Compute<T>::type>
__device__ A interpret(const Arguments& args, const Edge& edge, int64_t lane) {
  A registers[R];
  for (int at = 0; at < args.length; ++at) {
    const Code& code = args.code[at];
    const Op op = static_cast<Op>(code.op);
    if (op == Op::load) {
      registers[code.dst] = load<T>(args, code.a, edge, lane);
    } else {
      const A x = code.a < 0 ? A(0) : registers[code.a];
      const A y = code.b < 0 ? A(0) : registers[code.b];
      const A z = code.c < 0 ? A(0) : registers[code.c];
      registers[code.dst] = apply<T>(op, x, y, z, A(code.value));
    }
  }
  return registers[args.result];
}

// -- edge_reduce ----------------------------------------------------------------------------------

template <typename A>
__device__ __forceinline__ A first_value(Reduction reduction) {
  if (reduction == Reduction::mul) return A(1);
  if (reduction == Reduction::min) return A(INFINITY);
  if (reduction == Reduction::max) return -A(INFINITY);
  return A(0);
}

template <typename A>
__device__ __forceinline__ A combine(Reduction reduction, A sum, A x) {
  switch (reduction) {
    case Reduction::mul: return sum * x;
    case Reduction::min: return x < sum || x != x ? x : sum;
    case Reduction::max: return x > sum || x != x ? x : sum;
    default: return sum + x;
  }
}

__device__ __forceinline__ int64_t start_of(const Arguments& args, int64_t row) {
  return args.ptr[row] - args.ptr[0] + row;
}

__device__ int64_t row_of(const Arguments& args, int64_t unit) {
  int64_t low = 0, high = args.rows - 1;
  while (low < high) {
    const int64_t middle = low + (high - low + 1) / 2;
    if (start_of(args, middle) <= unit) low = middle;
    else high = middle - 1;
  }
  return low;
}

template <typename T, typename A = typename Compute<T>::type>
__device__ void write_row(const Arguments& args, int64_t row, int64_t lane, A sum) {
  const int64_t degree = args.ptr[row + 1] - args.ptr[row];
  if (args.reduction == Reduction::mean && degree > 0) sum = sum / A(degree);
  if (args.reduction != Reduction::mul && degree <= 0) sum = A(0);
  static_cast<T*>(args.out)[row * args.lanes + lane] = narrow<T>(sum);
}

// Neighbouring values, read at once.
template <typename T, int V>
struct alignas(sizeof(T) * V) Pack {
  T values[V];
};

// The values of V lanes from `lane` on: of the pattern where R is 0, of the program otherwise.
template <typename T, int V, int R, typename A = typename Compute<T>::type>
__device__ __forceinline__ void evaluate(const Arguments& args, int64_t edge, int64_t lane,
                                         A* values) {
  const Edge at = edge_at(args, edge);
  if constexpr (R > 0) {
    static_assert(V == 1, "the interpreter computes one lane");
    values[0] = interpret<T, R>(args, at, lane);
  } else {
    const DeviceOperand& other = args.operands[args.pattern_other];
    const T* row = static_cast<const T*>(other.data) + at.other * other.row_stride + lane;
    const Pack<T, V> pack = *reinterpret_cast<const Pack<T, V>*>(row);
    for (int v = 0; v < V; ++v) values[v] = widen(pack.values[v]);
    if (args.pattern_edge < 0) return;
    for (int v = 0; v < V; ++v) values[v] = values[v] * load<T>(args, args.pattern_edge, at, lane + v);
  }
}

template <typename T, int V, int R, typename A = typename Compute<T>::type>
__global__ void __launch_bounds__(kThreads) reduce_chunks(const __grid_constant__ Arguments args) {
  const int64_t packs = args.lanes / V;
  const int64_t thread = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int64_t chunk = thread / packs;
  const int64_t lane = thread % packs * V;
  const int64_t units = start_of(args, args.rows);
  const int64_t first = chunk * kChunk;
  if (chunk >= args.chunks || first >= units) return;
  const int64_t last = first + kChunk < units ? first + kChunk : units;
  for (int64_t row = row_of(args, first); row < args.rows; ++row) {
    const int64_t start = start_of(args, row), next = start_of(args, row + 1);
    if (start >= last) break;
    const bool opens = start >= first, closes = next <= last;
    const int64_t offset = args.ptr[row] - start - 1;  // from a unit to its position
    const int64_t begin = opens ? args.ptr[row] : first + offset;
    const int64_t end = closes ? args.ptr[row + 1] : last + offset;
    A sums[V];
    for (int v = 0; v < V; ++v) sums[v] = first_value<A>(args.reduction);
    for (int64_t position = begin; position < end; ++position) {
      if (static_cast<uint64_t>(position) >= static_cast<uint64_t>(args.edges)) break;
      int64_t edge = args.perm[position];
      if (static_cast<uint64_t>(edge) >= static_cast<uint64_t>(args.edges)) edge = 0;
      A values[V];
      evaluate<T, V, R>(args, edge, lane, values);
      for (int v = 0; v < V; ++v) sums[v] = combine(args.reduction, sums[v], values[v]);
    }
    for (int v = 0; v < V; ++v) {
      if (opens && closes) {
        write_row<T>(args, row, lane + v, sums[v]);
      } else {
        A* parts = static_cast<A*>(args.partials);
        parts[(2 * chunk + (opens ? 1 : 0)) * args.lanes + lane + v] = sums[v];
      }
    }
  }
}

// Joins the parts of the row that a chunk opens and does not close.
template <typename T, typename A = typename Compute<T>::type>
__global__ void __launch_bounds__(kThreads) join_parts(const __grid_constant__ Arguments args) {
  const int64_t thread = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int64_t chunk = thread / args.lanes, lane = thread % args.lanes;
  const int64_t units = start_of(args, args.rows);
  const int64_t last = (chunk + 1) * kChunk;
  if (chunk >= args.chunks || last >= units) return;
  const int64_t row = row_of(args, last - 1);
  const int64_t next = start_of(args, row + 1);
  if (start_of(args, row) < chunk * kChunk || next <= last) return;
  const A* parts = static_cast<const A*>(args.partials);
  A sum = parts[(2 * chunk + 1) * args.lanes + lane];
  for (int64_t at = chunk + 1; at < args.chunks && at * kChunk < next; ++at) {
    sum = combine(args.reduction, sum, parts[2 * at * args.lanes + lane]);
  }
  write_row<T>(args, row, lane, sum);
}

// -- edge_map -------------------------------------------------------------------------------------

template <typename T, int R>
__global__ void __launch_bounds__(kThreads) map_lanes(const __grid_constant__ Arguments args) {
  const int64_t thread = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int64_t edge = thread / args.lanes, lane = thread % args.lanes;
  if (edge >= args.edges) return;
  static_cast<T*>(args.out)[thread] = narrow<T>(interpret<T, R>(args, edge_at(args, edge), lane));
}

// A warp for each sum.
template <typename T, int R, typename A = typename Compute<T>::type>
__global__ void __launch_bounds__(kThreads) map_sums(const __grid_constant__ Arguments args) {
  const int64_t groups = args.lanes / args.group;
  const int64_t warp = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / 32;
  const int64_t edge = warp / groups, group = warp % groups;
  if (edge >= args.edges) return;  // all threads of a warp alike
  const Edge at = edge_at(args, edge);
  A sum = A(0);
  for (int64_t l = threadIdx.x % 32; l < args.group; l += 32) {
    sum += interpret<T, R>(args, at, group * args.group + l);
  }
  for (int step = 16; step > 0; step /= 2) sum += __shfl_down_sync(0xffffffffu, sum, step);
  if (threadIdx.x % 32 == 0) static_cast<T*>(args.out)[warp] = narrow<T>(sum);
}

// -- launching ------------------------------------------------------------------------------------

cudaStream_t current_stream(const Tensor& tensor) {
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(
      aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

unsigned blocks_for(int64_t threads) {
  const int64_t blocks = (threads + kThreads - 1) / kThreads;
  check(blocks <= INT32_MAX, "expected less than 2^31 blocks of work, got ", blocks);
  return static_cast<unsigned>(blocks);
}

void check_launch() {
  const cudaError_t error = cudaGetLastError();
  check(error == cudaSuccess, "CUDA: ", cudaGetErrorString(error));
}

Arguments describe(const EdgeOperands& operands, const Tensor& index, const Tensor& other) {
  const Program& program = operands.program();
  Arguments args{};
  check(operands.operands.size() <= kMaxOperands, "expected at most ", kMaxOperands,
        " operands on CUDA, got ", operands.operands.size());
  check(operands.shape.size() <= kMaxDims, "expected at most ", kMaxDims,
        " feature dimensions on CUDA, got ", operands.shape.size());
  for (const auto* part : {&program.prologue, &program.body}) {
    for (const Instruction& from : *part) {
      check(args.length < kMaxCode, "edge program of more than ", kMaxCode, " operations on CUDA: '",
            program.text, "'");
      args.code[args.length++] = {static_cast<int16_t>(from.op), static_cast<int16_t>(from.dst),
                                  static_cast<int16_t>(from.a), static_cast<int16_t>(from.b),
                                  static_cast<int16_t>(from.c), from.value};
    }
  }
  for (size_t n = 0; n < operands.operands.size(); ++n) {
    const EdgeOperand& from = operands.operands[n];
    args.operands[n] = {from.data, from.row_stride, from.side, from.broadcast};
  }
  args.rank = static_cast<int32_t>(operands.shape.size());
  for (int32_t d = 0; d < args.rank; ++d) {
    args.shape[d] = static_cast<int32_t>(operands.shape[static_cast<size_t>(d)]);
  }
  args.result = program.result;
  args.lanes = operands.lanes;
  args.edges = operands.edges;
  args.index_bound = operands.index_bound;
  args.other_bound = operands.other_bound;
  args.index = index.const_data_ptr();
  args.other = other.const_data_ptr();
  args.wide_index = is_wide(index);
  args.wide_other = is_wide(other);
  // Without nodes there is nothing to read, and no valid edge.
  args.reads_index = operands.reads('i');
  args.reads_other = operands.reads('j');
  check(args.edges == 0 || ((!args.reads_index || args.index_bound > 0) &&
                            (!args.reads_other || args.other_bound > 0)),
        "expected nodes for ", args.edges, " edges, got none");
  args.group = 1;
  return args;
}

// Calls `use` with a type, and the number of registers that holds the program's.
template <typename Use>
void with_type(Dtype dtype, const Use& use) {
  switch (dtype) {
    case Dtype::float64: return use(double{});
    case Dtype::float32: return use(float{});
    case Dtype::float16: return use(__half{});
    case Dtype::bfloat16: return use(__nv_bfloat16{});
  }
}
template <typename Use>
void with_registers(const Program& program, const Use& use) {
  if (program.registers <= 8) return use(std::integral_constant<int, 8>());
  if (program.registers <= 32) return use(std::integral_constant<int, 32>());
  check(program.registers <= 128, "edge program '", program.text,
        "' keeps more than 128 values at a time, which CUDA kernels do not");
  return use(std::integral_constant<int, 128>());
}

Reduction parse_reduction(const std::string& reduce) {
  if (reduce == "sum" || reduce == "add") return Reduction::sum;
  if (reduce == "mean") return Reduction::mean;
  if (reduce == "min" || reduce == "amin") return Reduction::min;
  if (reduce == "max" || reduce == "amax") return Reduction::max;
  if (reduce == "mul" || reduce == "prod") return Reduction::mul;
  throw std::invalid_argument(
      message("expected reduce to be one of sum, mean, min, max and mul, got '", reduce, "'"));
}

// Whether the rows of an operand can be read `width` values at a time.
template <typename T>
bool is_aligned(const DeviceOperand& operand, int64_t lanes, int width) {
  return operand.broadcast == 0 && lanes % width == 0 && operand.row_stride % width == 0 &&
         reinterpret_cast<uintptr_t>(operand.data) % (sizeof(T) * width) == 0;
}

template <typename T>
void launch_reduce(const Program& program, Arguments& args, cudaStream_t stream) {
  const auto launch = [&](auto kernel, int width) {
    kernel<<<blocks_for(args.chunks * (args.lanes / width)), kThreads, 0, stream>>>(args);
    check_launch();
  };
  const bool direct = program.pattern != Pattern::general &&
                      args.operands[program.pattern_other].broadcast == 0;
  if (direct) {
    args.pattern_other = program.pattern_other;
    args.pattern_edge = program.pattern == Pattern::other_row ? -1 : program.pattern_edge;
    constexpr int width = 16 / sizeof(T);
    if (is_aligned<T>(args.operands[program.pattern_other], args.lanes, width)) {
      launch(reduce_chunks<T, width, 0>, width);
    } else {
      launch(reduce_chunks<T, 1, 0>, 1);
    }
  } else {
    with_registers(program, [&](auto registers) {
      launch(reduce_chunks<T, 1, decltype(registers)::value>, 1);
    });
  }
  launch(join_parts<T>, 1);
}

Tensor edge_reduce(const std::string& program, const std::vector<Tensor>& tensors,
                   const Tensor& index_given, const Tensor& other_given, const Tensor& ptr,
                   const Tensor& perm, const std::string& reduce) {
  const Reduction reduction = parse_reduction(reduce);
  check(!tensors.empty(), "expected operands, got none");
  const torch::stable::accelerator::DeviceGuard guard(tensors[0].get_device_index());
  const Tensor index = torch::stable::contiguous(index_given);
  const Tensor other = torch::stable::contiguous(other_given);
  const Sorted sorted(index, index.numel(), ptr, perm);
  const EdgeOperands operands(program, tensors, index, other, sorted.num_rows());
  Tensor out = empty_with(tensors[0], operands.result_shape(sorted.num_rows(), 0));
  if (out.numel() == 0) return out;
  Arguments args = describe(operands, index, other);
  args.out = out.mutable_data_ptr();
  args.rows = sorted.num_rows();
  args.ptr = sorted.ptr_data();
  args.perm = sorted.perm_data();
  args.reduction = reduction;
  args.chunks = (args.rows + args.edges + kChunk - 1) / kChunk;
  const int64_t width = operands.dtype == Dtype::float64 ? 8 : 4;
  const Tensor partials = empty_bytes(index, args.chunks * 2 * args.lanes * width);
  args.partials = partials.mutable_data_ptr();
  with_type(operands.dtype, [&](auto type) {
    launch_reduce<decltype(type)>(operands.program(), args, current_stream(out));
  });
  return out;
}

Tensor edge_map(const std::string& program, const std::vector<Tensor>& tensors,
                const Tensor& index_given, const Tensor& other_given, int64_t sum_dims) {
  check(!tensors.empty(), "expected operands, got none");
  const torch::stable::accelerator::DeviceGuard guard(tensors[0].get_device_index());
  const Tensor index = torch::stable::contiguous(index_given);
  const Tensor other = torch::stable::contiguous(other_given);
  const EdgeOperands operands(program, tensors, index, other, -1);
  const int64_t rank = static_cast<int64_t>(operands.shape.size());
  check(sum_dims >= 0 && sum_dims <= rank, "expected sum_dims within [0, ", rank,
        "], the number of feature dimensions, got ", sum_dims);
  Tensor out = empty_with(tensors[0], operands.result_shape(operands.edges, sum_dims));
  if (out.numel() == 0) return out;
  if (operands.lanes == 0) return torch::stable::zero_(out);
  Arguments args = describe(operands, index, other);
  for (int64_t d = rank - sum_dims; d < rank; ++d) {
    args.group *= operands.shape[static_cast<size_t>(d)];
  }
  args.out = out.mutable_data_ptr();
  const cudaStream_t stream = current_stream(out);
  with_type(operands.dtype, [&](auto type) {
    using T = decltype(type);
    with_registers(operands.program(), [&](auto registers) {
      constexpr int R = decltype(registers)::value;
      if (args.group == 1) {
        map_lanes<T, R><<<blocks_for(out.numel()), kThreads, 0, stream>>>(args);
      } else {
        map_sums<T, R><<<blocks_for(out.numel() * 32), kThreads, 0, stream>>>(args);
      }
    });
  });
  check_launch();
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gnnscript, CUDA, m) {
  m.impl("edge_reduce", TORCH_BOX(&edge_reduce));
  m.impl("edge_map", TORCH_BOX(&edge_map));
}

}  // namespace gnnscript
