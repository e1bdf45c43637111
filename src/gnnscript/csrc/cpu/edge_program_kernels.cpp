#include "cpu/edge_program.h"

#include "cpu/edge_direct.h"
#include "cpu/edge_sums.h"

namespace gnnscript {
namespace GNNSCRIPT_ISA {
namespace {

// -- edge_reduce ----------------------------------------------------------------------------------

template <EdgeReduction R, typename T>
struct Reducer {
  using A = compute_t<T>;
  EdgeArgs& args;
  Direct direct;
  bool is_direct;

  explicit Reducer(EdgeArgs& given) : args(given) {
    is_direct = sizeof(T) == sizeof(A) && find_direct(args, &direct);
  }

  // What a chunk keeps of a row that began before it (0), and of one that goes on after it (1).
  A* part(int64_t chunk, int64_t which) const {
    return static_cast<A*>(args.partials) + (2 * chunk + which) * args.lanes;
  }

  void write(int64_t row, A* sums, int64_t first, int64_t lanes) const {
    const int64_t degree = args.rows.ptr[row + 1] - args.rows.ptr[row];
    if (R == EdgeReduction::mean && degree > 0) {
      for (int64_t l = 0; l < lanes; ++l) sums[l] = sums[l] / static_cast<A>(degree);
    }
    if (R != EdgeReduction::mul && degree == 0) {
      for (int64_t l = 0; l < lanes; ++l) sums[l] = A(0);
    }
    narrow(static_cast<T*>(args.out) + row * args.lanes + first, sums, lanes);
  }

  void run_chunk(int64_t chunk, Workspace<T>& work) const {
    int64_t begin = 0, end = 0;
    args.rows.edges(chunk, &begin, &end);
    if (!work.resolve(args, begin, end)) return;
    const int64_t tile = is_direct ? args.lanes : work.tile;
    for (int64_t first = 0; first < args.lanes; first += tile) {
      const int64_t lanes = args.lanes - first < tile ? args.lanes - first : tile;
      if (!is_direct) work.prepare(first, lanes);
      int64_t block_begin = begin, block_end = begin;
      const A* values = nullptr;
      args.rows.for_each(chunk, [&](int64_t row, int64_t from, int64_t to, bool opens, bool closes) {
        for (int64_t l = 0; l < lanes; ++l) work.sums[l] = first_value<R, A>();
        if (is_direct) reduce_direct<R>(direct, work.ids, from - begin, to - from, lanes, work.sums);
        for (int64_t at = from; at < to && !is_direct;) {
          if (at == block_end) {
            block_begin = at;
            block_end = at + work.block < end ? at + work.block : end;
            values = work.evaluate(block_begin - begin, block_end - block_begin, first, lanes);
          }
          const int64_t stop = to < block_end ? to : block_end;
          accumulate<R>(work.sums, values + (at - block_begin) * lanes, stop - at, lanes);
          at = stop;
        }
        if (opens && closes) {
          write(row, work.sums, first, lanes);
        } else {
          A* to_part = part(chunk, opens ? 1 : 0) + first;
          for (int64_t l = 0; l < lanes; ++l) to_part[l] = work.sums[l];
        }
      });
    }
  }

  // Joins the parts of rows that several chunks share, in the order of the chunks.
  void join() const {
    const int64_t chunks = args.rows.chunks();
    for (int64_t chunk = 0; chunk + 1 < chunks; ++chunk) {
      const int64_t row = args.rows.row_of((chunk + 1) * args.rows.chunk - 1);
      const int64_t start = args.rows.start(row);
      const bool opens_here = start >= chunk * args.rows.chunk;
      if (!opens_here || args.rows.start(row + 1) <= (chunk + 1) * args.rows.chunk) continue;
      A* sums = part(chunk, 1);
      for (int64_t next = chunk + 1; next < chunks && next * args.rows.chunk < args.rows.start(row + 1);
           ++next) {
        accumulate<R>(sums, part(next, 0), 1, args.lanes);
      }
      write(row, sums, 0, args.lanes);
    }
  }

  void run() const {
    const int64_t chunks = args.rows.chunks();
    const int64_t batch = ceil_div(chunks, 64);  // of chunks that share a workspace
    parallel_tasks(ceil_div(chunks, batch > 0 ? batch : 1), [&](int64_t task) {
      Workspace<T> work(args, args.rows.chunk);
      const int64_t last = (task + 1) * batch < chunks ? (task + 1) * batch : chunks;
      for (int64_t chunk = task * batch; chunk < last; ++chunk) run_chunk(chunk, work);
    });
    if (args.bad_edge < 0 && args.bad_index < 0 && args.bad_other < 0) join();
  }
};

template <EdgeReduction R>
void reduce_as(EdgeArgs& args) {
  dispatch_dtype(args.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    Reducer<R, T>(args).run();
  });
}

}  // namespace

void edge_reduce(EdgeArgs& args) {
  switch (args.reduction) {
    case EdgeReduction::sum: return reduce_as<EdgeReduction::sum>(args);
    case EdgeReduction::mean: return reduce_as<EdgeReduction::mean>(args);
    case EdgeReduction::min: return reduce_as<EdgeReduction::min>(args);
    case EdgeReduction::max: return reduce_as<EdgeReduction::max>(args);
    case EdgeReduction::mul: return reduce_as<EdgeReduction::mul>(args);
  }
}

void edge_map(EdgeArgs& args) {
  dispatch_dtype(args.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const int64_t size = chunk_units(args.lanes * int64_t{sizeof(T)});
    const int64_t chunks = ceil_div(args.edges, size);
    const int64_t batch = ceil_div(chunks, 64);
    const int64_t groups = args.lanes / args.group;
    parallel_tasks(ceil_div(chunks, batch > 0 ? batch : 1), [&](int64_t task) {
      Workspace<T> work(args, size);
      const int64_t last = (task + 1) * batch < chunks ? (task + 1) * batch : chunks;
      for (int64_t chunk = task * batch; chunk < last; ++chunk) {
        const int64_t begin = chunk * size;
        const int64_t end = begin + size < args.edges ? begin + size : args.edges;
        if (!work.resolve(args, begin, end)) continue;
        sum_edges<T>(args, work, end - begin, static_cast<T*>(args.out) + begin * groups);
      }
    });
  });
}

}  // namespace GNNSCRIPT_ISA
}  // namespace gnnscript
