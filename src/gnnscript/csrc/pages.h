// Large pages for large results.
//
// The operating system hands out memory page by page as it is first written. At 4 KiB a page, that
// takes as long as sorting ten million edges does; at 2 MiB, a fraction of it.
#pragma once

#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace gnnscript {

// Asks for large pages where whole ones lie within [data, data + bytes), all of which will be
// written: no memory is taken that would not be. Where the system has none, nothing happens.
inline void prefer_large_pages([[maybe_unused]] void* data, [[maybe_unused]] int64_t bytes) {
#if defined(MADV_HUGEPAGE)
  constexpr uintptr_t page = uintptr_t{1} << 21;
  const uintptr_t first = reinterpret_cast<uintptr_t>(data);
  const uintptr_t begin = (first + page - 1) / page * page;
  const uintptr_t end = (first + static_cast<uintptr_t>(bytes)) / page * page;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

}  // namespace gnnscript
