#include "cpu/segment_reducer.h"

namespace gnnscript {
namespace GNNSCRIPT_ISA {

void segment_reduce(SegmentArgs& args) {
  dispatch_dtype(args.dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    switch (args.reduce) {
      case Reduce::sum:
        return SegmentReducer<SumReduction, T>(args).run();
      case Reduce::mean:
        return SegmentReducer<MeanReduction, T>(args).run();
      case Reduce::min:
        return SegmentReducer<MinReduction, T>(args).run();
      case Reduce::max:
        return SegmentReducer<MaxReduction, T>(args).run();
      case Reduce::mul:
        return SegmentReducer<MulReduction, T>(args).run();
      case Reduce::any:
        return SegmentReducer<AnyReduction, T>(args).run();
      case Reduce::var:
        return SegmentReducer<VarReduction, T>(args).run();
      case Reduce::std:
        return SegmentReducer<StdReduction, T>(args).run();
      case Reduce::logsumexp:
        return SegmentReducer<LogSumExpReduction, T>(args).run();
      case Reduce::statistics:
        return SegmentReducer<StatisticsReduction, T>(args).run();
      case Reduce::mean_wide:
        return SegmentReducer<WideMeanReduction, T>(args).run();
      case Reduce::ties:
        return SegmentReducer<TiesReduction, T>(args).run();
      case Reduce::products:
        return SegmentReducer<ProductsReduction, T>(args).run();
    }
  });
}

}  // namespace GNNSCRIPT_ISA
}  // namespace gnnscript
