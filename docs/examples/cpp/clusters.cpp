// Finds the clusters of a graph of hits with a model that classifies its edges.
//
//     clusters model.pt graph.txt clusters.txt
//
// The graph is a text file: the numbers of nodes, features and edges; then one line of features per
// node; then one line "source target" per edge. An edge belongs to a cluster if the model gives it
// a positive score or, where it gives several, a class other than 0. Written is, per node, the number
// of its cluster: the connected component over those edges. `model.pt2` works as well.
#include <ATen/Parallel.h>
#include <gnnscript/model.h>

#include <exception>
#include <fstream>
#include <iostream>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace {

struct Graph {
  at::Tensor x;           // float32 [N, F]
  at::Tensor edge_index;  // int64 [2, E]
};

Graph read_graph(const std::string& path) {
  std::ifstream file(path);
  int64_t nodes = 0, features = 0, edges = 0;
  if (!(file >> nodes >> features >> edges)) {
    throw std::runtime_error("'" + path + "' does not begin with the numbers of nodes, features and edges");
  }
  Graph graph{at::empty({nodes, features}), at::empty({2, edges}, at::kLong)};
  auto* x = graph.x.mutable_data_ptr<float>();
  for (int64_t i = 0; i < nodes * features; ++i) {
    file >> x[i];
  }
  auto* edge_index = graph.edge_index.mutable_data_ptr<int64_t>();
  for (int64_t e = 0; e < edges; ++e) {
    file >> edge_index[e] >> edge_index[edges + e];
  }
  if (!file) {
    throw std::runtime_error("'" + path + "' is shorter than its first line says");
  }
  return graph;
}

// Per node the number of its connected component, counted from 0 in the order of the nodes.
std::vector<int64_t> components(int64_t nodes, const at::Tensor& edge_index) {
  std::vector<int64_t> parent(nodes);
  std::iota(parent.begin(), parent.end(), 0);
  const auto root = [&parent](int64_t node) {
    while (parent[node] != node) {
      node = parent[node] = parent[parent[node]];
    }
    return node;
  };
  const auto edges = edge_index.contiguous();
  const auto count = edges.size(1);
  const auto* ends = edges.const_data_ptr<int64_t>();
  for (int64_t e = 0; e < count; ++e) {
    const auto a = root(ends[e]), b = root(ends[count + e]);
    parent[std::max(a, b)] = std::min(a, b);
  }
  std::vector<int64_t> numbers(nodes);
  int64_t found = 0;
  for (int64_t node = 0; node < nodes; ++node) {
    const auto first = root(node);  // the smallest node of the component
    numbers[node] = first == node ? found++ : numbers[first];
  }
  return numbers;
}

at::Tensor within_clusters(const at::Tensor& scores) {
  return scores.dim() == 2 && scores.size(1) > 1 ? scores.argmax(1) != 0 : scores.reshape({-1}) > 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: clusters MODEL GRAPH CLUSTERS\n";
    return 2;
  }
  try {
    at::set_num_threads(1);
    const gnnscript::Model model(argv[1]);
    const auto graph = read_graph(argv[2]);
    const auto outputs = model({{"x", graph.x}, {"edge_index", graph.edge_index}});
    const auto kept = within_clusters(outputs.begin()->second);
    const auto edges = graph.edge_index.index_select(1, kept.nonzero().reshape({-1}));
    std::ofstream file(argv[3]);
    for (const auto cluster : components(graph.x.size(0), edges)) {
      file << cluster << '\n';
    }
    if (!file.flush()) {
      throw std::runtime_error(std::string("'") + argv[3] + "' cannot be written");
    }
  } catch (const std::exception& error) {
    std::cerr << "clusters: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
