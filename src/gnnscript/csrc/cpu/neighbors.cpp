#include "cpu/neighbors.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "neighbors_ops.h"
#include "parallel.h"
#include "registration.h"

namespace gnnscript {
namespace {

// Sorts the points of each example into blocks, and bounds them by boxes.
template <typename T>
class Forest {
 public:
  Forest(const Tensor& x, const std::vector<int64_t>& bounds)
      : dims_(x.size(1)), trees(bounds.size() - 1) {
    int64_t block_count = 0, box_count = 0;
    for (size_t e = 0; e < trees.size(); ++e) {
      const int64_t blocks = ceil_div(bounds[e + 1] - bounds[e], kLanes);
      int64_t leaves = 1;
      while (leaves < blocks) leaves *= 2;
      trees[e] = {block_count, blocks, box_count};
      block_count += blocks;
      box_count += 2 * leaves;
    }
    blocks.resize(block_count * dims_ * kLanes);
    positions.assign(block_count * kLanes, -1);
    boxes.resize(box_count * 2 * dims_);
    // A NaN is put at infinity, where nothing is a neighbour, so that points have an order.
    points_.assign(x.const_data_ptr<T>(), x.const_data_ptr<T>() + x.numel());
    for (T& value : points_) {
      if (std::isnan(value)) value = std::numeric_limits<T>::infinity();
    }
    order_.resize(x.size(0));
    for (size_t i = 0; i < order_.size(); ++i) order_[i] = static_cast<int64_t>(i);
    parallel_tasks(static_cast<int64_t>(trees.size()),
                   [&](int64_t e) { build(trees[e], bounds[e], bounds[e + 1]); });
  }

 private:
  struct Node {
    int64_t number, begin, end;  // of its blocks
  };

  // Level by level, so that the nodes of a level are independent tasks.
  void build(const Tree& tree, int64_t first, int64_t last) {
    std::vector<Node> level;
    if (tree.blocks > 0) level.push_back({1, 0, tree.blocks});
    while (!level.empty()) {
      parallel_tasks(static_cast<int64_t>(level.size()),
                     [&](int64_t n) { split(tree, level[n], first, last); });
      std::vector<Node> next;
      for (const Node& node : level) {
        if (node.end - node.begin <= 1) continue;
        const int64_t middle = node.begin + (node.end - node.begin) / 2;
        next.push_back({2 * node.number, node.begin, middle});
        next.push_back({2 * node.number + 1, middle, node.end});
      }
      level = std::move(next);
    }
  }

  void split(const Tree& tree, const Node& node, int64_t first, int64_t last) {
    const auto begin = order_.begin() + first + node.begin * kLanes;
    const auto end = order_.begin() + std::min(first + node.end * kLanes, last);
    T* low = boxes.data() + (tree.first_box + node.number) * 2 * dims_;
    T* high = low + dims_;
    std::fill(low, low + dims_, std::numeric_limits<T>::infinity());
    std::fill(high, high + dims_, -std::numeric_limits<T>::infinity());
    for (auto i = begin; i != end; ++i) {
      for (int64_t d = 0; d < dims_; ++d) {
        const T value = points_[*i * dims_ + d];
        low[d] = std::min(low[d], value);
        high[d] = std::max(high[d], value);
      }
    }
    if (node.end - node.begin > 1) {
      int64_t widest = 0;
      for (int64_t d = 1; d < dims_; ++d) {
        if (high[d] - low[d] > high[widest] - low[widest]) widest = d;
      }
      const auto middle = begin + (node.end - node.begin) / 2 * kLanes;
      // Positions break ties: the order, and with it every result, is the same on each machine.
      std::nth_element(begin, middle, end, [&](int64_t a, int64_t b) {
        const T one = dims_ ? points_[a * dims_ + widest] : T(0);
        const T other = dims_ ? points_[b * dims_ + widest] : T(0);
        return one < other || (one == other && a < b);
      });
      return;
    }
    T* block = blocks.data() + (tree.first_block + node.begin) * dims_ * kLanes;
    std::fill(block, block + dims_ * kLanes, std::numeric_limits<T>::infinity());
    int64_t* position = positions.data() + (tree.first_block + node.begin) * kLanes;
    for (int64_t lane = 0; lane < end - begin; ++lane) {
      position[lane] = begin[lane];
      for (int64_t d = 0; d < dims_; ++d) {
        block[d * kLanes + lane] = points_[begin[lane] * dims_ + d];
      }
    }
  }

  int64_t dims_;
  std::vector<T> points_;
  std::vector<int64_t> order_;

