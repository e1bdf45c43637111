// Drives the CPU kernels without torch, for the sanitizers: `make sanitize`, tests/native.
//
// One instruction set, compiled into this program: the loops are the same text for all of them. The
// threads are std::thread, so that ThreadSanitizer sees where one waits for another; torch's OpenMP
// runtime would hide it. All arrays are of their exact size on the heap, so that AddressSanitizer
// sees a step over the end.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <tuple>
#include <type_traits>
#include <vector>

#include "cpu/attention.h"
#include "cpu/csr.h"
#include "cpu/edge_program.h"
#include "cpu/gather.h"
#include "cpu/linear.h"
#include "cpu/scatter.h"
#include "cpu/segment.h"

// The kernels themselves.
#include "cpu/attention_kernels.cpp"
#include "cpu/csr_kernels.cpp"
#include "cpu/edge_program_kernels.cpp"
#include "cpu/gather_kernels.cpp"
#include "cpu/linear_kernels.cpp"
#include "cpu/scatter_kernels.cpp"
#include "cpu/segment_gradient_kernels.cpp"
#include "cpu/segment_kernels.cpp"
#include "cpu/softmax_kernels.cpp"

// The compiler of edge programs.
#include "edge_program/program.cpp"

namespace gnnscript {

// Tasks in turns, so that neighbours run in different threads.
void run_tasks(int64_t tasks, void (*run)(void*, int64_t), void* context) {
  constexpr int64_t threads = 3;
  std::vector<std::thread> pool;
  for (int64_t thread = 0; thread < threads; ++thread) {
    pool.emplace_back([=] {
      for (int64_t task = thread; task < tasks; task += threads) run(context, task);
    });
  }
  for (std::thread& thread : pool) thread.join();
}

char* allocate_scratch(int64_t bytes) {
  return static_cast<char*>(::operator new(static_cast<size_t>(bytes), std::align_val_t(64)));
}

void free_scratch(char* scratch) { ::operator delete(scratch, std::align_val_t(64)); }

}  // namespace gnnscript

