#include "cpu/attention.h"

#include "cpu/edge_direct.h"
#include "cpu/edge_sums.h"

namespace gnnscript {
namespace GNNSCRIPT_ISA {
namespace {

// -- rows of scores, `heads` side by side ---------------------------------------------------------

// The largest score of each head, from the column on.
template <int W, typename A>
void take_maxima(A* high, const A* x, int64_t count, int64_t heads, int64_t column = 0) {
  if constexpr (W >= 1) {
    for (; heads - column >= W; column += W) {
      Vector<A, W> m = Vector<A, W>{} - A(__builtin_inf());
      for (int64_t k = 0; k < count; ++k) m = maximum(m, load<A, W>(x + k * heads + column));
      store<A, W>(high + column, m);
    }
    take_maxima<W / 2>(high, x, count, heads, column);
  }
}

// What scores are taken below: the largest of them. Edges that are all at negative infinity weigh
// nothing against others of their row, which another chunk may have.
template <int W, typename A>
GNNSCRIPT_ALWAYS Vector<A, W> reference_of(Vector<A, W> high) {
  return high == -A(__builtin_inf()) ? Vector<A, W>{} : high;
}

template <int W, typename A>
void subtract_maxima(A* x, const A* high, int64_t count, int64_t heads, int64_t column = 0) {
  if constexpr (W >= 1) {
    for (; heads - column >= W; column += W) {
      const auto r = reference_of<W, A>(load<A, W>(high + column));
      for (int64_t k = 0; k < count; ++k) {
        A* at = x + k * heads + column;
        store<A, W>(at, load<A, W>(at) - r);
      }
    }
    subtract_maxima<W / 2>(x, high, count, heads, column);
  }
}

template <int W, typename A>
void add_up(A* total, const A* x, int64_t count, int64_t heads, int64_t column = 0) {
  if constexpr (W >= 1) {
    for (; heads - column >= W; column += W) {
      Vector<A, W> sum{};
      for (int64_t k = 0; k < count; ++k) sum = sum + load<A, W>(x + k * heads + column);
      store<A, W>(total + column, sum);
    }
    add_up<W / 2>(total, x, count, heads, column);
  }
}

// Whole vectors: the buffer ends in a spare one.
template <typename A>
void exponentials(A* x, int64_t count) {
  constexpr int W = kLanes<A>;
  for (int64_t l = 0; l < count; l += W) store<A, W>(x + l, exponential<A, W>(load<A, W>(x + l)));
}

// Adds messages to `sums`, each head's times its weight: lanes [first, first + lanes) of `count`
// edges, in vectors that no head's end cuts.
template <int W, typename A>
void add_weighted(A* sums, const A* values, const A* weights, int64_t count, int64_t first,
                  int64_t lanes, int64_t heads, int64_t period) {
  if constexpr (W > 1) {
    if (period % W != 0 || first % W != 0 || lanes % W != 0) {
      return add_weighted<W / 2>(sums, values, weights, count, first, lanes, heads, period);
    }
  }
  for (int64_t l = 0; l < lanes; l += W) {
    const A* w = weights + (first + l) / period;
    auto sum = load<A, W>(sums + l);
    for (int64_t k = 0; k < count; ++k) {
      sum = sum + load<A, W>(values + k * lanes + l) * w[k * heads];
    }
    store<A, W>(sums + l, sum);
  }
}

// The sum of products, in sixteen lanes like sum_of.
template <typename A, typename T>
GNNSCRIPT_ALWAYS A dot(const A* x, const T* y, int64_t count) {
  constexpr int W = 16;
  A total = A(0);
  int64_t k = 0;
  if (count >= W) {
    Vector<A, W> partial = load<A, W>(x) * load<A, W>(y);
    for (k = W; k + W <= count; k += W) {
      partial = partial + load<A, W>(x + k) * load<A, W>(y + k);
    }
    total = sum_lanes<A, W>(partial);
  }
  if (k + 8 <= count) {
    total = total + sum_lanes<A, 8>(load<A, 8>(x + k) * load<A, 8>(y + k));
    k += 8;
  }
  if (k + 4 <= count) {
    total = total + sum_lanes<A, 4>(load<A, 4>(x + k) * load<A, 4>(y + k));
    k += 4;
  }
  for (; k < count; ++k) total = total + x[k] * load<A, 1>(y + k);
  return total;
}

// The scores of a chunk of edges, and their positions: two pieces of memory of a task.
template <typename T, typename A = compute_t<T>>
class Scores {
 public:
  Scores(int64_t edges, int64_t heads)
      : memory_(allocate_scratch((edges + 16) * int64_t{sizeof(int64_t)} +
                                 2 * (edges * heads + 16) * int64_t{sizeof(A)})) {
    positions = reinterpret_cast<int64_t*>(memory_);
    for (int64_t k = 0; k < edges + 16; ++k) positions[k] = k;
    values = reinterpret_cast<A*>(positions + edges + 16);
    slopes = values + edges * heads + 16;
    for (int64_t k = 0; k < 2 * (edges * heads + 16); ++k) values[k] = A(0);
  }
  ~Scores() { free_scratch(memory_); }
  Scores(const Scores&) = delete;
  Scores& operator=(const Scores&) = delete;

