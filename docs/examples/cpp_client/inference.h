// A client of the open inference protocol (KServe v2): HTTP with tensors in binary form. It knows no
// framework of machine learning; it needs libcurl and nlohmann/json.
//
// Requests are handed over and run in the background, any number at a time, on one thread:
//
//     inference::Client client("http://127.0.0.1:8000");
//     auto answer = client.submit("edgenet", {{"x", x}, {"edge_index", edge_index}});
//     ...                                       // go on with other work
//     inference::Tensors outputs = answer.get();  // waits if it must; throws what went wrong
#pragma once

#include <curl/curl.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

namespace inference {

/// A tensor as it travels: its type in the protocol's terms, its shape, and its bytes.
struct Tensor {
  std::string datatype;  ///< such as "FP32", "INT64"
  std::vector<int64_t> shape;
  std::string data;

  template <typename T>
  static Tensor of(const char* datatype, std::vector<int64_t> shape, const std::vector<T>& values) {
    Tensor tensor{datatype, std::move(shape), std::string(values.size() * sizeof(T), '\0')};
    if (!values.empty()) {
      std::memcpy(tensor.data.data(), values.data(), tensor.data.size());
    }
    return tensor;
  }

  template <typename T>
  std::vector<T> values() const {
    std::vector<T> found(data.size() / sizeof(T));
    if (!found.empty()) {
      std::memcpy(found.data(), data.data(), found.size() * sizeof(T));
    }
    return found;
  }
};

using Tensors = std::map<std::string, Tensor>;

/// What a server or the way to it refused; `status` is the HTTP status, 0 where there was none.
class Error : public std::runtime_error {
 public:
  Error(const std::string& message, long status) : std::runtime_error(message), status(status) {}
  const long status;
};

namespace detail {

inline std::string body_of(const Tensors& inputs, bool batched, size_t& header_size) {
  nlohmann::json header = {{"parameters", {{"binary_data_output", true}}},
                           {"inputs", nlohmann::json::array()}};
  std::string data;
  for (const auto& [name, tensor] : inputs) {
    auto shape = tensor.shape;
    if (batched) {
      shape.insert(shape.begin(), 1);
    }
    header["inputs"].push_back({{"name", name},
                                {"shape", shape},
                                {"datatype", tensor.datatype},
                                {"parameters", {{"binary_data_size", tensor.data.size()}}}});
    data += tensor.data;
  }
  const auto text = header.dump();
  header_size = text.size();
  return text + data;
}

/// Whether so many bytes hold a tensor; strings (BYTES) are of any size.
inline bool holds(const std::string& datatype, const std::vector<int64_t>& shape, size_t size) {
  static const std::map<std::string, int> widths = {
      {"BOOL", 1},  {"INT8", 1},   {"UINT8", 1}, {"INT16", 2}, {"UINT16", 2}, {"FP16", 2},  {"BF16", 2},
      {"INT32", 4}, {"UINT32", 4}, {"FP32", 4},  {"INT64", 8}, {"UINT64", 8}, {"FP64", 8}};
  const auto width = widths.find(datatype);
  if (width == widths.end()) {
    return true;
  }
  double bytes = width->second;  // whatever the sizes are, it does not overflow
  for (const auto length : shape) {
    if (length < 0) {
      return false;
    }
    bytes *= static_cast<double>(length);
  }
  return bytes == static_cast<double>(size);
}

inline Tensors tensors_of(const std::string& body, size_t header_size, bool batched) {
  if (header_size == std::string::npos) {
    header_size = body.size();  // tensors come with that header only
  }
  if (header_size > body.size()) {
    throw std::runtime_error("it is shorter than its header");
  }
  const auto header = nlohmann::json::parse(body.substr(0, header_size));
  Tensors outputs;
  size_t position = header_size;
  for (const auto& output : header.at("outputs")) {
    const auto size = output.at("parameters").at("binary_data_size").get<size_t>();
    Tensor tensor{output.at("datatype"), output.at("shape").get<std::vector<int64_t>>(), {}};
    const auto name = output.at("name").get<std::string>();
    if (size > body.size() - position) {
      throw std::runtime_error("it ends within '" + name + "'");
    }
    if (!holds(tensor.datatype, tensor.shape, size)) {
      throw std::runtime_error("'" + name + "' is " + tensor.datatype + " " + output.at("shape").dump() +
                               ", and has " + std::to_string(size) + " bytes");
    }
    if (batched && !tensor.shape.empty()) {
      tensor.shape.erase(tensor.shape.begin());
    }
    tensor.data = body.substr(position, size);
    position += size;
    outputs.emplace(name, std::move(tensor));
  }
  if (position != body.size()) {
    throw std::runtime_error("it is longer than its tensors");
  }
  return outputs;
}

struct Headers {
  curl_slist* list = nullptr;
  Headers() = default;
  Headers(const Headers&) = delete;
  Headers& operator=(const Headers&) = delete;
  ~Headers() { curl_slist_free_all(list); }
  void add(const std::string& line) { list = curl_slist_append(list, line.c_str()); }
};

/// One HTTP exchange; `done` is called once, when it has ended.
struct Exchange {
  std::unique_ptr<CURL, void (*)(CURL*)> handle{curl_easy_init(), curl_easy_cleanup};
  Headers headers;
  std::string sent;
  std::string received;
  size_t header_size = std::string::npos;
  std::function<void(Exchange&, CURLcode)> done;

