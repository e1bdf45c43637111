#include "cpu/gather.h"

#include "checks.h"
#include "registration.h"
#include "rows_checks.h"

namespace gnnscript {
namespace {

Tensor gather(const Tensor& src_given, const Tensor& index_given) {
  check(src_given.dim() >= 1, "expected src with a dimension of nodes, got a scalar");
  check_index(index_given, "index");
  check_same_device(src_given, index_given, "src", "index");
  const Tensor src = rows_contiguous(src_given);
  const Tensor index = torch::stable::contiguous(index_given);
  Tensor out = empty_with(src, sizes_with(src, index.numel()));
  const int64_t width = static_cast<int64_t>(src.element_size());

  GatherArgs args{};
  args.src = static_cast<const char*>(src.const_data_ptr());
  args.index = index.const_data_ptr();
  args.wide = is_wide(index);
  args.out = static_cast<char*>(out.mutable_data_ptr());
  args.nodes = src.size(0);
  args.edges = index.numel();
  args.bytes = features_of(src) * width;
  args.stride = src.stride(0) * width;
  args.bad = -1;
  GNNSCRIPT_SELECT(gather_rows)(args);
  if (args.bad >= 0) {
    out_of_range("index", args.bad, value_at(index, args.bad), args.nodes, "the rows of src");
  }
  return out;
}

Tensor segment_expand(const Tensor& src_given, const Tensor& ptr, const std::optional<Tensor>& perm,
                      int64_t edges) {
  check(src_given.dim() >= 1, "expected src with a dimension of nodes, got a scalar");
  const Sorted sorted(src_given, edges, ptr, perm);
  check(src_given.size(0) == sorted.num_rows(), "expected src with ", sorted.num_rows(),
        " rows, one for each of ptr, got ", src_given.size(0));
  const Tensor src = rows_contiguous(src_given);
  const std::vector<int64_t> sizes = sizes_with(src, edges);
  Tensor out = sorted.complete()
                   ? empty_with(src, sizes)
                   : torch::stable::new_zeros(src, {sizes.data(), sizes.size()});
  const int64_t width = static_cast<int64_t>(src.element_size());

  ExpandArgs args{};
  args.src = static_cast<const char*>(src.const_data_ptr());
  args.perm = sorted.perm_data();
  args.out = static_cast<char*>(out.mutable_data_ptr());
  args.edges = edges;
  args.bytes = features_of(src) * width;
  args.stride = src.stride(0) * width;
  args.rows = sorted.rows(args.bytes);
  args.bad = -1;
  GNNSCRIPT_SELECT(expand_rows)(args);
  if (args.bad >= 0) sorted.throw_bad_perm(args.bad);
  return out;
}

}  // namespace

GNNSCRIPT_IMPLEMENT(CPU, m) {
  m.impl("gather", TORCH_BOX(&gather));
  m.impl("segment_expand", TORCH_BOX(&segment_expand));
}

}  // namespace gnnscript
