// What the ops of neighbour search do on every device, in terms of what its kernels do. A `Device`
// has
//
//   read(index)                           the values of an index, in memory of the host
//   search(x, y, of_x, of_y, question)    the pairs that are asked for: [2, pairs]
//   sample(src, bounds, starts, begins, out)
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "checks.h"

namespace gnnscript {

inline void check_points(const Tensor& points, const char* name) {
  check(points.dim() == 2, "expected ", name, " of shape [points, dimensions], got shape ",
        shape_of(points));
  const ScalarType type = points.scalar_type();
  check(type == ScalarType::Float || type == ScalarType::Double, "expected ", name,
        " of dtype float32 or float64, got ", torch::headeronly::toString(type));
}

struct Question {
  int64_t limit;
  double within;  // a distance
  bool skip_same, by_distance;
};

constexpr int64_t kMostRoom = 64;  // neighbours of a point

// A radius may hold any number of points, so these are counted first; of nearest ones, or where few
// are kept, there is room for all that may be.
inline bool counts_first(const Question& question, int64_t limit) {
  return !question.by_distance && limit > kMostRoom;
}

// The least number whose root is no less than `distance`: squares below it are of nearer points.
template <typename T>
T least_square(T distance) {
  T square = distance * distance;
  while (std::sqrt(square) < distance) square = std::nextafter(square, T(INFINITY));
  for (T less; square > 0 && std::sqrt(less = std::nextafter(square, T(0))) >= distance;) {
    square = less;
  }
  return square;
}

template <typename Device>
struct NeighborOps {
  // Where the examples begin and end, checked: [examples + 1].
  static std::vector<int64_t> bounds_of(const Tensor& ptr, int64_t points, const char* name) {
    check_index(ptr, name);
    check(ptr.numel() > 0, "expected ", name, " of shape [examples + 1], got no values");
    std::vector<int64_t> bounds = Device::read(ptr);
    for (size_t i = 1; i < bounds.size(); ++i) {
      check(bounds[i] >= bounds[i - 1], "expected ", name, " never to decrease, got ", bounds[i],
            " after ", bounds[i - 1], " at position ", i);
    }
    check(bounds.front() == 0 && bounds.back() == points, "expected ", name,
          " to run from 0 to the ", points, " points, got ", bounds.front(), " to ",
          bounds.back());
    return bounds;
  }

  static Tensor neighbors(const Tensor& x_given, const Tensor& y_given, const Tensor& ptr_x,
                          const Tensor& ptr_y, const Question& question) {
    check_points(x_given, "x");
    check_points(y_given, "y");
    check(x_given.size(1) == y_given.size(1) && x_given.scalar_type() == y_given.scalar_type(),
          "expected x and y of one dtype and number of coordinates, got shapes ",
          shape_of(x_given), " and ", shape_of(y_given));
    check_same_device(x_given, y_given, "x", "y");
    const Tensor x = torch::stable::contiguous(x_given), y = torch::stable::contiguous(y_given);
    std::vector<int64_t> of_x = bounds_of(ptr_x, x.size(0), "ptr_x");
    std::vector<int64_t> of_y = bounds_of(ptr_y, y.size(0), "ptr_y");
    // The last examples of one may be empty, and not be counted.
    of_x.resize(std::max(of_x.size(), of_y.size()), of_x.back());
    of_y.resize(of_x.size(), of_y.back());
    return Device::search(x, y, of_x, of_y, question);
  }

  static Tensor knn(const Tensor& x, const Tensor& y, const Tensor& ptr_x, const Tensor& ptr_y,
                    int64_t k) {
    check(k >= 0, "expected k to be no less than 0, got ", k);
    const double infinite = std::numeric_limits<double>::infinity();
    return neighbors(x, y, ptr_x, ptr_y, {k, infinite, false, true});
  }

  static Tensor radius(const Tensor& x, const Tensor& y, const Tensor& ptr_x, const Tensor& ptr_y,
                       double r, std::optional<int64_t> max_num_neighbors,
                       bool ignore_same_index) {
    const int64_t limit =
        std::max<int64_t>(max_num_neighbors.value_or(std::numeric_limits<int64_t>::max()), 0);
    return neighbors(x, y, ptr_x, ptr_y, {r > 0 ? limit : 0, r, ignore_same_index, false});
  }

  static Tensor fps(const Tensor& src_given, const Tensor& ptr, const Tensor& samples,
                    const Tensor& first) {
    check_points(src_given, "src");
    const Tensor src = torch::stable::contiguous(src_given);
    const std::vector<int64_t> bounds = bounds_of(ptr, src.size(0), "ptr");
    const int64_t examples = static_cast<int64_t>(bounds.size()) - 1;
    check_index(samples, "samples");
    check_index(first, "first");
    check(samples.numel() == examples && first.numel() == examples,
          "expected samples and first of shape [", examples,
          "], one for each example, got shapes ", shape_of(samples), " and ", shape_of(first));
    const std::vector<int64_t> counts = Device::read(samples), begins = Device::read(first);
    std::vector<int64_t> starts(examples + 1, 0);
    for (int64_t e = 0; e < examples; ++e) {
      const int64_t points = bounds[e + 1] - bounds[e];
      check(counts[e] >= 0 && counts[e] <= points, "expected samples[", e, "] to lie in [0, ",
            points, "], the points of the example, got ", counts[e]);
      check(counts[e] == 0 || (begins[e] >= 0 && begins[e] < points), "expected first[", e,
            "] to lie in [0, ", points, "), got ", begins[e]);
      starts[e + 1] = starts[e] + counts[e];
    }
    Tensor out = empty_int64(src, starts.back());
    Device::sample(src, bounds, starts, begins, out);
    return out;
  }
};

}  // namespace gnnscript