  static size_t on_data(char* data, size_t, size_t size, void* self) {
    static_cast<Exchange*>(self)->received.append(data, size);
    return size;
  }

  static size_t on_header(char* data, size_t, size_t size, void* self) {
    static const std::string wanted = "inference-header-content-length:";
    if (size > wanted.size() && curl_strnequal(data, wanted.c_str(), wanted.size()) != 0) {
      // Nothing may be thrown through libcurl. What is no number becomes 0, and fails as a header.
      const std::string number(data + wanted.size(), size - wanted.size());
      static_cast<Exchange*>(self)->header_size = std::strtoul(number.c_str(), nullptr, 10);
    }
    return size;
  }

  /// The body of a successful answer. Throws Error otherwise.
  const std::string& result(CURLcode code, const std::string& url) const {
    if (code != CURLE_OK) {
      throw Error(url + ": " + curl_easy_strerror(code), 0);
    }
    long status = 0;
    curl_easy_getinfo(handle.get(), CURLINFO_RESPONSE_CODE, &status);
    if (status != 200) {
      const auto found = nlohmann::json::parse(received, nullptr, /*allow_exceptions=*/false);
      const bool known = found.is_object() && found.contains("error") && found["error"].is_string();
      throw Error(url + " answers " + std::to_string(status) + ": " +
                      (known ? found["error"].get<std::string>() : received.substr(0, 500)),
                  status);
    }
    return received;
  }
};

}  // namespace detail

/// Sends requests to one server. Members may be called from several threads.
class Client {
 public:
  /// \param url such as "http://127.0.0.1:8000"
  /// \param timeout seconds after which a request is given up
  explicit Client(std::string url, double timeout = 60.0)
      : url_(std::move(url)), timeout_(std::max(1L, static_cast<long>(1000 * timeout))) {
    static const auto initialised = curl_global_init(CURL_GLOBAL_DEFAULT);
    if (initialised != CURLE_OK) {
      throw Error(curl_easy_strerror(initialised), 0);
    }
    multi_ = curl_multi_init();
    worker_ = std::thread([this] { work(); });
  }

  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  /// Ends the requests that are still under way: their futures throw.
  ~Client() {
    stop_ = true;
    curl_multi_wakeup(multi_);
    worker_.join();
    curl_multi_cleanup(multi_);
  }

  /// Hands a request over, and returns at once. Getting the result throws Error where the server
  /// cannot be reached (status 0), refuses the inputs (400), does not know the model (404, 400), or
  /// answers what is not of the protocol (200).
  std::future<Tensors> submit(const std::string& model, const Tensors& inputs) {
    const bool batched = is_batched(model);
    auto exchange = start("/v2/models/" + model + "/infer");
    size_t header_size = 0;
    exchange->sent = detail::body_of(inputs, batched, header_size);
    exchange->headers.add("Content-Type: application/octet-stream");
    exchange->headers.add("Inference-Header-Content-Length: " + std::to_string(header_size));
    exchange->headers.add("Expect:");
    auto* handle = exchange->handle.get();
    curl_easy_setopt(handle, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(exchange->sent.size()));
    curl_easy_setopt(handle, CURLOPT_POSTFIELDS, exchange->sent.data());
    curl_easy_setopt(handle, CURLOPT_HTTPHEADER, exchange->headers.list);
    return finish<Tensors>(std::move(exchange), [batched](const detail::Exchange& ended, const std::string& body) {
      return detail::tensors_of(body, ended.header_size, batched);
    });
  }

