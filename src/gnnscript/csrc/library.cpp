// The schemas of all ops: the one place where they stand.
//
// All are pure, but for own_copy, which may return what it is given; so TorchScript and inductor merge
// equal calls. Kernels are registered elsewhere, each op's in a GNNSCRIPT_IMPLEMENT block beside them:
//
//   cpu/<op>_kernels.cpp  the loops; no torch, compiled once per instruction set (isa.h)
//   cpu/<op>.h            what they take, declared with GNNSCRIPT_KERNEL
//   cpu/<op>.cpp          checks (checks.h, rows_checks.h), allocation, GNNSCRIPT_IMPLEMENT(CPU, m) (registration.h)
//   cuda/<op>.cu          the same for CUDA, in libgnnscript_cuda.so
//
// CMakeLists.txt finds files of these names by itself. Meta kernels, gradients and autocast are
// registered from Python (ops/fake.py, ops/autograd.py, ops/autocast.py). docs/ops.md is the
// reference of what the ops mean.
//
// A library and a package that do not fit would fail in the middle of a model: whoever changes ops
// raises GNNSCRIPT_INTERFACE in interface.h and INTERFACE in ops/library.py.
#include "registration.h"

#include <torch/csrc/stable/tensor.h>

#include <memory>
#include <vector>

#include "interface.h"

GNNSCRIPT_TELL_INTERFACE(gnnscript_interface)

bool gnnscript::registered(
    RegistrationBlock* block, const char* key, const char* file, uint32_t line) {
  using torch::stable::detail::StableLibrary;
  using torch::stable::detail::StableTorchLibraryInit;
  // Where another copy has the namespace already, its ops serve the callers of both.
  static TorchLibraryHandle owned = nullptr;
  static const bool first = aoti_torch_library_init_def("gnnscript", file, line, &owned) == 0;
  static std::vector<std::unique_ptr<StableTorchLibraryInit>> kept;
  if (first) {
    const auto kind = key == nullptr ? StableLibrary::Kind::FRAGMENT : StableLibrary::Kind::IMPL;
    kept.push_back(std::make_unique<StableTorchLibraryInit>(
        kind, block, "gnnscript", key, file, line));
  }
  return first;
}

GNNSCRIPT_DEFINE(m) {
  // Rows of edges: row n owns the edges perm[ptr[n]] .. perm[ptr[n + 1] - 1].
  m.def("csr(Tensor index, SymInt size) -> (Tensor ptr, Tensor perm)");
  // csr on CPU, once for equal calls of a thread between share_plans(.., True) and (.., False).
  m.def("shared_csr(Tensor index, SymInt size) -> (Tensor ptr, Tensor perm)");
  m.def("share_plans(Tensor unknown, bool active) -> bool");
  // Where the work on a tensor goes: to a stream, and into a graph that records it (0: none).
  m.def("work_place(Tensor like) -> (int stream, int graph)");
  // What code named by a key has made of some tensors and numbers, likewise. The tensors are no list:
  // kernels of the stable ABI take them out of lists, which a compiler may let other calls share.
  m.def(
      "find_known(Tensor unknown, str key, int[] numbers, Tensor? a, Tensor? b, Tensor? c, "
      "Tensor? d) -> Tensor[]");
  m.def(
      "keep_known(Tensor unknown, str key, int[] numbers, Tensor? a, Tensor? b, Tensor? c, "
      "Tensor? d, Tensor made, Tensor? made_1, Tensor? made_2, Tensor? made_3) -> bool");
  // What a gradient will read; copies are made in ops/copies.py, where there are gradients.
  m.def("own_copy(Tensor(a) x, bool always) -> Tensor(a)");
  m.def("gather(Tensor src, Tensor index) -> Tensor");
  m.def("segment_reduce(Tensor src, Tensor ptr, Tensor? perm, str reduce) -> Tensor");
  m.def("segment_reduces(Tensor src, Tensor ptr, Tensor? perm, str[] reduces) -> Tensor[]");
  m.def(
      "segment_reduce_backward(Tensor grad, Tensor src, Tensor out, Tensor ptr, Tensor? perm, "
      "str reduce) -> Tensor");
  // The same of edges in any order: on CPU without sorting them, which pays for few values per edge.
  m.def("scatter_reduce(Tensor src, Tensor index, SymInt size, str reduce) -> Tensor");
  m.def("segment_expand(Tensor src, Tensor ptr, Tensor? perm, SymInt edges) -> Tensor");
  m.def("edge_softmax(Tensor src, Tensor ptr, Tensor? perm) -> Tensor");
  m.def("edge_softmax_backward(Tensor grad, Tensor out, Tensor ptr, Tensor? perm) -> Tensor");

  // A linear layer of rows, on CPU and without gradients; ops/linear.py decides where it is taken.
  m.def("linear(Tensor x, Tensor weight, Tensor? bias) -> Tensor");

  // Neighbour search and sampling; points of several examples one after the other, bounded by ptr.
  m.def("knn(Tensor x, Tensor y, Tensor ptr_x, Tensor ptr_y, int k) -> Tensor");
  m.def(
      "radius(Tensor x, Tensor y, Tensor ptr_x, Tensor ptr_y, float r, int? max_num_neighbors, "
      "bool ignore_same_index) -> Tensor");
  m.def("fps(Tensor src, Tensor ptr, Tensor samples, Tensor first) -> Tensor");

  // Programs over edges: see ops/program.py.
  m.def(
      "edge_reduce(str program, Tensor[] operands, Tensor index, Tensor other, Tensor ptr, "
      "Tensor perm, str reduce) -> Tensor");
  m.def(
      "edge_map(str program, Tensor[] operands, Tensor index, Tensor other, int sum_dims) "
      "-> Tensor");
  // Messages weighted by the softmax of a score over each row, and what the gradient needs of it.
  m.def(
      "edge_attention(str score, Tensor[] score_operands, int sum_dims, str message, "
      "Tensor[] message_operands, Tensor index, Tensor other, Tensor ptr, Tensor perm) "
      "-> (Tensor out, Tensor high, Tensor total)");
  m.def(
      "edge_attention_backward(str score, Tensor[] score_operands, int sum_dims, str message, "
      "Tensor[] message_operands, Tensor index, Tensor other, Tensor ptr, Tensor perm, "
      "Tensor grad, Tensor high, Tensor total, Tensor mean) -> (Tensor weight, Tensor slope)");
}

namespace {

// Without Python nothing computes gradients.
torch::stable::Tensor own_copy(const torch::stable::Tensor& x, bool) { return x; }

}  // namespace

GNNSCRIPT_IMPLEMENT(CompositeImplicitAutograd, m) { m.impl("own_copy", TORCH_BOX(&own_copy)); }
