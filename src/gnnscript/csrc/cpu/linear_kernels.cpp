// Tiles of the result lie in registers: some rows times some vectors, summed over the inputs in
// order. A row's result is the same bits whatever rows stand beside it, and however many.
//
// This file alone is compiled with contraction: sums are fused where the processor can, so other
// than elsewhere the instruction set decides on the last bits.
#include "cpu/linear.h"

#include "cpu/edge_program.h"
#include "cpu/simd.h"
#include "parallel.h"

namespace gnnscript {
namespace GNNSCRIPT_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kRegisters = 32;
#else
constexpr int kRegisters = 16;
#endif

// Vectors that a tile is wide at most, and how many rows fit beside them into the registers.
constexpr int kWidest = kRegisters / 8;
constexpr int rows_of(int vectors) { return (kRegisters * 3 / 4) / (vectors < 2 ? 2 : vectors); }

constexpr int64_t kRowsOfTask = 384;

// The weight of `vectors * kLanes` outputs, input by input, and their bias behind it.
template <typename A>
struct Panel {
  const A* weight;
  const A* bias;
  int64_t in;
};

template <typename A, int R, int V>
inline __attribute__((always_inline)) void tile(const A* x, int64_t stride, const Panel<A>& panel,
                                                A* to, int64_t to_stride, int64_t width) {
  constexpr int W = kLanes<A>;
  using Lanes = Vector<A, W>;
  Lanes sums[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sums[r][v] = load<A, W>(panel.bias + v * W);
  }
  const A* weight = panel.weight;
  for (int64_t k = 0; k < panel.in; ++k, weight += V * W) {
    Lanes columns[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) columns[v] = load<A, W>(weight + v * W);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const A value = x[r * stride + k];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sums[r][v] += value * columns[v];
    }
  }
  if (width == V * W) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) store<A, W>(to + r * to_stride + v * W, sums[r][v]);
    }
    return;
  }
  A part[V * W];
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) store<A, W>(part + v * W, sums[r][v]);
    for (int64_t l = 0; l < width; ++l) to[r * to_stride + l] = part[l];
  }
}

template <typename A, int V>
void panel_rows(const A* x, int64_t rows, int64_t stride, const Panel<A>& panel, A* to,
                int64_t to_stride, int64_t width) {
  constexpr int R = rows_of(V);
  int64_t row = 0;
  for (; row + R <= rows; row += R) {
    tile<A, R, V>(x + row * stride, stride, panel, to + row * to_stride, to_stride, width);
  }
  for (; row < rows; ++row) {
    tile<A, 1, V>(x + row * stride, stride, panel, to + row * to_stride, to_stride, width);
  }
}

// Vectors of the panel that begins at an output.
template <typename A>
int vectors_at(int64_t left) {
  int vectors = kWidest;
  while (vectors > 1 && left <= vectors / 2 * kLanes<A>) vectors /= 2;
  return vectors;
}

template <typename A>
void layer(LinearArgs& args) {
  constexpr int64_t W = kLanes<A>;
  const A* x = static_cast<const A*>(args.x);
  const A* weight = static_cast<const A*>(args.weight);
  const A* bias = static_cast<const A*>(args.bias);
  A* result = static_cast<A*>(args.result);

  const int64_t lanes = ceil_div(args.out, kWidest * W) * kWidest * W;
  char* memory = allocate_scratch((args.in + 1) * lanes * int64_t{sizeof(A)});
  A* packed = reinterpret_cast<A*>(memory);
  A* at = packed;
  for (int64_t first = 0; first < args.out;) {
    const int64_t width = vectors_at<A>(args.out - first) * W;
    for (int64_t l = 0; l < width; ++l) {
      const bool inside = first + l < args.out;
      const A* from = weight + (first + l) * args.weight_stride;
      for (int64_t k = 0; k < args.in; ++k) at[k * width + l] = inside ? from[k] : A(0);
      at[args.in * width + l] = inside && bias != nullptr ? bias[first + l] : A(0);
    }
    at += (args.in + 1) * width;
    first += width;
  }

  parallel_tasks(ceil_div(args.rows, kRowsOfTask), [&](int64_t task) {
    const int64_t begin = task * kRowsOfTask;
    const int64_t rows = begin + kRowsOfTask < args.rows ? kRowsOfTask : args.rows - begin;
    const A* from = x + begin * args.stride;
    const A* panel_at = packed;
    for (int64_t first = 0; first < args.out;) {
      const int64_t left = args.out - first;
      const int vectors = vectors_at<A>(left);
      const int64_t width = vectors * W;
      const Panel<A> panel{panel_at, panel_at + args.in * width, args.in};
      A* to = result + begin * args.out + first;
      const int64_t written = left < width ? left : width;
      if (vectors == 1) {
        panel_rows<A, 1>(from, rows, args.stride, panel, to, args.out, written);
      } else if (vectors == 2) {
        panel_rows<A, 2>(from, rows, args.stride, panel, to, args.out, written);
      } else {
        panel_rows<A, kWidest>(from, rows, args.stride, panel, to, args.out, written);
      }
      panel_at += (args.in + 1) * width;
      first += width;
    }
  });
  free_scratch(memory);
}

}  // namespace

void linear_rows(LinearArgs& args) {
  args.dtype == Dtype::float64 ? layer<double>(args) : layer<float>(args);
}

}  // namespace GNNSCRIPT_ISA
}  // namespace gnnscript