 public:
  std::vector<Tree> trees;
  std::vector<T> blocks, boxes;
  std::vector<int64_t> positions;
};

template <typename T, typename Kernel>
Tensor run(const Tensor& x, const Tensor& y, const std::vector<int64_t>& of_x,
           const std::vector<int64_t>& of_y, const Question& question, Kernel* kernel) {
  const Forest<T> forest(x, of_x);
  const int64_t queries = y.size(0);
  std::vector<int64_t> example(queries), counts(queries), starts(queries);
  for (size_t e = 0; e + 1 < of_y.size(); ++e) {
    std::fill(example.begin() + of_y[e], example.begin() + of_y[e + 1], static_cast<int64_t>(e));
  }
  NeighborArgs<T> args{};
  args.blocks = forest.blocks.data();
  args.positions = forest.positions.data();
  args.boxes = forest.boxes.data();
  args.trees = forest.trees.data();
  args.y = y.const_data_ptr<T>();
  args.example = example.data();
  args.queries = queries;
  args.dims = x.size(1);
  args.limit = std::min(question.limit, x.size(0));
  args.within = least_square(static_cast<T>(question.within));
  args.skip_same = question.skip_same;
  args.by_distance = question.by_distance;
  args.counts = counts.data();
  args.limit = std::max<int64_t>(args.limit, 0);
  const bool counted = counts_first(question, args.limit);
  if (counted) (*kernel)(args);
  int64_t room = 0, most = 0;
  for (int64_t i = 0; i < queries; ++i) {
    if (!counted) counts[i] = args.limit;
    starts[i] = room;
    room += counts[i];
    most = std::max(most, counts[i]);
  }
  std::vector<int64_t> found(room);
  if (room > 0) {
    args.limit = most;
    std::vector<char> scratch(ceil_div(queries, kQueries) * scratch_bytes<T>(most));
    args.scratch = scratch.data();
    args.starts = starts.data();
    args.found = found.data();
    (*kernel)(args);
  }
  int64_t total = 0;
  for (int64_t i = 0; i < queries; ++i) total += counts[i];
  const int64_t shape[] = {2, total};
  Tensor out = torch::stable::new_empty(x, {shape, 2}, ScalarType::Long);
  int64_t* from = out.mutable_data_ptr<int64_t>();
  int64_t* to = from + total;
  for (int64_t i = 0; i < queries; ++i) {
    from = std::fill_n(from, counts[i], i);
    to = std::copy_n(found.data() + starts[i], counts[i], to);
  }
  return out;
}

template <typename T, typename Kernel>
void run_sample(const Tensor& src, SampleArgs<T> args, Kernel* kernel) {
  std::vector<T> distance(src.size(0));
  args.src = src.const_data_ptr<T>();
  args.distance = distance.data();
  (*kernel)(args);
}

struct Cpu {
  static std::vector<int64_t> read(const Tensor& index) { return values_of(index); }

  static Tensor search(const Tensor& x, const Tensor& y, const std::vector<int64_t>& of_x,
                       const std::vector<int64_t>& of_y, const Question& question) {
    if (x.scalar_type() == ScalarType::Float) {
      return run<float>(x, y, of_x, of_y, question, GNNSCRIPT_SELECT(search_float));
    }
    return run<double>(x, y, of_x, of_y, question, GNNSCRIPT_SELECT(search_double));
  }

  static void sample(const Tensor& src, const std::vector<int64_t>& bounds,
                     const std::vector<int64_t>& starts, const std::vector<int64_t>& begins,
                     Tensor& out) {
    const auto fill = [&](auto args) {
      args.ptr = bounds.data();
      args.counts = starts.data();
      args.first = begins.data();
      args.out = out.mutable_data_ptr<int64_t>();
      args.examples = static_cast<int64_t>(begins.size());
      args.dims = src.size(1);
      return args;
    };
    if (src.scalar_type() == ScalarType::Float) {
      run_sample(src, fill(SampleArgs<float>{}), GNNSCRIPT_SELECT(sample_float));
    } else {
      run_sample(src, fill(SampleArgs<double>{}), GNNSCRIPT_SELECT(sample_double));
    }
  }
};

}  // namespace

GNNSCRIPT_IMPLEMENT(CPU, m) {
  m.impl("knn", TORCH_BOX(&NeighborOps<Cpu>::knn));
  m.impl("radius", TORCH_BOX(&NeighborOps<Cpu>::radius));
  m.impl("fps", TORCH_BOX(&NeighborOps<Cpu>::fps));
}

}  // namespace gnnscript
