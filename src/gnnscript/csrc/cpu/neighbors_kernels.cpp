#include "cpu/neighbors.h"

#include "nearest.h"
#include "parallel.h"

namespace gnnscript {
namespace GNNSCRIPT_ISA {
namespace {

template <typename T>
struct Search {
  const NeighborArgs<T>& args;

  T box_distance(const Tree& tree, int64_t node, const T* y) const {
    const T* low = args.boxes + (tree.first_box + node) * 2 * args.dims;
    const T* high = low + args.dims;
    T sum = 0;
    for (int64_t d = 0; d < args.dims; ++d) {
      const T below = low[d] - y[d], above = y[d] - high[d];
      const T gap = below > above ? below : above;
      sum += gap > 0 ? gap * gap : T(0);
    }
    return sum;
  }

  // Calls take(distance, position) for the points that are near enough, in no order.
  template <typename Farthest, typename Take>
  void visit(int64_t query, const Farthest& farthest, const Take& take) const {
    const Tree& tree = args.trees[args.example[query]];
    const T* y = args.y + query * args.dims;
    const int64_t same = args.skip_same ? query : -1;
    int64_t nodes[64], begins[64], ends[64];
    T gaps[64];
    int64_t depth = 0;
    const auto push = [&](int64_t node, int64_t begin, int64_t end, T gap) {
      nodes[depth] = node;
      begins[depth] = begin;
      ends[depth] = end;
      gaps[depth++] = gap;
    };
    if (tree.blocks > 0) push(1, 0, tree.blocks, T(0));
    while (depth > 0) {
      int64_t node = nodes[--depth], begin = begins[depth], end = ends[depth];
      if (gaps[depth] > farthest()) continue;
      while (end - begin > 1) {
        const int64_t middle = begin + (end - begin) / 2;
        const T left = box_distance(tree, 2 * node, y), right = box_distance(tree, 2 * node + 1, y);
        if (left <= right) {
          push(2 * node + 1, middle, end, right);
          node = 2 * node;
          end = middle;
        } else {
          push(2 * node, begin, middle, left);
          node = 2 * node + 1;
          begin = middle;
        }
      }
      scan(tree.first_block + begin, y, same, take);
    }
  }

  template <typename Take>
  void scan(int64_t block, const T* y, int64_t same, const Take& take) const {
    const T* points = args.blocks + block * args.dims * kLanes;
    const int64_t* positions = args.positions + block * kLanes;
    T sum[kLanes] = {};
    for (int64_t d = 0; d < args.dims; ++d) {
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        const T difference = points[d * kLanes + lane] - y[d];
        sum[lane] += difference * difference;
      }
    }
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      if (sum[lane] < args.within && positions[lane] != same) take(sum[lane], positions[lane]);
    }
  }

  void collect(int64_t query, Nearest<T>& nearest) const {
    visit(
        query, [&] { return nearest.farthest(); },
        [&](T d, int64_t p) {
          if (nearest.takes(d, p)) nearest.add(d, p);
        });
  }
};

template <typename T>
void search(NeighborArgs<T>& args) {
  const Search<T> of{args};
  parallel_tasks(ceil_div(args.queries, kQueries), [&](int64_t task) {
    const int64_t begin = task * kQueries;
    const int64_t end = begin + kQueries < args.queries ? begin + kQueries : args.queries;
    for (int64_t query = begin; query < end; ++query) {
      if (args.starts == nullptr) {
        int64_t count = 0;
        of.visit(query, [&] { return args.within; }, [&](T, int64_t) { ++count; });
        args.counts[query] = count < args.limit ? count : args.limit;
        continue;
      }
      const int64_t limit = args.counts[query];
      char* scratch = args.scratch + task * scratch_bytes<T>(args.limit);
      Nearest<T> nearest{reinterpret_cast<T*>(scratch + args.limit * sizeof(int64_t)),
                         reinterpret_cast<int64_t*>(scratch), 0, limit, args.within};
      if (limit == 0) continue;
      of.collect(query, nearest);
      nearest.sort(args.by_distance);
      int64_t* out = args.found + args.starts[query];
      for (int64_t i = 0; i < nearest.size; ++i) out[i] = nearest.position[i];
      args.counts[query] = nearest.size;
    }
  });
}

template <typename T>
void sample(SampleArgs<T>& args) {
  parallel_tasks(args.examples, [&](int64_t example) {
    const int64_t begin = args.ptr[example], points = args.ptr[example + 1] - begin;
    const T* src = args.src + begin * args.dims;
    T* distance = args.distance + begin;
    int64_t* out = args.out + args.counts[example];
    const int64_t samples = args.counts[example + 1] - args.counts[example];
    for (int64_t i = 0; i < points; ++i) distance[i] = T(__builtin_inf());
    int64_t newest = samples > 0 ? args.first[example] : 0;
    for (int64_t step = 0; step < samples; ++step) {
      out[step] = begin + newest;
      const T* from = src + newest * args.dims;
      T farthest = T(-1);
      for (int64_t i = 0; i < points; ++i) {
        T sum = 0;
        for (int64_t d = 0; d < args.dims; ++d) {
          const T difference = src[i * args.dims + d] - from[d];
          sum += difference * difference;
        }
        if (sum < distance[i]) distance[i] = sum;
        if (distance[i] > farthest) {
          farthest = distance[i];
          newest = i;
        }
      }
    }
  });
}

}  // namespace

void search_float(NeighborArgs<float>& args) { search(args); }
void search_double(NeighborArgs<double>& args) { search(args); }
void sample_float(SampleArgs<float>& args) { sample(args); }
void sample_double(SampleArgs<double>& args) { sample(args); }

}  // namespace GNNSCRIPT_ISA
}  // namespace gnnscript
