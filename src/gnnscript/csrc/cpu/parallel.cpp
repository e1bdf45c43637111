#include "parallel.h"

#include <torch/csrc/stable/ops.h>

#include "isa.h"

namespace gnnscript {

void run_tasks(int64_t tasks, void (*run)(void*, int64_t), void* context) {
  torch::stable::parallel_for(0, tasks, 1, [=](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) run(context, task);
  });
}

}  // namespace gnnscript