  int64_t* positions;
  A* values;  // [edges, heads], and a spare vector
  A* slopes;  // the same, for the gradient

 private:
  char* memory_;
};

// What the two directions share.
template <typename T>
struct Attention {
  using A = compute_t<T>;
  AttentionArgs& args;
  int64_t heads, lanes, period;
  bool is_direct;  // the message is the other side's row, read where it is

  explicit Attention(AttentionArgs& given)
      : args(given),
        heads(given.heads),
        lanes(given.message.lanes),
        period(given.message.lanes / given.heads) {
    const Program& program = *args.message.program;
    is_direct = sizeof(T) == sizeof(A) && program.pattern == Pattern::other_row && lanes >= 16 &&
                args.message.operands[program.pattern_other].spread == Spread::full;
  }

  const EdgeOperand& other_row() const {
    return args.message.operands[args.message.program->pattern_other];
  }

  // Calls run(chunk, begin, end, score, message, scores) for the sorted edges of each chunk, with
  // the workspaces of both programs; their ids are found, but for chunks with bad ones.
  template <typename F>
  void for_chunks(const F& run) const {
    const Rows& rows = args.message.rows;
    const int64_t chunks = rows.chunks(), size = rows.chunk;
    const int64_t batch = ceil_div(chunks, 64);
    parallel_tasks(ceil_div(chunks, batch > 0 ? batch : 1), [&](int64_t task) {
      Workspace<T> score(args.score, size), message(args.message, size);
      Scores<T> scores(size, heads);
      message.ids = score.ids;
      const int64_t last = (task + 1) * batch < chunks ? (task + 1) * batch : chunks;
      for (int64_t chunk = task * batch; chunk < last; ++chunk) {
        int64_t begin = 0, end = 0;
        rows.edges(chunk, &begin, &end);
        if (!score.resolve(args.score, begin, end)) continue;
        // The node of an edge is its row: reading it off `index` would be to look all over memory.
        rows.for_each(chunk, [&](int64_t row, int64_t from, int64_t to, bool, bool) {
          for (int64_t k = from; k < to; ++k) score.ids.index[k - begin] = row;
        });
        run(chunk, begin, end, score, message, scores);
      }
    });
  }

  bool is_sound() const { return args.score.bad_edge < 0 && args.score.bad_other < 0; }
};

// -- forward --------------------------------------------------------------------------------------

template <typename T>
struct Forward : Attention<T> {
  using Base = Attention<T>;
  using typename Base::A;
  using Base::args, Base::heads, Base::is_direct, Base::lanes, Base::period;
  const Rows& rows;

  explicit Forward(AttentionArgs& given) : Base(given), rows(given.message.rows) {}

  // What a chunk keeps of a row that began before it (0), and of one that goes on after it (1): the
  // largest scores, the sums of exponentials, and the sums of messages.
  A* part(int64_t chunk, int64_t which) const {
    return static_cast<A*>(args.message.partials) + (2 * chunk + which) * (2 * heads + lanes);
  }
  A* high_of(int64_t row) const { return static_cast<A*>(args.high) + row * heads; }
  A* total_of(int64_t row) const { return static_cast<A*>(args.total) + row * heads; }

  // The messages of a row over its total, lanes [first, first + count).
  void write(int64_t row, A* sums, int64_t first, int64_t count) const {
    const A* total = total_of(row);
    for (int64_t l = 0; l < count; ++l) sums[l] = sums[l] / total[(first + l) / period];
    narrow(static_cast<T*>(args.message.out) + row * lanes + first, sums, count);
  }

  void write_empty(int64_t row) const {
    for (int64_t h = 0; h < heads; ++h) {
      high_of(row)[h] = A(0);
      total_of(row)[h] = A(1);
    }
    __builtin_memset(static_cast<T*>(args.message.out) + row * lanes, 0, lanes * sizeof(T));
  }

