// The experiment's side: processes events, and has an inference server find the clusters in them.
//
//     events [--timeout SECONDS] URL MODEL OUTPUT_FOLDER graph.txt...
//
// Each event is a graph file as of ../cpp/clusters.cpp. It is read and its request handed over; while
// the server works on it, the next events are read, and those that came back are written: one line
// per hit with the number of its cluster. No more than `in_flight` requests wait at a time.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <deque>
#include <exception>
#include <fstream>
#include <iostream>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "inference.h"

namespace {

constexpr size_t in_flight = 8;

struct Event {
  std::string name;
  int64_t hits = 0;
  std::vector<int64_t> edges;  // sources, then targets
  std::future<inference::Tensors> answer;
};

std::string stem(const std::string& path) {
  const auto start = path.find_last_of('/') + 1;
  return path.substr(start, path.find_last_of('.') - start);
}

Event read_and_submit(const std::string& path, inference::Client& client, const std::string& model) {
  std::ifstream file(path);
  int64_t hits = 0, features = 0, count = 0;
  file >> hits >> features >> count;
  if (!file || hits < 0 || features < 0 || count < 0) {
    throw std::runtime_error("'" + path + "' is no graph file");
  }
  std::vector<float> x(hits * features);
  for (auto& value : x) {
    file >> value;
  }
  std::vector<int64_t> edges(2 * count);
  for (int64_t e = 0; e < count; ++e) {
    file >> edges[e] >> edges[count + e];
  }
  if (!file) {
    throw std::runtime_error("'" + path + "' is no graph file");
  }
  auto answer = client.submit(model, {{"x", inference::Tensor::of("FP32", {hits, features}, x)},
                                      {"edge_index", inference::Tensor::of("INT64", {2, count}, edges)}});
  return {stem(path), hits, std::move(edges), std::move(answer)};
}

// Which edges lie within a cluster: a positive score or, of several, a class other than 0.
std::vector<bool> within_clusters(const inference::Tensor& scores, size_t edges) {
  const auto& shape = scores.shape;
  const size_t classes = shape.size() == 2 ? shape[1] : 1;
  if (scores.datatype != "FP32" || shape.empty() || shape.size() > 2 || classes == 0 ||
      shape[0] != static_cast<int64_t>(edges)) {
    throw std::runtime_error("the model's output has no scores for the " + std::to_string(edges) + " edges");
  }
  const auto values = scores.values<float>();
  std::vector<bool> kept;
  for (size_t start = 0; start < values.size(); start += classes) {
    const auto first = values.begin() + static_cast<std::ptrdiff_t>(start);
    kept.push_back(classes == 1 ? *first > 0 : std::max_element(first, first + classes) != first);
  }
  return kept;
}

// Per hit the number of its connected component, counted from 0 in the order of the hits.
std::vector<int64_t> components(const Event& event, const std::vector<bool>& kept) {
  std::vector<int64_t> parent(event.hits);
  std::iota(parent.begin(), parent.end(), 0);
  const auto root = [&parent](int64_t hit) {
    while (parent[hit] != hit) {
      hit = parent[hit] = parent[parent[hit]];
    }
    return hit;
  };
  for (size_t e = 0; e < kept.size(); ++e) {
    if (kept[e]) {
      const auto a = root(event.edges[e]), b = root(event.edges[kept.size() + e]);
      parent[std::max(a, b)] = std::min(a, b);
    }
  }
  std::vector<int64_t> numbers(event.hits);
  int64_t found = 0;
  for (int64_t hit = 0; hit < event.hits; ++hit) {
    const auto first = root(hit);
    numbers[hit] = first == hit ? found++ : numbers[first];
  }
  return numbers;
}

// Writes the clusters of an event. Returns false, and says why, where there are none.
bool take(Event& event, const std::string& folder) {
  try {
    const auto outputs = event.answer.get();
    if (outputs.empty()) {
      throw std::runtime_error("the model has no output");
    }
    const auto kept = within_clusters(outputs.begin()->second, event.edges.size() / 2);
    std::ofstream file(folder + "/" + event.name + ".clusters");
    for (const auto cluster : components(event, kept)) {
      file << cluster << '\n';
    }
    if (!file.flush()) {
      throw std::runtime_error("cannot write into '" + folder + "'");
    }
  } catch (const std::exception& error) {
    std::cerr << event.name << ": " << error.what() << '\n';
    return false;
  }
  return true;
}

bool is_ready(const Event& event) {
  return event.answer.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
}

}  // namespace

int main(int argc, char** argv) {
  double timeout = 60.0;
  if (argc > 2 && std::string(argv[1]) == "--timeout") {
    timeout = std::strtod(argv[2], nullptr);
    argc -= 2;
    argv += 2;
  }
  if (argc < 5 || !(timeout > 0)) {
    std::cerr << "usage: events [--timeout SECONDS] URL MODEL OUTPUT_FOLDER GRAPH...\n";
    return 2;
  }
  const std::string model = argv[2], folder = argv[3];
  size_t written = 0, failed = 0, overlapped = 0;
  try {
    inference::Client client(argv[1], timeout);
    std::deque<Event> waiting;
    const auto take_first = [&] {
      (take(waiting.front(), folder) ? written : failed) += 1;
      waiting.pop_front();
    };
    for (int i = 4; i < argc; ++i) {
      try {
        waiting.push_back(read_and_submit(argv[i], client, model));
      } catch (const std::exception& error) {
        std::cerr << stem(argv[i]) << ": " << error.what() << '\n';
        ++failed;
      }
      overlapped = std::max(overlapped, waiting.size());
      while (!waiting.empty() && (waiting.size() == in_flight || is_ready(waiting.front()))) {
        take_first();
      }
    }
    while (!waiting.empty()) {
      take_first();
    }
  } catch (const std::exception& error) {
    std::cerr << "events: " << error.what() << '\n';
    return 1;
  }
  std::cout << written << " events written, " << failed << " failed, up to " << overlapped
            << " under way at a time\n";
  return failed == 0 ? 0 : 1;
}
