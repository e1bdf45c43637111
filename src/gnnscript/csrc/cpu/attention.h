// What the torch side of attention over rows and its kernels have in common. No torch here.
#pragma once

#include "cpu/edge_program.h"

namespace gnnscript {

// One call. Each edge has a score per head, and a message of `message.lanes` features, the first
// lanes / heads of which belong to the first head.
struct AttentionArgs {
  EdgeArgs score;    // its group is what lanes are summed to a score; has the indices of both
  EdgeArgs message;  // rows, perm, out, partials [chunks, 2, 2 heads + lanes] of the compute type
  int64_t heads;
  // Of each row, [rows, heads] of the compute type: the largest score, and the sum of exponentials
  // of what the scores are below it; 0 and 1 without edges.
  void* high;
  void* total;
  // The gradient: of the result, [rows, lanes]; its weighted mean over the row's edges, [rows, heads]
  // of the compute type; and what becomes of it, [edges, heads] in the order of the edges.
  const void* grad;
  const void* mean;
  void* weight;
  void* slope;
};

// Rows of messages, weighted by the softmax of the scores.
GNNSCRIPT_KERNEL(attention_forward, AttentionArgs&)
// The weights, and the gradient of the scores.
GNNSCRIPT_KERNEL(attention_backward, AttentionArgs&)

}  // namespace gnnscript