  // Turns the scores of a chunk into weights, each row's against the largest of its part.
  void weigh(int64_t chunk, int64_t begin, int64_t end, A* scores) const {
    constexpr int W = kLanes<A>;
    rows.for_each(chunk, [&](int64_t row, int64_t from, int64_t to, bool opens, bool closes) {
      A* high = opens && closes ? high_of(row) : part(chunk, opens ? 1 : 0);
      take_maxima<W>(high, scores + (from - begin) * heads, to - from, heads);
      subtract_maxima<W>(scores + (from - begin) * heads, high, to - from, heads);
    });
    exponentials(scores, (end - begin) * heads);
    rows.for_each(chunk, [&](int64_t row, int64_t from, int64_t to, bool opens, bool closes) {
      A* total = opens && closes ? total_of(row) : part(chunk, opens ? 1 : 0) + heads;
      add_up<W>(total, scores + (from - begin) * heads, to - from, heads);
    });
  }

  void run_chunk(int64_t chunk, int64_t begin, int64_t end, Workspace<T>& score,
                 Workspace<T>& message, Scores<T>& scores) const {
    sum_edges<T>(args.score, score, end - begin, scores.values);
    weigh(chunk, begin, end, scores.values);
    const int64_t tile = is_direct ? lanes : message.tile;
    for (int64_t first = 0; first < lanes; first += tile) {
      add_messages(chunk, begin, end, first, lanes - first < tile ? lanes - first : tile, message,
                   scores);
    }
  }

  void add_messages(int64_t chunk, int64_t begin, int64_t end, int64_t first, int64_t count,
                    Workspace<T>& message, const Scores<T>& scores) const {
    EdgeOperand weight{};
    weight.data = scores.values;
    weight.row_stride = heads;
    Direct direct;
    if (is_direct) {
      direct.other = &this->other_row();
      direct.weight = &weight;
      direct.period = heads == lanes && heads > 1 ? 0 : period;
    } else {
      message.prepare(first, count);
    }
    const Ids ids{scores.positions, message.ids.index, message.ids.other};
    int64_t block_begin = begin, block_end = begin;
    const A* values = nullptr;
    rows.for_each(chunk, [&](int64_t row, int64_t from, int64_t to, bool opens, bool closes) {
      if (opens && closes && from == to) return write_empty(row);
      A* sums = message.sums;
      for (int64_t l = 0; l < count; ++l) sums[l] = A(0);
      if (is_direct) {
        reduce_direct<EdgeReduction::sum>(direct, ids, from - begin, to - from, lanes, sums);
      }
      for (int64_t at = from; at < to && !is_direct;) {
        if (at == block_end) {
          block_begin = at;
          block_end = at + message.block < end ? at + message.block : end;
          values = message.evaluate(block_begin - begin, block_end - block_begin, first, count);
        }
        const int64_t stop = to < block_end ? to : block_end;
        add_weighted<kLanes<A>>(sums, values + (at - block_begin) * count,
                                scores.values + (at - begin) * heads, stop - at, first, count,
                                heads, period);
        at = stop;
      }
      if (opens && closes) {
        write(row, sums, first, count);
      } else {
        A* kept = part(chunk, opens ? 1 : 0) + 2 * heads + first;
        for (int64_t l = 0; l < count; ++l) kept[l] = sums[l];
      }
    });
  }

  // Takes a part of a row into what is kept of it.
  void merge(A* kept, const A* next) const {
    A* sums = kept + 2 * heads;
    const A* more = next + 2 * heads;
    for (int64_t h = 0; h < heads; ++h) {
      const A high = maximum(kept[h], next[h]), reference = reference_of<1, A>(high);
      const A own = exponential<A, 1>(kept[h] - reference);
      const A its = exponential<A, 1>(next[h] - reference);
      kept[h] = high;
      kept[heads + h] = kept[heads + h] * own + next[heads + h] * its;
      for (int64_t l = h * period; l < (h + 1) * period; ++l) {
        sums[l] = sums[l] * own + more[l] * its;
      }
    }
  }

  // Joins the parts of rows that several chunks share, in the order of the chunks.
  void join() const {
    const int64_t chunks = rows.chunks();
    for (int64_t chunk = 0; chunk + 1 < chunks; ++chunk) {
      const int64_t row = rows.row_of((chunk + 1) * rows.chunk - 1);
      const bool opens_here = rows.start(row) >= chunk * rows.chunk;
      if (!opens_here || rows.start(row + 1) <= (chunk + 1) * rows.chunk) continue;
      A* kept = part(chunk, 1);
      const int64_t last = (rows.start(row + 1) - 1) / rows.chunk;
      for (int64_t next = chunk + 1; next <= last; ++next) merge(kept, part(next, 0));
      for (int64_t h = 0; h < heads; ++h) {
        high_of(row)[h] = kept[h];
        total_of(row)[h] = kept[heads + h];
      }
      write(row, kept + 2 * heads, 0, lanes);
    }
  }

