#include "cpu/csr.h"

#include <algorithm>
#include <tuple>

#include "checks.h"
#include "registration.h"

namespace gnnscript {

std::tuple<Tensor, Tensor> csr(const Tensor& index_given, int64_t size) {
  check_index(index_given, "index");
  check(size >= 0, "expected a number of nodes, got size ", size);
  const Tensor index = torch::stable::contiguous(index_given);
  const int64_t edges = index.numel();
  Tensor ptr = empty_int64(index, size + 1);
  Tensor perm = empty_int64(index, edges);

  CsrArgs args{};
  args.index = index.const_data_ptr();
  args.wide = is_wide(index);
  args.edges = edges;
  args.size = size;
  args.ptr = ptr.mutable_data_ptr<int64_t>();
  args.perm = perm.mutable_data_ptr<int64_t>();
  args.bad = -1;
  GNNSCRIPT_SELECT(csr_scan)(args);
  std::optional<Tensor> counts;
  if (!args.sorted) {
    // Counting on its own pays for a thread that has more edges than there are nodes.
    const int64_t threads = torch::stable::get_num_threads();
    const int64_t worth = edges / std::max<int64_t>(size, 1 << 13);
    args.parts = std::clamp<int64_t>(worth, 1, threads);
    counts = empty_bytes(index, args.parts * size * (csr_wide_counts(edges) ? 8 : 4));
    args.counts = counts->mutable_data_ptr();
  }
  GNNSCRIPT_SELECT(csr_fill)(args);
  if (args.bad >= 0) {
    out_of_range("index", args.bad, value_at(index, args.bad), size, "the number of nodes");
  }
  return {ptr, perm};
}

GNNSCRIPT_IMPLEMENT(CPU, m) { m.impl("csr", TORCH_BOX(&csr)); }

}  // namespace gnnscript
