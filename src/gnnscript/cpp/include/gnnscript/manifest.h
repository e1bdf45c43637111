// What a model saved by gnnscript says of itself. See gnnscript/model.h.
#pragma once

#include <caffe2/serialize/inline_container.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

namespace gnnscript {

/// One tensor that goes in or comes out.
struct TensorSpec {
  std::string name;
  std::string dtype;               ///< such as "float32"
  std::vector<std::string> shape;  ///< numbers, symbols such as "N", or "?"
  /// Of a tensor of indices: per row the symbol below which its values lie, "-" for none.
  std::vector<std::string> index;
};

/// One argument of the model's forward, with its TorchScript type.
struct Argument {
  std::string name;
  std::string type;
  bool required = true;
};

/// A library of native ops, and the schemas of those that the model calls.
struct Library {
  std::string file;
  std::string sha256;
  std::vector<std::string> ops;
};

/// What a model is, needs, takes and returns.
struct Manifest {
  std::string model;
  std::string kernels;  ///< "native" or "portable"
  std::vector<Argument> arguments;
  std::vector<TensorSpec> inputs;
  std::vector<TensorSpec> outputs;
  std::map<std::string, int64_t> least;  ///< per symbol, if the model is not right for 0 or 1
  std::vector<Library> libraries;
  bool compiled = false;  ///< whether the file is an AOTInductor package

  /// Reads the manifest of a file that gnnscript wrote.
  /// Throws std::runtime_error where there is none.
  static Manifest read(const std::string& path);

 private:
  void parse(std::istream& lines);
};

namespace detail {

inline std::vector<std::string> words(std::istream& line) {
  std::vector<std::string> found;
  for (std::string word; line >> word;) {
    found.push_back(word);
  }
  return found;
}

inline std::string rest(std::istream& line) {
  std::string text;
  std::getline(line >> std::ws, text);
  return text;
}

}  // namespace detail

inline Manifest Manifest::read(const std::string& path) {
  if (!std::filesystem::is_regular_file(path)) {
    throw std::runtime_error("there is no file '" + path + "'");
  }
  std::unique_ptr<caffe2::serialize::PyTorchStreamReader> archive;
  std::string text;
  try {
    archive = std::make_unique<caffe2::serialize::PyTorchStreamReader>(path);
    if (archive->hasRecord("extra/gnnscript.txt")) {
      const auto [data, size] = archive->getRecord("extra/gnnscript.txt");
      text.assign(static_cast<const char*>(data.get()), size);
    }
  } catch (const c10::Error&) {
    throw std::runtime_error("'" + path + "' is damaged or no model; copy or save it again");
  }
  if (text.empty()) {
    throw std::runtime_error("'" + path + "' has no manifest: it was not written by gnnscript.save; "
                             "load it with torch::jit::load, or save the model with gnnscript.save");
  }
  Manifest manifest;
  std::istringstream lines(text);
  manifest.parse(lines);
  manifest.compiled = archive->hasRecord("archive_format");
  return manifest;
}

inline void Manifest::parse(std::istream& lines) {
  constexpr int newest = 1;
  for (std::string text; std::getline(lines, text);) {
    std::istringstream line(text);
    std::string keyword, name;
    line >> keyword >> name;
    if (keyword == "format" && std::stoi(name) > newest) {
      throw std::runtime_error("the manifest has format " + name + ", and gnnscript here reads "
                               "formats up to " + std::to_string(newest) + "; upgrade gnnscript");
    } else if (keyword == "model") {
      model = name;
    } else if (keyword == "kernels") {
      kernels = name;
    } else if (keyword == "argument") {
      Argument argument{name, "", true};
      line >> argument.required;
      argument.type = detail::rest(line);
      arguments.push_back(std::move(argument));
    } else if (keyword == "input" || keyword == "output") {
      TensorSpec spec{name, "", {}, {}};
      line >> spec.dtype;
      spec.shape = detail::words(line);
      (keyword == "input" ? inputs : outputs).push_back(std::move(spec));
    } else if (keyword == "index" && !inputs.empty()) {
      inputs.back().index = detail::words(line);
    } else if (keyword == "least") {
      line >> least[name];
    } else if (keyword == "library") {
      Library library{name, "", {}};
      line >> library.sha256;
      libraries.push_back(std::move(library));
    } else if (keyword == "op" && !libraries.empty()) {
      libraries.back().ops.push_back(detail::rest(line));
    }
  }
}

}  // namespace gnnscript
