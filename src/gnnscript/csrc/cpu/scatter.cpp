#include "cpu/scatter.h"

#include "registration.h"
#include "segment_ops.h"

namespace gnnscript {
namespace {

Tensor scatter_reduce(const Tensor& src_given, const Tensor& index_given, int64_t size,
                      const std::string& name) {
  const Reduce reduce = check_scattered(src_given, index_given, size, name);
  const Tensor src = rows_contiguous(src_given);
  const Tensor index = torch::stable::contiguous(index_given);
  ScatterArgs args{};
  args.dtype = check_floating(src, "src");
  args.reduce = reduce;
  args.src = src.const_data_ptr();
  args.stride = src.stride(0);
  args.index = index.const_data_ptr();
  args.wide = is_wide(index);
  args.edges = index.numel();
  args.features = features_of(src);
  args.size = size;
  args.parts = scatter_parts(args.edges, size);
  args.bad = -1;
  Tensor out = empty_with(src, sizes_with(src, size));
  const int64_t width = args.dtype == Dtype::float64 ? 8 : 4;
  const int64_t rows = args.parts * size;
  const Tensor states = empty_bytes(src, rows * args.features * width);
  const Tensor counts = empty_bytes(src, rows * static_cast<int64_t>(sizeof(uint32_t)));
  args.out = out.mutable_data_ptr();
  args.states = states.mutable_data_ptr();
  args.counts = counts.mutable_data_ptr();
  GNNSCRIPT_SELECT(scatter_reduce)(args);
  if (args.bad >= 0) {
    out_of_range("index", args.bad, value_at(index, args.bad), size, "the number of nodes");
  }
  return out;
}

}  // namespace

GNNSCRIPT_IMPLEMENT(CPU, m) {
  m.impl("scatter_reduce", TORCH_BOX(&scatter_reduce));
}

}  // namespace gnnscript
