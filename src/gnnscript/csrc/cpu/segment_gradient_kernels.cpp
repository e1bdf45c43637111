#include <type_traits>

#include "cpu/segment.h"
#include "cpu/simd.h"

namespace gnnscript {
namespace GNNSCRIPT_ISA {
namespace {

// What an edge gets, from its value x and the row's gradient g, result y, and statistics.
template <Reduce kReduce, typename A, int W, typename V>
inline __attribute__((always_inline)) V edge_gradient(V x, V g, V y, V first, V second, A count) {
  if constexpr (kReduce == Reduce::mean) {
    return g / count;
  } else if constexpr (kReduce == Reduce::max) {  // and min
    return x == y ? g / first : V{};
  } else if constexpr (kReduce == Reduce::mul) {
    // The product of the other edges, without dividing by a zero.
    const V others = first == A(0) ? second / x : V{};
    return g * (x == A(0) ? (first == A(1) ? second : V{}) : others);
  } else if constexpr (kReduce == Reduce::var) {
    return g * (x - first) * (A(2) / count);
  } else if constexpr (kReduce == Reduce::std) {
    return y == A(0) ? V{} : g * (x - first) / (y * count);
  } else if constexpr (kReduce == Reduce::logsumexp) {
    return g * exponential<A, W>(x == y ? V{} : x - y);
  } else {
    return g;
  }
}

template <Reduce kReduce, typename T>
struct Gradient {
  using A = compute_t<T>;
  const SegmentGradientArgs& args;

  template <int W>
  void columns(int64_t row, int64_t begin, int64_t end, int64_t column, A count) const {
    using V = Vector<A, W>;
    constexpr bool uses_src = kReduce != Reduce::mean && kReduce != Reduce::sum;
    const int64_t at = row * args.features + column;
    const V g = load<A, W>(static_cast<const T*>(args.grad) + at);
    const V y = uses_src ? load<A, W>(static_cast<const T*>(args.out) + at) : V{};
    const V first =
        args.first != nullptr ? load<A, W>(static_cast<const A*>(args.first) + at) : V{};
    const V second =
        args.second != nullptr ? load<A, W>(static_cast<const A*>(args.second) + at) : V{};
    for (int64_t i = begin; i < end; ++i) {
      const int64_t edge = (args.perm != nullptr ? args.perm[i] : i) * args.features + column;
      const V x = uses_src ? load<A, W>(static_cast<const T*>(args.src) + edge) : V{};
      store<A, W>(static_cast<T*>(args.result) + edge,
                  edge_gradient<kReduce, A, W>(x, g, y, first, second, count));
    }
  }

  template <int W>
  void remainder(int64_t row, int64_t begin, int64_t end, int64_t column, A count) const {
    if constexpr (W >= 1) {
      for (; args.features - column >= W; column += W) columns<W>(row, begin, end, column, count);
      remainder<W / 2>(row, begin, end, column, count);
    }
  }

  void run() const {
    parallel_tasks(args.rows.chunks(), [&](int64_t chunk) {
      args.rows.for_each(chunk, [&](int64_t row, int64_t begin, int64_t end, bool, bool) {
        const int64_t count = args.rows.ptr[row + 1] - args.rows.ptr[row];
        remainder<kLanes<A>>(row, begin, end, 0, static_cast<A>(count));
      });
    });
  }
};

}  // namespace

void segment_gradient(SegmentGradientArgs& args) {
  dispatch_dtype(args.dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    switch (args.reduce) {
      case Reduce::mean:
        return Gradient<Reduce::mean, T>{args}.run();
      case Reduce::min:
      case Reduce::max:
        return Gradient<Reduce::max, T>{args}.run();
      case Reduce::mul:
        return Gradient<Reduce::mul, T>{args}.run();
      case Reduce::var:
        return Gradient<Reduce::var, T>{args}.run();
      case Reduce::std:
        return Gradient<Reduce::std, T>{args}.run();
      case Reduce::logsumexp:
        return Gradient<Reduce::logsumexp, T>{args}.run();
      default:
        return Gradient<Reduce::sum, T>{args}.run();
    }
  });
}

}  // namespace GNNSCRIPT_ISA
}  // namespace gnnscript