 private:
  using Ended = std::unique_ptr<detail::Exchange>;

  /// Whether the server puts requests for this model together, and so wants a leading dimension.
  bool is_batched(const std::string& model) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (const auto known = batched_.find(model); known != batched_.end()) {
        return known->second;
      }
    }
    const auto read = [](const auto&, const std::string& body) {
      return nlohmann::json::parse(body).value("max_batch_size", 0) > 0;
    };
    const bool batched = finish<bool>(start("/v2/models/" + model + "/config"), read).get();
    const std::lock_guard<std::mutex> lock(mutex_);
    return batched_.emplace(model, batched).first->second;
  }

  Ended start(const std::string& path) {
    auto exchange = std::make_unique<detail::Exchange>();
    auto* handle = exchange->handle.get();
    curl_easy_setopt(handle, CURLOPT_URL, (url_ + path).c_str());
    curl_easy_setopt(handle, CURLOPT_TIMEOUT_MS, timeout_);
    curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, detail::Exchange::on_data);
    curl_easy_setopt(handle, CURLOPT_WRITEDATA, exchange.get());
    curl_easy_setopt(handle, CURLOPT_HEADERFUNCTION, detail::Exchange::on_header);
    curl_easy_setopt(handle, CURLOPT_HEADERDATA, exchange.get());
    return exchange;
  }

  template <typename Result, typename Read>
  std::future<Result> finish(Ended exchange, Read read) {
    auto promise = std::make_shared<std::promise<Result>>();
    exchange->done = [promise, read, url = url_](detail::Exchange& ended, CURLcode code) {
      try {
        promise->set_value(read(ended, ended.result(code, url)));
      } catch (const Error&) {
        promise->set_exception(std::current_exception());
      } catch (const std::exception& error) {
        const auto message = url + " gives an answer that is not of the inference protocol: " + error.what();
        promise->set_exception(std::make_exception_ptr(Error(message, 200)));
      }
    };
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      waiting_.push_back(std::move(exchange));
    }
    curl_multi_wakeup(multi_);
    return promise->get_future();
  }

  void work() {
    std::unordered_map<CURL*, Ended> running;
    while (!stop_) {
      for (Ended exchange; take(exchange);) {
        auto* handle = exchange->handle.get();
        curl_multi_add_handle(multi_, handle);
        running.emplace(handle, std::move(exchange));
      }
      int count = 0;
      curl_multi_perform(multi_, &count);
      int left = 0;
      while (const auto* message = curl_multi_info_read(multi_, &left)) {
        if (message->msg == CURLMSG_DONE) {
          end(running, message->easy_handle, message->data.result);
        }
      }
      curl_multi_poll(multi_, nullptr, 0, 1000, nullptr);
    }
    while (!running.empty()) {
      end(running, running.begin()->first, CURLE_ABORTED_BY_CALLBACK);
    }
    for (Ended exchange; take(exchange);) {
      exchange->done(*exchange, CURLE_ABORTED_BY_CALLBACK);
    }
  }

  void end(std::unordered_map<CURL*, Ended>& running, CURL* handle, CURLcode code) {
    curl_multi_remove_handle(multi_, handle);
    const auto found = running.find(handle);
    found->second->done(*found->second, code);
    running.erase(found);
  }

  bool take(Ended& exchange) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (waiting_.empty()) {
      return false;
    }
    exchange = std::move(waiting_.front());
    waiting_.pop_front();
    return true;
  }

  const std::string url_;
  const long timeout_;
  CURLM* multi_ = nullptr;
  std::mutex mutex_;
  std::deque<Ended> waiting_;
  std::map<std::string, bool> batched_;
  std::atomic<bool> stop_{false};
  std::thread worker_;
};

}  // namespace inference
