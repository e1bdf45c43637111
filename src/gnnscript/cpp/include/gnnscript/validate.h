// Whether tensors are those that a model takes; the texts are those of gnnscript in Python.
#pragma once

#include <ATen/ATen.h>
#include <gnnscript/manifest.h>

#include <algorithm>
#include <cctype>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace gnnscript {

/// Tensors by name.
using Tensors = std::map<std::string, at::Tensor>;

namespace detail {

/// The name that Python gives to a dtype.
inline std::string dtype_name(at::ScalarType type) {
  switch (type) {
    case at::kByte: return "uint8";
    case at::kChar: return "int8";
    case at::kShort: return "int16";
    case at::kInt: return "int32";
    case at::kLong: return "int64";
    case at::kHalf: return "float16";
    case at::kBFloat16: return "bfloat16";
    case at::kFloat: return "float32";
    case at::kDouble: return "float64";
    case at::kBool: return "bool";
    default: return c10::toString(type);
  }
}

template <typename Sizes>
std::string shape_text(const Sizes& sizes) {
  std::ostringstream text;
  text << '[';
  const char* separator = "";
  for (const auto& size : sizes) {
    text << separator << size;
    separator = ", ";
  }
  text << ']';
  return text.str();
}

inline bool is_number(const std::string& size) {
  return !size.empty() && std::all_of(size.begin(), size.end(), [](unsigned char c) {
    return std::isdigit(c) != 0;
  });
}

/// What each symbol stands for, and the input in which it was seen first.
using Sizes = std::map<std::string, std::pair<int64_t, std::string>>;

inline void check_shape(const TensorSpec& spec, const at::Tensor& tensor, Sizes& sizes,
                        const std::map<std::string, int64_t>& least) {
  const auto dtype = dtype_name(tensor.scalar_type());
  if (dtype != spec.dtype) {
    throw std::runtime_error("expected '" + spec.name + "' to be " + spec.dtype + ", got " + dtype);
  }
  const auto expected = "expected '" + spec.name + "' of shape " + shape_text(spec.shape);
  const auto got = "got " + shape_text(tensor.sizes());
  if (static_cast<size_t>(tensor.dim()) != spec.shape.size()) {
    throw std::runtime_error(expected + ", which has " + std::to_string(spec.shape.size()) +
                             " dimensions, " + got);
  }
  for (size_t dim = 0; dim < spec.shape.size(); ++dim) {
    const auto& want = spec.shape[dim];
    const auto size = tensor.size(static_cast<int64_t>(dim));
    if (is_number(want)) {
      if (std::to_string(size) != want) {
        throw std::runtime_error(expected + ", " + got);
      }
      continue;
    }
    const auto& [known, owner] = sizes.try_emplace(want, size, spec.name).first->second;
    if (size != known) {
      throw std::runtime_error(expected + " with " + want + " = " + std::to_string(known) +
                               " as in '" + owner + "', " + got);
    }
    const auto smallest = least.find(want);
    if (smallest != least.end() && size < smallest->second) {
      throw std::runtime_error(expected + " with " + want + " of at least " +
                               std::to_string(smallest->second) + ", as it was compiled for, " + got);
    }
  }
}

inline void check_index(const TensorSpec& spec, const at::Tensor& tensor, const Sizes& sizes) {
  for (size_t row = 0; row < spec.index.size(); ++row) {
    const auto& symbol = spec.index[row];
    const bool rows = spec.index.size() > 1;
    const auto values = rows ? tensor.select(0, static_cast<int64_t>(row)) : tensor;
    if (symbol == "-" || values.numel() == 0) {
      continue;
    }
    const auto& [size, owner] = sizes.at(symbol);
    const auto [low, high] = at::aminmax(values);
    const auto smallest = low.item<int64_t>(), largest = high.item<int64_t>();
    if (smallest < 0 || largest >= size) {
      const auto count = std::to_string(size);
      throw std::runtime_error(
          "expected values of " + (rows ? "row " + std::to_string(row) + " of " : std::string()) +
          "'" + spec.name + "' in [0, " + count + "), as '" + owner + "' has " + symbol + " = " +
          count + ", got " + std::to_string(smallest < 0 ? smallest : largest));
    }
  }
}

}  // namespace detail

/// Checks names, dtypes, ranks, shapes, and that indices point to nodes that are there.
/// Throws std::runtime_error where a tensor is not one that the model takes.
inline void validate(const std::vector<TensorSpec>& specs, const Tensors& tensors,
                     const std::map<std::string, int64_t>& least = {}) {
  std::string takes;
  for (const auto& spec : specs) {
    takes += (takes.empty() ? "" : ", ") + spec.name;
  }
  for (const auto& [name, tensor] : tensors) {
    if (std::none_of(specs.begin(), specs.end(), [&name = name](const TensorSpec& spec) {
          return spec.name == name;
        })) {
      throw std::runtime_error("the model has no input '" + name + "'; it takes " + takes);
    }
  }
  detail::Sizes sizes;
  for (const auto& spec : specs) {
    const auto found = tensors.find(spec.name);
    if (found == tensors.end()) {
      throw std::runtime_error("the input '" + spec.name + "' is missing; the model takes " + takes);
    }
    detail::check_shape(spec, found->second, sizes, least);
  }
  for (const auto& spec : specs) {
    detail::check_index(spec, tensors.at(spec.name), sizes);
  }
}

}  // namespace gnnscript