namespace {

using namespace gnnscript;
namespace kernels = gnnscript::GNNSCRIPT_ISA;

int failures = 0;

void expect(bool holds, const std::string& what) {
  if (holds) return;
  ++failures;
  std::fprintf(stderr, "failed: %s\n", what.c_str());
}

bool close(double a, double b, double tolerance) {
  return (std::isnan(a) && std::isnan(b)) || a == b ||
         std::abs(a - b) <= tolerance * (1 + std::abs(b));
}

struct Graph {
  std::vector<int64_t> index, ptr, perm;
  int64_t nodes;
  int64_t edges() const { return static_cast<int64_t>(index.size()); }
};

Graph make_graph(std::mt19937& random, int64_t nodes, int64_t edges, double skew) {
  Graph graph;
  graph.nodes = nodes;
  std::uniform_real_distribution<double> uniform(0, 1);
  for (int64_t i = 0; i < edges; ++i) {
    graph.index.push_back(static_cast<int64_t>(std::pow(uniform(random), skew) * nodes));
  }
  graph.ptr.resize(nodes + 1);
  graph.perm.resize(edges);
  CsrArgs args{};
  args.index = graph.index.data();
  args.wide = true;
  args.edges = edges;
  args.size = nodes;
  args.ptr = graph.ptr.data();
  args.perm = graph.perm.data();
  args.bad = -1;
  kernels::csr_scan(args);
  args.parts = 3;
  std::vector<int32_t> counts(args.parts * nodes);
  args.counts = counts.data();
  kernels::csr_fill(args);
  expect(args.bad < 0, "no index is out of range");
  for (int64_t i = 1; i < edges; ++i) {
    const int64_t before = graph.index[graph.perm[i - 1]], here = graph.index[graph.perm[i]];
    expect(before < here || (before == here && graph.perm[i - 1] < graph.perm[i]), "sorted");
  }
  if (edges > 0) {
    std::vector<int32_t> wrong(graph.index.begin(), graph.index.end());
    wrong[edges / 2] = -1;
    args.index = wrong.data();
    args.wide = false;
    kernels::csr_scan(args);
    kernels::csr_fill(args);
    expect(args.bad == edges / 2, "a negative index is found");
  }
  return graph;
}

template <typename T>
void check_reductions(const Graph& graph, int64_t features, std::mt19937& random, Dtype dtype,
                      double tolerance) {
  using A = compute_t<T>;
  const int64_t edges = graph.edges(), nodes = graph.nodes;
  std::normal_distribution<float> normal;
  std::vector<T> src(edges * features);
  for (T& value : src) kernels::store<A, 1>(&value, static_cast<A>(normal(random)));
  const auto at = [&](const std::vector<T>& v, int64_t i) {
    return static_cast<double>(kernels::load<A, 1>(&v[i]));
  };

  SegmentArgs args{};
  args.dtype = dtype;
  args.src = src.data();
  args.stride = features;
  args.perm = graph.perm.data();
  args.edges = edges;
  args.features = features;
  args.rows = Rows{graph.ptr.data(), nodes, chunk_units(features * static_cast<int64_t>(sizeof(T)))};
  args.bad = -1;
  for (const Reduce reduce : {Reduce::sum, Reduce::mean, Reduce::min, Reduce::max, Reduce::mul,
                              Reduce::any, Reduce::var, Reduce::std, Reduce::logsumexp}) {
    std::vector<T> out(nodes * features);
    std::vector<A> partials(args.rows.chunks() * 2 * reduce_states(reduce) * features);
    args.reduce = reduce;
    args.out[0] = out.data();
    args.partials = partials.data();
    kernels::segment_reduce(args);
    for (int64_t row = 0; row < nodes; ++row) {
      for (int64_t f = 0; f < features; f += 5) {
        const int64_t count = graph.ptr[row + 1] - graph.ptr[row];
        double sum = 0, squares = 0, product = 1, low = 0, high = 0, last = 0, total = 0;
        for (int64_t i = graph.ptr[row]; i < graph.ptr[row + 1]; ++i) {
          const double x = at(src, graph.perm[i] * features + f);
          sum += x;
          product *= x;
          low = i == graph.ptr[row] ? x : std::min(low, x);
          high = i == graph.ptr[row] ? x : std::max(high, x);
          total += std::exp(x);
          last = x;
        }
        const double mean = count > 0 ? sum / count : 0;
        for (int64_t i = graph.ptr[row]; i < graph.ptr[row + 1]; ++i) {
          squares += std::pow(at(src, graph.perm[i] * features + f) - mean, 2);
        }
        const double var = count > 0 ? squares / count : 0;
        const std::map<Reduce, double> expected = {
            {Reduce::sum, sum}, {Reduce::mean, mean},  {Reduce::min, low},
            {Reduce::max, high}, {Reduce::mul, product}, {Reduce::any, last},
            {Reduce::var, var}, {Reduce::std, std::sqrt(var)}, {Reduce::logsumexp, std::log(total)}};
        // A vanishing product, a large sum: the bound is on the whole row.
        const double slack = reduce == Reduce::sum ? std::sqrt(1.0 + count) : 1;
        expect(close(at(out, row * features + f), expected.at(reduce), tolerance * slack),
               "reduction " + std::to_string(static_cast<int>(reduce)) + " of row " +
                   std::to_string(row));
      }
    }
    for (const int64_t parts : {1, 4}) {  // the same edges, in their given order
      if (reduce_states(reduce) > 1) break;
      std::vector<T> unsorted(nodes * features);
      std::vector<A> states(parts * nodes * features);
      std::vector<uint32_t> counts(parts * nodes);
      ScatterArgs scatter{};
      scatter.dtype = dtype;
      scatter.reduce = reduce;
      scatter.src = src.data();
      scatter.stride = features;
      scatter.index = graph.index.data();
      scatter.wide = true;
      scatter.edges = edges;
      scatter.features = features;
      scatter.size = nodes;
      scatter.parts = parts;
      scatter.out = unsorted.data();
      scatter.states = states.data();
      scatter.counts = counts.data();
      scatter.bad = -1;
      kernels::scatter_reduce(scatter);
      expect(scatter.bad < 0, "no index is out of range");
      for (int64_t i = 0; i < nodes * features; ++i) {
        const int64_t count = graph.ptr[i / features + 1] - graph.ptr[i / features];
        const double slack = reduce == Reduce::sum ? std::sqrt(1.0 + count) : 1;
        expect(close(at(unsorted, i), at(out, i), tolerance * slack),
               "reduction " + std::to_string(static_cast<int>(reduce)) + " of unsorted edges");
      }
      if (edges == 0) continue;
      std::vector<int64_t> wrong = graph.index;
      wrong.back() = nodes;
      scatter.index = wrong.data();
      kernels::scatter_reduce(scatter);
      expect(scatter.bad == edges - 1, "a row that is none is found");
    }
    std::vector<T> gradient(edges * features);
    std::vector<A> first(nodes * features, A(1)), second(nodes * features, A(1));
    SegmentGradientArgs back{};
    back.dtype = dtype;
    back.reduce = reduce;
    back.grad = back.out = out.data();
    back.src = src.data();
    back.first = first.data();
    back.second = second.data();
    back.perm = graph.perm.data();
    back.features = features;
    back.rows = args.rows;
    back.result = gradient.data();
    kernels::segment_gradient(back);
  }

  std::vector<T> weights(edges * features), gradient(edges * features);
  std::vector<A> partials(args.rows.chunks() * 4 * features);
  SoftmaxArgs softmax{};
  softmax.dtype = dtype;
  softmax.src = src.data();
  softmax.stride = features;
  softmax.perm = graph.perm.data();
  softmax.edges = edges;
  softmax.features = features;
  softmax.rows = args.rows;
  softmax.out = weights.data();
  softmax.partials = partials.data();
  softmax.bad = -1;
  kernels::softmax_forward(softmax);
  for (int64_t row = 0; row < nodes; ++row) {
    double total = 0;
    for (int64_t i = graph.ptr[row]; i < graph.ptr[row + 1]; ++i) {
      total += at(weights, graph.perm[i] * features);
    }
    const bool empty = graph.ptr[row] == graph.ptr[row + 1];
    expect(close(total, empty ? 0 : 1, 10 * tolerance), "weights add up to one");
  }
  softmax.src = weights.data();
  softmax.grad = src.data();
  softmax.out = gradient.data();
  kernels::softmax_backward(softmax);

  // Gather, and back.
  std::vector<T> rows(nodes * features), gathered(edges * features), expanded(edges * features);
  for (T& value : rows) kernels::store<A, 1>(&value, static_cast<A>(normal(random)));
  GatherArgs gather{};
  gather.src = reinterpret_cast<const char*>(rows.data());
  gather.index = graph.index.data();
  gather.wide = true;
  gather.out = reinterpret_cast<char*>(gathered.data());
  gather.nodes = nodes;
  gather.edges = edges;
  gather.bytes = gather.stride = features * static_cast<int64_t>(sizeof(T));
  gather.bad = -1;
  kernels::gather_rows(gather);
  ExpandArgs expand{};
  expand.src = gather.src;
  expand.perm = graph.perm.data();
  expand.out = reinterpret_cast<char*>(expanded.data());
  expand.edges = edges;
  expand.bytes = expand.stride = gather.bytes;
  expand.rows = args.rows;
  expand.bad = -1;
  kernels::expand_rows(expand);
  expect(gathered.empty() ||
             std::memcmp(gathered.data(), expanded.data(), gathered.size() * sizeof(T)) == 0,
         "expanding rows is gathering them");

  if (edges == 0) return;
  std::vector<int64_t> wrong = graph.perm;
  wrong.back() = edges;
  args.perm = wrong.data();
  args.reduce = Reduce::sum;
  std::vector<T> out(nodes * features);
  args.out[0] = out.data();
  args.partials = partials.data();
  kernels::segment_reduce(args);
  expect(args.bad == edges - 1, "an edge that is none is found, and not read");
}

// Programs that have loops of their own and such that take registers, each reduced in every way and
// computed per edge, against the plain sum over edges.
template <typename T>
void check_programs(const Graph& graph, int64_t features, std::mt19937& random, Dtype dtype,
                    double tolerance) {
  using A = compute_t<T>;
  const int64_t edges = graph.edges(), nodes = graph.nodes;
  std::normal_distribution<float> normal;
  const auto values = [&](int64_t count) {
    std::vector<T> made(count);
    for (T& value : made) kernels::store<A, 1>(&value, static_cast<A>(normal(random)));
    return made;
  };
  const auto at = [](const std::vector<T>& v, int64_t i) {
    return static_cast<double>(kernels::load<A, 1>(&v[i]));
  };
  const std::vector<T> x = values(nodes * features), e = values(edges * features),
                       w = values(edges);
  std::vector<int32_t> other(edges);
  for (int32_t& node : other) node = static_cast<int32_t>(random() % nodes);
  const auto operand = [&](const std::vector<T>& data, char side, Spread spread) {
    return EdgeOperand{data.data(), spread == Spread::full ? features : 1, side, spread, 1, nullptr,
                       0};
  };
  using Value = double (*)(double i, double j, double e, double w);
  struct Case {
    const char* text;
    std::vector<EdgeOperand> operands;
    Value value;
  };
  const EdgeOperand i = operand(x, 'i', Spread::full), j = operand(x, 'j', Spread::full),
                    row = operand(e, 'e', Spread::full), scalar = operand(w, 'e', Spread::scalar);
  const std::vector<Case> cases = {
      {"j0", {j}, [](double, double b, double, double) { return b; }},
      {"e0 * j1", {scalar, j}, [](double, double b, double, double d) { return d * b; }},
      {"e0 * j1", {row, j}, [](double, double b, double c, double) { return c * b; }},
      {"relu(j0 + e1)", {j, row},
       [](double, double b, double c, double) { return std::max(b + c, 0.0); }},
      {"sigmoid(i0 - j1) * e2", {i, j, scalar},
       [](double a, double b, double, double d) { return d / (1 + std::exp(b - a)); }},
  };
  for (const Case& one : cases) {
    const auto program = compile_program(one.text);
    const auto expected = [&](int64_t edge, int64_t f) {
      return one.value(at(x, graph.index[edge] * features + f),
                       at(x, other[edge] * features + f), at(e, edge * features + f), at(w, edge));
    };
    EdgeArgs args{};
    args.program = program.get();
    args.operands = one.operands.data();
    args.dtype = dtype;
    args.lanes = features;
    args.edges = edges;
    args.index = graph.index.data();
    args.other = other.data();
    args.wide_index = true;
    args.index_bound = args.other_bound = nodes;
    args.group = 1;
    args.bad_edge = args.bad_index = args.bad_other = -1;

    std::vector<T> mapped(edges * features);
    args.out = mapped.data();
    kernels::edge_map(args);
    for (int64_t edge = 0; edge < edges; ++edge) {
      const int64_t f = edge % features;
      expect(close(at(mapped, edge * features + f), expected(edge, f), tolerance),
             std::string("the value of ") + one.text);
    }

    args.rows = Rows{graph.ptr.data(), nodes, chunk_units(features * int64_t{sizeof(T)})};
    args.perm = graph.perm.data();
    std::vector<T> out(nodes * features);
    std::vector<A> partials(args.rows.chunks() * 2 * features);
    args.out = out.data();
    args.partials = partials.data();
    for (const EdgeReduction reduction : {EdgeReduction::sum, EdgeReduction::mean,
                                          EdgeReduction::min, EdgeReduction::max,
                                          EdgeReduction::mul}) {
      args.reduction = reduction;
      kernels::edge_reduce(args);
      for (int64_t node = 0; node < nodes; ++node) {
        const int64_t f = node % features, begin = graph.ptr[node], end = graph.ptr[node + 1];
        const double first = begin < end ? expected(graph.perm[begin], f) : 0;
        double sum = 0, low = first, high = first, product = 1, size = 0;
        for (int64_t k = begin; k < end; ++k) {
          const double value = expected(graph.perm[k], f);
          sum += value;
          size += std::abs(value);
          low = std::min(low, value);
          high = std::max(high, value);
          product *= value;
        }
        const double mean = begin < end ? sum / static_cast<double>(end - begin) : 0;
        const std::map<EdgeReduction, double> wanted = {
            {EdgeReduction::sum, sum}, {EdgeReduction::mean, mean}, {EdgeReduction::min, low},
            {EdgeReduction::max, high}, {EdgeReduction::mul, product}};
        const double slack = reduction == EdgeReduction::sum ? 1 + size : 1;
        const double result = at(out, node * features + f);
        const bool large = reduction == EdgeReduction::mul && std::abs(product) > 6e4;
        expect(large || close(result, wanted.at(reduction), tolerance * slack),
               "reduction " + std::to_string(static_cast<int>(reduction)) + " of " + one.text);
      }
    }

    if (edges == 0) continue;
    std::vector<int32_t> wrong = other;
    wrong.back() = static_cast<int32_t>(nodes);
    args.other = wrong.data();
    args.reduction = EdgeReduction::sum;
    kernels::edge_reduce(args);
    expect(args.bad_other == edges - 1, "a node that is none is found, and not read");
  }
}

// Messages weighted by the softmax of scores, and what their gradient needs, against plain sums.
template <typename T>
void check_attention(const Graph& graph, int64_t heads, int64_t width, std::mt19937& random,
                     Dtype dtype, double tolerance) {
  using A = compute_t<T>;
  const int64_t edges = graph.edges(), nodes = graph.nodes, lanes = heads * width;
  std::normal_distribution<float> normal;
  const auto values = [&](int64_t count) {
    std::vector<T> made(count);
    for (T& value : made) kernels::store<A, 1>(&value, static_cast<A>(normal(random)));
    return made;
  };
  const auto at = [](const std::vector<T>& v, int64_t i) {
    return static_cast<double>(kernels::load<A, 1>(&v[i]));
  };
  const std::vector<T> x = values(nodes * lanes), e = values(edges * heads),
                       grad = values(nodes * lanes);
  std::vector<int32_t> other(edges);
  for (int32_t& node : other) node = static_cast<int32_t>(random() % nodes);
  const EdgeOperand row{x.data(), lanes, 'j', Spread::full, 1, nullptr, 0};
  const EdgeOperand score{e.data(), heads, 'e', Spread::full, 1, nullptr, 0};
  const auto scores = compile_program("e0");
  for (const char* text : {"j0", "j0 * 2.0"}) {
    const auto program = compile_program(text);
    const double scale = std::strlen(text) > 2 ? 2 : 1;
    AttentionArgs args{};
    args.heads = heads;
    args.score.program = scores.get();
    args.score.operands = &score;
    args.score.lanes = heads;
    args.score.other = other.data();
    args.score.other_bound = nodes;
    args.score.perm = graph.perm.data();
    args.score.group = 1;
    args.score.bad_edge = args.score.bad_index = args.score.bad_other = -1;
    args.message = args.score;
    args.message.program = program.get();
    args.message.operands = &row;
    args.message.lanes = lanes;
    args.score.dtype = args.message.dtype = dtype;
    args.score.edges = args.message.edges = edges;
    args.message.rows = Rows{graph.ptr.data(), nodes, chunk_units(lanes * int64_t{sizeof(T)})};
    std::vector<T> out(nodes * lanes), weight(edges * heads), slope(edges * heads);
    std::vector<A> high(nodes * heads), total(nodes * heads), mean(nodes * heads);
    std::vector<A> partials(args.message.rows.chunks() * 2 * (2 * heads + lanes));
    args.message.out = out.data();
    args.message.partials = partials.data();
    args.high = high.data();
    args.total = total.data();
    kernels::attention_forward(args);
    args.grad = grad.data();
    args.mean = mean.data();
    args.weight = weight.data();
    args.slope = slope.data();
    kernels::attention_backward(args);
    for (int64_t node = 0; node < nodes; ++node) {
      const int64_t h = node % heads, f = h * width + node % width;
      double largest = -INFINITY, sum = 0, wanted = 0;
      for (int64_t k = graph.ptr[node]; k < graph.ptr[node + 1]; ++k) {
        largest = std::max(largest, at(e, graph.perm[k] * heads + h));
      }
      for (int64_t k = graph.ptr[node]; k < graph.ptr[node + 1]; ++k) {
        sum += std::exp(at(e, graph.perm[k] * heads + h) - largest);
      }
      for (int64_t k = graph.ptr[node]; k < graph.ptr[node + 1]; ++k) {
        const int64_t edge = graph.perm[k];
        const double w = std::exp(at(e, edge * heads + h) - largest) / sum;
        double along = 0;
        for (int64_t l = h * width; l < (h + 1) * width; ++l) {
          along += scale * at(x, other[edge] * lanes + l) * at(grad, node * lanes + l);
        }
        wanted += w * scale * at(x, other[edge] * lanes + f);
        expect(close(at(weight, edge * heads + h), w, tolerance), "the weight of an edge");
        expect(close(at(slope, edge * heads + h), w * along, tolerance * (1 + std::abs(along))),
               "the gradient of a score");
      }
      expect(close(at(out, node * lanes + f), wanted, tolerance), "weighted messages");
    }
    if (edges == 0) continue;
    std::vector<int32_t> wrong = other;
    wrong.back() = static_cast<int32_t>(nodes);
    args.score.other = wrong.data();
    kernels::attention_forward(args);
    expect(args.score.bad_other == edges - 1, "a node that is none is found, and not read");
  }
}

template <typename A>
void check_linear(int64_t rows, int64_t in, int64_t out, std::mt19937& random, Dtype dtype,
                  double tolerance) {
  std::normal_distribution<double> normal;
  std::vector<A> x(rows * in), weight(out * in), bias(out), result(rows * out, A(-1));
  for (auto* values : {&x, &weight, &bias}) {
    for (A& value : *values) value = static_cast<A>(normal(random));
  }
  for (const bool biased : {true, false}) {
    const A* given = biased ? bias.data() : nullptr;
    LinearArgs args{dtype, x.data(), weight.data(), given, result.data(), rows, in, out, in, in};
    kernels::linear_rows(args);
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t to = 0; to < out; ++to) {
        double sum = biased ? bias[to] : A(0);
        for (int64_t k = 0; k < in; ++k) sum += double(x[row * in + k]) * weight[to * in + k];
        expect(close(result[row * out + to], sum, tolerance), "a linear layer");
      }
    }
  }
}

}  // namespace

