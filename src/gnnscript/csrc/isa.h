// One binary, several instruction sets: which loops run is decided when they are first called.
//
// A file `cpu/<op>_kernels.cpp` is compiled once per instruction set, with GNNSCRIPT_ISA defined as
// its name, and puts all its code into `namespace gnnscript::GNNSCRIPT_ISA`. A header declares the
// entry points with GNNSCRIPT_KERNEL(name, argument types), and `cpu/<op>.cpp` calls them as
// GNNSCRIPT_SELECT(name)(arguments). Such a file includes neither torch nor, for more than types
// and constants, the C++ library: an inline function compiled for AVX-512 must not be the one that
// the linker keeps for everybody.
#pragma once

#include <cstdlib>
#include <cstring>

#if defined(__x86_64__)
#define GNNSCRIPT_KERNEL(name, ...)                  \
  namespace baseline { void name(__VA_ARGS__); }     \
  namespace avx2 { void name(__VA_ARGS__); }         \
  namespace avx512 { void name(__VA_ARGS__); }
#define GNNSCRIPT_SELECT(name) \
  ::gnnscript::select_isa(&::gnnscript::baseline::name, &::gnnscript::avx2::name, \
                          &::gnnscript::avx512::name)
#else
#define GNNSCRIPT_KERNEL(name, ...) \
  namespace baseline { void name(__VA_ARGS__); }
#define GNNSCRIPT_SELECT(name) (&::gnnscript::baseline::name)
#endif

namespace gnnscript {

enum class Isa { baseline, avx2, avx512 };

// The widest instruction set of this machine, or the narrower one that GNNSCRIPT_ISA names.
Isa machine_isa();

template <typename Function>
Function* select_isa(Function* baseline, Function* avx2, Function* avx512) {
  switch (machine_isa()) {
    case Isa::avx512:
      return avx512;
    case Isa::avx2:
      return avx2;
    default:
      return baseline;
  }
}

}  // namespace gnnscript
