// Runs models that gnnscript saved, from C++: `model.pt` (TorchScript) and `model.pt2` (AOTInductor).
//
//     gnnscript::Model model("model.pt");
//     auto clusters = model({{"x", x}, {"edge_index", edge_index}}).at("output");
//
// Save the model with `gnnscript.save(..., example_inputs=..., all_tensors=True)`. Libraries of
// native ops are looked for beside the file. All errors are std::runtime_error.
#pragma once

#include <ATen/DynamicLibrary.h>
#include <c10/core/GradMode.h>
#include <gnnscript/manifest.h>
#include <gnnscript/validate.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/runtime/operator.h>
#include <torch/csrc/jit/serialization/import.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace gnnscript {

namespace detail {

/// The schema under which an op is registered in this process; empty if it is not.
inline std::string schema_of(const std::string& op) {
  const auto found = torch::jit::getAllOperatorsFor(c10::Symbol::fromQualString(op));
  std::ostringstream text;
  if (!found.empty()) {
    text << found.front()->schema();
  }
  return text.str();
}

inline std::string op_name(const std::string& schema) {
  return schema.substr(0, schema.find_first_of(".("));
}

/// The message of an error, without the stack of C++ frames that torch puts below it.
inline std::string message(const std::exception& error) {
  const auto* of_torch = dynamic_cast<const c10::Error*>(&error);
  return of_torch != nullptr ? of_torch->what_without_backtrace() : error.what();
}

/// Loads a library of native ops, unless its ops are there, and compares their schemas. The library
/// of CUDA kernels declares no ops: it is loaded where the model goes to such a device.
inline void provide(const Library& library, const std::filesystem::path& folder, at::Device device) {
  const auto missing = [](const std::string& schema) { return schema_of(op_name(schema)).empty(); };
  if (std::all_of(library.ops.begin(), library.ops.end(), missing) &&
      (!library.ops.empty() || device.is_cuda())) {
    const auto path = (folder / library.file).string();
    if (!std::filesystem::is_regular_file(path)) {
      throw std::runtime_error("the model needs " + library.file + ", and there is no '" + path +
                               "'; put the file with sha256 " + library.sha256 + " there");
    }
    try {
      at::DynamicLibrary(path.c_str(), nullptr, /*leak_handle=*/true);
    } catch (const std::exception& error) {
      throw std::runtime_error("'" + path + "' does not load (" + message(error) +
                               "); put the " + library.file + " with sha256 " + library.sha256 +
                               " there, and use the torch that it was built for or a later one");
    }
  }
  for (const auto& schema : library.ops) {
    const auto found = schema_of(op_name(schema));
    if (found != schema) {
      throw std::runtime_error(
          "the model calls '" + schema + "', and the library loaded here has " +
          (found.empty() ? std::string("no such op") : "'" + found + "'") + "; load the " +
          library.file + " with sha256 " + library.sha256 +
          ", in a process that has not loaded another");
    }
  }
}

/// The tensors of a result, in order.
inline void flatten(const c10::IValue& value, std::vector<at::Tensor>& tensors) {
  if (value.isTensor()) {
    tensors.push_back(value.toTensor());
  } else if (value.isTuple()) {
    for (const auto& element : value.toTupleRef().elements()) {
      flatten(element, tensors);
    }
  } else {
    throw std::runtime_error("the model returns a " + value.tagKind() +
                             "; save it with all_tensors=True");
  }
}

}  // namespace detail

/// A model that gnnscript saved. Calls are `const` and may come from several threads.
class Model {
 public:
  /// Loads `model.pt` or `model.pt2`, and the libraries of native ops that it needs.
  ///
  /// Throws std::runtime_error if the file is missing or damaged, has no manifest, takes or returns
  /// other things than tensors, or needs a library that is not there.
  explicit Model(const std::string& path, at::Device device = at::kCPU)
      : manifest_(Manifest::read(path)), device_(device) {
    if (manifest_.inputs.empty()) {
      throw std::runtime_error("'" + path + "' does not say which inputs it takes; save it with "
                               "example_inputs=..., all_tensors=True");
    }
    for (const auto& argument : manifest_.arguments) {
      if (argument.type != "Tensor" && argument.type != "Optional[Tensor]") {
        throw std::runtime_error("'" + path + "' takes '" + argument.name + "' of type " +
                                 argument.type + ", no tensor; save it with all_tensors=True");
      }
    }
    const auto folder = std::filesystem::absolute(path).parent_path();
    for (const auto& library : manifest_.libraries) {
      detail::provide(library, folder, device);
    }
    try {
      if (manifest_.compiled) {
        package_ = std::make_unique<torch::inductor::AOTIModelPackageLoader>(
            path, "model", false, 1, device.index());
      } else {
        module_ = torch::jit::load(path, device);
        module_.eval();
      }
    } catch (const std::exception& error) {
      throw std::runtime_error("'" + path + "' does not load: " + detail::message(error));
    }
  }

  const Manifest& manifest() const noexcept { return manifest_; }

  /// Runs the model without gradients.
  ///
  /// Takes and returns tensors by the names in the manifest; inputs are moved to the model's device.
  /// Throws std::runtime_error if an input is missing, unknown, or has another dtype, rank or shape
  /// than the manifest says, or an index points to a node that is not there.
  Tensors operator()(const Tensors& inputs) const {
    validate(manifest_.inputs, inputs, manifest_.least);
    std::vector<at::Tensor> results;
    try {
      // No inference mode, in which a model cannot ask for gradients inside, as for forces.
      const c10::AutoGradMode guard(false);
      if (package_ != nullptr) {
        std::vector<at::Tensor> values;
        for (const auto& spec : manifest_.inputs) {
          values.push_back(inputs.at(spec.name).to(device_));
        }
        results = package_->run(values);
      } else {
        std::unordered_map<std::string, c10::IValue> values;
        for (const auto& [name, tensor] : inputs) {
          values.emplace(name, tensor.to(device_));
        }
        detail::flatten(module_.get_method("forward")({}, values), results);
      }
    } catch (const std::exception& error) {
      throw std::runtime_error("the model failed: " + detail::message(error));
    }
    if (results.size() != manifest_.outputs.size()) {
      throw std::runtime_error("the model returned " + std::to_string(results.size()) +
                               " tensors, and the manifest lists " +
                               std::to_string(manifest_.outputs.size()) + "; save it again");
    }
    Tensors named;
    for (size_t i = 0; i < results.size(); ++i) {
      named.emplace(manifest_.outputs[i].name, results[i].detach());
    }
    return named;
  }

 private:
  Manifest manifest_;
  at::Device device_;
  torch::jit::Module module_;
  std::unique_ptr<torch::inductor::AOTIModelPackageLoader> package_;
};

}  // namespace gnnscript