int main() {
  std::mt19937 random(0);
  for (const auto& [nodes, edges, skew] : std::vector<std::tuple<int64_t, int64_t, double>>{
           {5, 0, 1}, {7, 40, 1}, {60, 3000, 6}, {3000, 200, 1}, {1, 1500, 1}}) {
    const Graph graph = make_graph(random, nodes, edges, skew);
    for (const int64_t features : {1, 3, 37}) {
      check_reductions<double>(graph, features, random, Dtype::float64, 1e-9);
      check_reductions<float>(graph, features, random, Dtype::float32, 1e-4);
      check_reductions<Half>(graph, features, random, Dtype::float16, 1e-2);
      check_reductions<BFloat16>(graph, features, random, Dtype::bfloat16, 5e-2);
    }
    for (const int64_t features : {1, 37, 64}) {
      check_programs<double>(graph, features, random, Dtype::float64, 1e-9);
      check_programs<float>(graph, features, random, Dtype::float32, 1e-4);
      check_programs<Half>(graph, features, random, Dtype::float16, 1e-2);
      check_programs<BFloat16>(graph, features, random, Dtype::bfloat16, 5e-2);
    }
    for (const auto& [heads, width] : {std::pair<int64_t, int64_t>{1, 37}, {4, 8}, {3, 1}}) {
      check_attention<double>(graph, heads, width, random, Dtype::float64, 1e-9);
      check_attention<float>(graph, heads, width, random, Dtype::float32, 1e-4);
      check_attention<Half>(graph, heads, width, random, Dtype::float16, 1e-2);
      check_attention<BFloat16>(graph, heads, width, random, Dtype::bfloat16, 5e-2);
    }
  }
  for (const int64_t rows : {1, 13, 800}) {
    for (const auto& [in, out] : {std::pair<int64_t, int64_t>{1, 1}, {7, 37}, {30, 64}, {0, 3}}) {
      check_linear<double>(rows, in, out, random, Dtype::float64, 1e-9);
      check_linear<float>(rows, in, out, random, Dtype::float32, 1e-3);
    }
  }
  if (failures == 0) std::puts("all kernels: no fault");
  return failures == 0 ? 0 : 1;
}
