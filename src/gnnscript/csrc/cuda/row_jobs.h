// Launching the kernels of rows.cuh. Host code.
#pragma once

#include "cuda/device.h"
#include "cuda/rows.cuh"

namespace gnnscript {

inline Walk walk_over(const Sorted& sorted, int64_t lanes) {
  Walk walk{};
  walk.ptr = sorted.ptr_data();
  walk.perm = sorted.perm_data();
  walk.rows = sorted.num_rows();
  walk.edges = sorted.edges();
  walk.lanes = lanes;
  walk.chunk = chunk_of(lanes);
  // How many units there are is known to the device: no more than these.
  walk.chunks = (walk.rows + walk.edges + walk.chunk - 1) / walk.chunk;
  return walk;
}

// Works on all chunks of a job by `launch_chunks`, and joins the rows that they share. `sorted` lives
// until this returns.
template <typename Op, typename Source, typename Sink, typename LaunchChunks>
void run_chunks(const DeviceScope& scope, const Sorted& sorted, const Tensor& like, int64_t lanes,
                RowJob<Op, Source, Sink>& job, const LaunchChunks& launch_chunks) {
  job.walk = walk_over(sorted, lanes);
  const int64_t chunks = job.walk.chunks;
  if (chunks == 0 || lanes == 0) return;
  const int64_t width = static_cast<int64_t>(sizeof(typename Source::Value));
  Tensor partials = empty_bytes(like, chunks * 2 * Op::kStates * lanes * width);
  Tensor open = empty_bytes(like, chunks * static_cast<int64_t>(sizeof(int64_t)));
  job.partials = partials.mutable_data_ptr();
  job.open = static_cast<int64_t*>(open.mutable_data_ptr());
  job.folds = chunks > 2 * kFold;
  launch_chunks();
  if (chunks == 1) return;
  if (job.folds) {
    launch(scope, (chunks + kFold - 1) / kFold * lanes, &fold_parts<Op, Source, Sink>, job);
  }
  launch(scope, chunks * lanes, &join_rows<Op, Source, Sink>, job);
}

// Reduces all rows; V lanes are worked on by one thread.
template <int V, typename Op, typename Source, typename Sink>
void reduce_rows(const DeviceScope& scope, const Sorted& sorted, const Tensor& like, int64_t lanes,
                 const Op& op, const Source& source, const Sink& sink) {
  RowJob<Op, Source, Sink> job{};
  job.op = op;
  job.source = source;
  job.sink = sink;
  run_chunks(scope, sorted, like, lanes, job, [&] {
    launch(scope, job.walk.chunks * (lanes / V), &reduce_chunks<V, Op, Source, Sink>, job);
  });
}

}  // namespace gnnscript
