// What the ops ask of their arguments, in words that name the tensor, the value and the bound.
//
// Python sees std::invalid_argument as ValueError and std::out_of_range as IndexError.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "dtypes.h"
#include "pages.h"

namespace gnnscript {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <typename... Args>
std::string message(const Args&... args) {
  std::ostringstream text;
  (text << ... << args);
  return text.str();
}

template <typename... Args>
void check(bool condition, const Args&... args) {
  if (!condition) throw std::invalid_argument(message(args...));
}

inline std::string shape_of(const Tensor& tensor) {
  std::ostringstream text;
  text << "[";
  for (int64_t d = 0; d < tensor.dim(); ++d) text << (d ? ", " : "") << tensor.size(d);
  text << "]";
  return text.str();
}

inline void check_index(const Tensor& index, const char* name) {
  check(index.dim() == 1, "expected a one-dimensional ", name, ", got ", index.dim(),
        " dimensions");
  const ScalarType type = index.scalar_type();
  check(type == ScalarType::Long || type == ScalarType::Int, "expected ", name,
        " of dtype int64 or int32, got ", torch::headeronly::toString(type));
}

inline bool is_wide(const Tensor& index) { return index.scalar_type() == ScalarType::Long; }

// Throws the IndexError for a value of an index that is out of [0, bound).
[[noreturn]] inline void out_of_range(const char* name, int64_t position, int64_t value,
                                      int64_t bound, const char* counted) {
  throw std::out_of_range(message(name, " out of range: ", name, "[", position, "] is ", value,
                                  ", expected a value in [0, ", bound, ") (", counted, ")"));
}

inline int64_t value_at(const Tensor& index, int64_t position) {
  return is_wide(index) ? index.const_data_ptr<int64_t>()[position]
                        : index.const_data_ptr<int32_t>()[position];
}

// The values of an index in memory of the host.
inline std::vector<int64_t> values_of(const Tensor& index_given) {
  const Tensor index = torch::stable::contiguous(index_given);
  std::vector<int64_t> values(static_cast<size_t>(index.numel()));
  for (size_t i = 0; i < values.size(); ++i) values[i] = value_at(index, static_cast<int64_t>(i));
  return values;
}

inline Dtype check_floating(const Tensor& tensor, const char* name) {
  switch (tensor.scalar_type()) {
    case ScalarType::Double:
      return Dtype::float64;
    case ScalarType::Float:
      return Dtype::float32;
    case ScalarType::Half:
      return Dtype::float16;
    case ScalarType::BFloat16:
      return Dtype::bfloat16;
    default:
      throw std::invalid_argument(message("expected ", name,
                                          " of dtype float64, float32, float16 or bfloat16, got ",
                                          torch::headeronly::toString(tensor.scalar_type())));
  }
}

inline void check_same_device(const Tensor& tensor, const Tensor& other, const char* name,
                              const char* other_name) {
  check(tensor.device() == other.device(), "expected ", name, " and ", other_name,
        " on the same device");
}

// The number of values per row: the product of all sizes but the first.
inline int64_t features_of(const Tensor& tensor) {
  int64_t features = 1;
  for (int64_t d = 1; d < tensor.dim(); ++d) features *= tensor.size(d);
  return features;
}

// `tensor` with the values of a row side by side, rows at any distance: copied only where needed.
inline Tensor rows_contiguous(const Tensor& tensor) {
  int64_t expected = 1;
  for (int64_t d = tensor.dim() - 1; d > 0; --d) {
    if (tensor.size(d) != 1 && tensor.stride(d) != expected) {
      return torch::stable::contiguous(tensor);
    }
    expected *= tensor.size(d);
  }
  return tensor;
}

// The shape of `tensor` with another first size.
inline std::vector<int64_t> sizes_with(const Tensor& tensor, int64_t first) {
  std::vector<int64_t> sizes(tensor.sizes().begin(), tensor.sizes().end());
  sizes[0] = first;
  return sizes;
}

inline Tensor empty_of(const Tensor& like, const std::vector<int64_t>& sizes, ScalarType type) {
  Tensor tensor = torch::stable::new_empty(like, {sizes.data(), sizes.size()}, type);
  if (tensor.is_cpu() && tensor.numel() > 0) {
    prefer_large_pages(tensor.mutable_data_ptr(),
                       tensor.numel() * static_cast<int64_t>(tensor.element_size()));
  }
  return tensor;
}

inline Tensor empty_with(const Tensor& like, const std::vector<int64_t>& sizes) {
  return empty_of(like, sizes, like.scalar_type());
}

inline Tensor empty_int64(const Tensor& like, int64_t size) {
  return empty_of(like, {size}, ScalarType::Long);
}

inline Tensor empty_bytes(const Tensor& like, int64_t size) {
  return empty_of(like, {size}, ScalarType::Byte);
}

}  // namespace gnnscript
