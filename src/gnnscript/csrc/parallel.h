// Work is cut into tasks by its size alone, never by the number of threads: each task does the same
// in whatever thread it runs, so results are the same bits for any number of threads.
#pragma once

#include <cstdint>

namespace gnnscript {

// Runs `run(context, task)` for each task in [0, tasks), on the threads of torch. The kernels are
// free of torch: the library defines this in cpu/parallel.cpp, their test program with std::thread.
void run_tasks(int64_t tasks, void (*run)(void* context, int64_t task), void* context);

namespace {  // each instruction set keeps its own

template <typename F>
inline void parallel_tasks(int64_t tasks, const F& f) {
  if (tasks == 1) {
    f(int64_t{0});
  } else if (tasks > 1) {
    run_tasks(
        tasks, [](void* context, int64_t task) { (*static_cast<const F*>(context))(task); },
        const_cast<F*>(&f));
  }
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace
}  // namespace gnnscript
