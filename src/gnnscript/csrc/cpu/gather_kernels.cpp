#include "cpu/gather.h"

namespace gnnscript {
namespace GNNSCRIPT_ISA {
namespace {

// Of a size known to the compiler where that is a common one: a call per row would cost more than
// the copy.
template <typename F>
inline void dispatch_bytes(int64_t bytes, const F& f) {
  switch (bytes) {
    case 2:
      return f([](char* to, const char* from) { __builtin_memcpy(to, from, 2); });
    case 4:
      return f([](char* to, const char* from) { __builtin_memcpy(to, from, 4); });
    case 8:
      return f([](char* to, const char* from) { __builtin_memcpy(to, from, 8); });
    case 16:
      return f([](char* to, const char* from) { __builtin_memcpy(to, from, 16); });
    case 32:
      return f([](char* to, const char* from) { __builtin_memcpy(to, from, 32); });
    case 64:
      return f([](char* to, const char* from) { __builtin_memcpy(to, from, 64); });
    case 128:
      return f([](char* to, const char* from) { __builtin_memcpy(to, from, 128); });
    case 256:
      return f([](char* to, const char* from) { __builtin_memcpy(to, from, 256); });
    default:
      return f([bytes](char* to, const char* from) { __builtin_memcpy(to, from, bytes); });
  }
}

template <typename I>
void gather(GatherArgs& args) {
  const I* index = static_cast<const I*>(args.index);
  const int64_t each = chunk_units(args.bytes);
  dispatch_bytes(args.bytes, [&](const auto& copy) {
    parallel_tasks(ceil_div(args.edges, each), [&](int64_t task) {
      const int64_t begin = task * each;
      const int64_t end = begin + each < args.edges ? begin + each : args.edges;
      const int64_t bad = find_outside(index, begin, end, args.nodes);
      if (bad >= 0) return report(&args.bad, bad);
      for (int64_t i = begin; i < end; ++i) {
        const int64_t ahead = i + kPrefetchAhead < end ? i + kPrefetchAhead : end - 1;
        const char* next = args.src + index[ahead] * args.stride;
        for (int64_t byte = 0; byte < args.bytes && byte < 256; byte += 64) {
          __builtin_prefetch(next + byte);
        }
        copy(args.out + i * args.bytes, args.src + index[i] * args.stride);
      }
    });
  });
}

}  // namespace

void gather_rows(GatherArgs& args) { args.wide ? gather<int64_t>(args) : gather<int32_t>(args); }

void expand_rows(ExpandArgs& args) {
  dispatch_bytes(args.bytes, [&](const auto& copy) {
    parallel_tasks(args.rows.chunks(), [&](int64_t chunk) {
      if (args.perm != nullptr) {
        int64_t begin, end;
        args.rows.edges(chunk, &begin, &end);
        const int64_t bad = find_outside(args.perm, begin, end, args.edges);
        if (bad >= 0) return report(&args.bad, bad);
      }
      args.rows.for_each(chunk, [&](int64_t row, int64_t begin, int64_t end, bool, bool) {
        const char* from = args.src + row * args.stride;
        for (int64_t i = begin; i < end; ++i) {
          copy(args.out + (args.perm != nullptr ? args.perm[i] : i) * args.bytes, from);
        }
      });
    });
  });
}

}  // namespace GNNSCRIPT_ISA
}  // namespace gnnscript
