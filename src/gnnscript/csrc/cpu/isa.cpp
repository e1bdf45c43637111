#include "isa.h"

namespace gnnscript {

namespace {

Isa detect() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  Isa widest = Isa::baseline;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("f16c")) {
    widest = Isa::avx2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
      widest = Isa::avx512;
    }
  }
  const char* asked = std::getenv("GNNSCRIPT_ISA");
  if (asked != nullptr) {
    if (std::strcmp(asked, "baseline") == 0) return Isa::baseline;
    if (std::strcmp(asked, "avx2") == 0 && widest == Isa::avx512) return Isa::avx2;
  }
  return widest;
#else
  return Isa::baseline;
#endif
}

}  // namespace

Isa machine_isa() {
  static const Isa isa = detect();
  return isa;
}

}  // namespace gnnscript
