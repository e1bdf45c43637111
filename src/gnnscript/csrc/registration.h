// Registers the ops of the CPU library once in a process, whatever copies of it are loaded: one lies
// in the package, others beside saved models.
#pragma once

#include <torch/csrc/stable/library.h>

#include <cstdint>

namespace gnnscript {

using RegistrationBlock = void(torch::stable::detail::StableLibrary&);

// Runs a block that gives schemas (no key) or kernels; tells whether this copy is the one that does.
bool registered(RegistrationBlock* block, const char* key, const char* file, uint32_t line);

}  // namespace gnnscript

#define GNNSCRIPT_DEFINE(m) GNNSCRIPT_REGISTER_(nullptr, m, C10_UID)
#define GNNSCRIPT_IMPLEMENT(key, m) GNNSCRIPT_REGISTER_(#key, m, C10_UID)

#define GNNSCRIPT_REGISTER_(key, m, uid)                                                  \
  static void C10_CONCATENATE(gnnscript_block_, uid)(torch::stable::detail::StableLibrary&); \
  static const bool C10_CONCATENATE(gnnscript_registered_, uid) = gnnscript::registered(  \
      &C10_CONCATENATE(gnnscript_block_, uid), key, __FILE__, __LINE__);                  \
  void C10_CONCATENATE(gnnscript_block_, uid)(torch::stable::detail::StableLibrary & m)
