// Answers each line "MODEL INPUTS OUTPUTS" with "ok", or "error" and the message of the exception.
// INPUTS and OUTPUTS are dictionaries of tensors as torch.save writes and torch.load reads them.
#include <gnnscript/model.h>
#include <torch/csrc/jit/serialization/pickle.h>

#include <fstream>
#include <iostream>
#include <iterator>

namespace {

void run(const std::string& model_path, const std::string& inputs_path, const std::string& outputs_path) {
  const gnnscript::Model model(model_path);
  std::ifstream file(inputs_path, std::ios::binary);
  const std::vector<char> data((std::istreambuf_iterator<char>(file)), {});
  gnnscript::Tensors inputs;
  for (const auto& entry : torch::jit::pickle_load(data).toGenericDict()) {
    inputs.emplace(entry.key().toStringRef(), entry.value().toTensor());
  }
  c10::Dict<std::string, at::Tensor> outputs;
  for (const auto& [name, tensor] : model(inputs)) {
    outputs.insert(name, tensor);
  }
  const auto saved = torch::jit::pickle_save(outputs);
  std::ofstream(outputs_path, std::ios::binary).write(saved.data(), static_cast<std::streamsize>(saved.size()));
}

}  // namespace

int main() {
  std::string model, inputs, outputs;
  while (std::cin >> model >> inputs >> outputs) {
    try {
      run(model, inputs, outputs);
      std::cout << "ok" << std::endl;
    } catch (const std::runtime_error& error) {
      std::string text = error.what();
      std::replace(text.begin(), text.end(), '\n', ' ');
      std::cout << "error " << text << std::endl;
    }
  }
}
