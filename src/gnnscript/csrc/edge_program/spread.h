// How the values of one row spread over the lanes, the flattened feature dimensions of the result.
#pragma once

#include <cstdint>

namespace gnnscript {

enum class Spread : int32_t {
  full,    // one value per lane
  scalar,  // one value for all lanes
  repeat,  // each value for `period` neighbouring lanes: [H, 1] in [H, C]
  tile,    // `period` values, again and again: [C] in [H, C]
  table,   // any other broadcast: where each lane finds its value
};

struct EdgeOperand {
  const void* data;
  int64_t row_stride;  // in values; 0 where all rows are one
  char side;           // i, j, e, s
  Spread spread;
  int64_t period;
  const int32_t* table;  // [lanes]
  uint32_t broadcast;    // bit d: feature dimension d is broadcast
};

}  // namespace gnnscript