  void run() const {
    this->for_chunks([&](int64_t chunk, int64_t begin, int64_t end, Workspace<T>& score,
                         Workspace<T>& message, Scores<T>& scores) {
      run_chunk(chunk, begin, end, score, message, scores);
    });
    if (this->is_sound()) join();
  }
};

// -- backward -------------------------------------------------------------------------------------

template <typename T>
struct Backward : Attention<T> {
  using Base = Attention<T>;
  using typename Base::A;
  using Base::args, Base::heads, Base::is_direct, Base::lanes, Base::period;
  using Base::Base;

  const T* grad_of(int64_t row) const { return static_cast<const T*>(args.grad) + row * lanes; }

  // How much of the gradient goes along each edge's message: a dot product for every head.
  void project(int64_t count, Workspace<T>& message, A* slopes) const {
    if (is_direct) {
      const EdgeOperand& other = this->other_row();
      const A* source = static_cast<const A*>(other.data);
      const int64_t* others = message.ids.other;
      for (int64_t k = 0; k < count; ++k) {
        prefetch(source + others[k + kPrefetchAhead] * other.row_stride, lanes);
        add_dots(source + others[k] * other.row_stride, message.ids.index[k], 0, lanes,
                 slopes + k * heads);
      }
      return;
    }
    each_block<T>(args.message, message, count,
                  [&](int64_t start, int64_t size, int64_t first, int64_t width, const A* values) {
                    for (int64_t k = 0; k < size; ++k) {
                      add_dots(values + k * width, message.ids.index[start + k], first, width,
                               slopes + (start + k) * heads);
                    }
                  });
  }

  void add_dots(const A* values, int64_t row, int64_t first, int64_t width, A* to) const {
    const T* grad = grad_of(row) + first;
    for (int64_t l = 0; l < width;) {
      const int64_t head = (first + l) / period;
      const int64_t ends = (head + 1) * period - first;
      const int64_t stop = ends < width ? ends : width;
      to[head] += dot(values + l, grad + l, stop - l);
      l = stop;
    }
  }

  void run_chunk(int64_t begin, int64_t end, Workspace<T>& score, Workspace<T>& message,
                 Scores<T>& scores) const {
    const int64_t count = end - begin;
    const Ids& ids = score.ids;
    A* weights = scores.values;
    A* slopes = scores.slopes;
    sum_edges<T>(args.score, score, count, weights);
    for (int64_t k = 0; k < count; ++k) {
      const A* high = static_cast<const A*>(args.high) + ids.index[k] * heads;
      for (int64_t h = 0; h < heads; ++h) weights[k * heads + h] -= high[h];
    }
    exponentials(weights, count * heads);
    for (int64_t l = 0; l < count * heads; ++l) slopes[l] = A(0);
    project(count, message, slopes);
    for (int64_t k = 0; k < count; ++k) {
      const A* total = static_cast<const A*>(args.total) + ids.index[k] * heads;
      const A* mean = static_cast<const A*>(args.mean) + ids.index[k] * heads;
      T* weight = static_cast<T*>(args.weight) + ids.edge[k] * heads;
      T* slope = static_cast<T*>(args.slope) + ids.edge[k] * heads;
      for (int64_t h = 0; h < heads; ++h) {
        const A w = weights[k * heads + h] / total[h];
        store<A, 1>(weight + h, w);
        store<A, 1>(slope + h, w * (slopes[k * heads + h] - mean[h]));
      }
    }
  }

  void run() const {
    this->for_chunks([&](int64_t, int64_t begin, int64_t end, Workspace<T>& score,
                         Workspace<T>& message, Scores<T>& scores) {
      run_chunk(begin, end, score, message, scores);
    });
  }
};

}  // namespace

void attention_forward(AttentionArgs& args) {
  dispatch_dtype(args.score.dtype, [&](auto* type) {
    Forward<std::remove_pointer_t<decltype(type)>>(args).run();
  });
}

void attention_backward(AttentionArgs& args) {
  dispatch_dtype(args.score.dtype, [&](auto* type) {
    Backward<std::remove_pointer_t<decltype(type)>>(args).run();
  });
}

}  // namespace GNNSCRIPT_ISA
}  // namespace gnnscript
