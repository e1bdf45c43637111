// Neighbour search on CUDA: a block of queries meets all points of its examples, tile after tile in
// shared memory, and each thread keeps the neighbours of its query. Exact, and the same as on CPU.
#include <cub/device/device_scan.cuh>

#include "cuda/device.h"
#include "cuda/values.cuh"
#include "nearest.h"
#include "neighbors_ops.h"

namespace gnnscript {
namespace {

using GNNSCRIPT_ISA::Nearest;

constexpr int kGroup = 16;        // points whose distances are computed side by side
constexpr int kSlice = 128;       // coordinates of a tile
constexpr int kTile = kGroup * kSlice;

template <typename T>
struct SearchJob {
  const T* x;           // [points, dims]
  const T* y;           // [queries, dims]
  const int64_t* of_x;  // [examples + 1]
  const int64_t* of_y;
  int64_t examples, queries, dims;
  int64_t limit;         // most neighbours of a query
  T within;              // squared distances stay below it
  bool skip_same, by_distance, counted;
  int64_t* counts;       // [queries + 1]
  const int64_t* starts; // [queries + 1]
  int64_t* found;        // positions in x, those of a query from starts[query] on
  T* distances;

  // The example of a query; of examples that begin at one place all but the last are empty.
  __device__ __forceinline__ int64_t example_of(int64_t query) const {
    int64_t low = 0, high = examples - 1;
    while (low < high) {
      const int64_t middle = low + (high - low + 1) / 2;
      if (of_y[middle] <= query) low = middle;
      else high = middle - 1;
    }
    return low;
  }
};

// Calls take(distance, position), in the order of positions, for the points nearer than asked for.
// All threads of a block come here.
template <typename T, typename Take>
__device__ __forceinline__ void visit(const SearchJob<T>& job, T* tile, const Take& take) {
  const int64_t query = thread_number();
  const bool works = query < job.queries;
  const int64_t first = int64_t{blockIdx.x} * blockDim.x;
  const int64_t past = first + blockDim.x < job.queries ? first + blockDim.x : job.queries;
  const int64_t low = job.of_x[job.example_of(first)];
  const int64_t high = job.of_x[job.example_of(past - 1) + 1];
  const int64_t example = job.example_of(works ? query : past - 1);
  const int64_t begin = works ? job.of_x[example] : 0;
  const int64_t end = works ? job.of_x[example + 1] : 0;
  const int64_t same = job.skip_same ? query : -1;
  const int64_t slices = job.dims > kSlice ? (job.dims + kSlice - 1) / kSlice : 1;
  const int64_t points = job.dims > kSlice  ? kGroup
                         : job.dims > 0 ? kTile / job.dims / kGroup * kGroup
                                        : kTile;
  T sums[kGroup];
  for (int64_t at = low; at < high; at += points) {
    const int64_t stop = at + points < high ? at + points : high;
    for (int64_t slice = 0; slice < slices; ++slice) {
      const int64_t base = slice * kSlice;
      const int64_t width = job.dims - base < kSlice ? job.dims - base : kSlice;
      for (int64_t i = threadIdx.x; i < (stop - at) * width; i += blockDim.x) {
        tile[i] = job.x[(at + i / width) * job.dims + base + i % width];
      }
      __syncthreads();
      for (int64_t group = 0; group < stop - at; group += kGroup) {
        // With several slices there is one group, and its sums are kept.
        if (slice == 0) {
#pragma unroll
          for (int p = 0; p < kGroup; ++p) sums[p] = T(0);
        }
        if (at + group + kGroup <= begin || at + group >= end) continue;
        for (int64_t d = 0; d < width; ++d) {
          const T from = job.y[query * job.dims + base + d];
#pragma unroll
          for (int p = 0; p < kGroup; ++p) {
            const T difference = tile[(group + p) * width + d] - from;
            sums[p] += difference * difference;
          }
        }
        if (slice + 1 < slices) continue;
#pragma unroll
        for (int p = 0; p < kGroup; ++p) {
          const int64_t position = at + group + p;
          const bool own = position >= begin && position < end && position < stop;
          if (own && position != same && sums[p] < job.within) take(sums[p], position);
        }
      }
      __syncthreads();
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(128)
    count_neighbors(const __grid_constant__ SearchJob<T> job) {
  __shared__ T tile[kTile];
  int64_t count = 0;
  visit(job, tile, [&](T, int64_t) { ++count; });
  const int64_t query = thread_number();
  if (query < job.queries) job.counts[query] = count < job.limit ? count : job.limit;
}

// How many neighbours there is room for, where they are not counted.
template <typename T>
__global__ void __launch_bounds__(128) make_room(const __grid_constant__ SearchJob<T> job) {
  const int64_t query = thread_number();
  if (query >= job.queries) return;
  const int64_t example = job.example_of(query);
  const int64_t points = job.of_x[example + 1] - job.of_x[example];
  job.counts[query] = points < job.limit ? points : job.limit;
}

template <typename T>
__global__ void __launch_bounds__(128)
    find_neighbors(const __grid_constant__ SearchJob<T> job) {
  __shared__ T tile[kTile];
  const int64_t query = thread_number();
  const bool works = query < job.queries;
  const int64_t room = works ? job.counts[query] : 0;
  const int64_t start = works ? job.starts[query] : 0;
  Nearest<T> nearest{job.distances + start, job.found + start, 0, room, job.within};
  // Fewer were counted than may be kept: these are all, in the order of positions.
  const bool all = job.counted && room < job.limit;
  visit(job, tile, [&](T distance, int64_t position) {
    if (all) {
      if (nearest.size < room) nearest.position[nearest.size++] = position;
    } else if (room > 0 && nearest.takes(distance, position)) {
      nearest.add(distance, position);
    }
  });
  if (!works) return;
  if (!all) nearest.sort(job.by_distance);
  job.counts[query] = nearest.size;
}

__global__ void __launch_bounds__(128)
    write_pairs(const int64_t* counts, const int64_t* starts, const int64_t* places,
                const int64_t* found, int64_t queries, int64_t total, int64_t* out) {
  const int64_t query = thread_number();
  if (query >= queries) return;
  for (int64_t i = 0; i < counts[query]; ++i) {
    out[places[query] + i] = query;
    out[total + places[query] + i] = found[starts[query] + i];
  }
}

// A copy of values of the host, on the device of `like`.
Tensor on_device(const DeviceScope& scope, const Tensor& like, const std::vector<int64_t>& values) {
  Tensor copy = empty_int64(like, static_cast<int64_t>(values.size()));
  check_cuda(cudaMemcpyAsync(copy.mutable_data_ptr(), values.data(),
                             values.size() * sizeof(int64_t), cudaMemcpyHostToDevice,
                             scope.stream()));
  check_cuda(cudaStreamSynchronize(scope.stream()));
  return copy;
}

// starts[q]: the sum of the counts before q, for q up to `queries`; returns the sum of all.
int64_t add_up(const DeviceScope& scope, Tensor& counts, Tensor& starts, int64_t queries) {
  int64_t* from = counts.mutable_data_ptr<int64_t>();
  int64_t* to = starts.mutable_data_ptr<int64_t>();
  check_cuda(cudaMemsetAsync(from + queries, 0, sizeof(int64_t), scope.stream()));
  size_t bytes = 0;
  check_cuda(cub::DeviceScan::ExclusiveSum(nullptr, bytes, from, to, queries + 1, scope.stream()));
  Tensor workspace = empty_bytes(counts, static_cast<int64_t>(bytes > 0 ? bytes : 1));
  check_cuda(cub::DeviceScan::ExclusiveSum(workspace.mutable_data_ptr(), bytes, from, to,
                                           queries + 1, scope.stream()));
  return read_back(scope, static_cast<const int64_t*>(to) + queries, 1)[0];
}

template <typename T>
Tensor run_search(const Tensor& x, const Tensor& y, const std::vector<int64_t>& of_x,
                  const std::vector<int64_t>& of_y, const Question& question) {
  const DeviceScope scope(x);
  const Tensor device_of_x = on_device(scope, x, of_x), device_of_y = on_device(scope, x, of_y);
  const int64_t queries = y.size(0);
  SearchJob<T> job{};
  job.x = x.const_data_ptr<T>();
  job.y = y.const_data_ptr<T>();
  job.of_x = device_of_x.const_data_ptr<int64_t>();
  job.of_y = device_of_y.const_data_ptr<int64_t>();
  job.examples = static_cast<int64_t>(of_x.size()) - 1;
  job.queries = queries;
  job.dims = x.size(1);
  job.limit = std::max<int64_t>(std::min(question.limit, x.size(0)), 0);
  job.within = least_square(static_cast<T>(question.within));
  job.skip_same = question.skip_same;
  job.by_distance = question.by_distance;
  job.counted = counts_first(question, job.limit);
  Tensor counts = empty_int64(x, queries + 1), starts = empty_int64(x, queries + 1);
  Tensor places = empty_int64(x, queries + 1);
  job.counts = counts.mutable_data_ptr<int64_t>();
  job.starts = starts.mutable_data_ptr<int64_t>();
  int64_t total = 0;
  std::optional<Tensor> found, distances;
  if (queries > 0 && job.limit > 0) {
    const int64_t blocks = (queries + kThreads - 1) / kThreads;
    if (job.counted) launch_blocks(scope, blocks, kThreads, &count_neighbors<T>, job);
    else launch(scope, queries, &make_room<T>, job);
    const int64_t room = add_up(scope, counts, starts, queries);
    found = empty_int64(x, room);
    distances = empty_bytes(x, room * static_cast<int64_t>(sizeof(T)));
    job.found = found->mutable_data_ptr<int64_t>();
    job.distances = static_cast<T*>(distances->mutable_data_ptr());
    launch_blocks(scope, blocks, kThreads, &find_neighbors<T>, job);
    total = add_up(scope, counts, places, queries);
  }
  const int64_t shape[] = {2, total};
  Tensor out = torch::stable::new_empty(x, {shape, 2}, ScalarType::Long);
  if (total > 0) {
    launch(scope, queries, &write_pairs, job.counts, job.starts, places.const_data_ptr<int64_t>(),
           job.found, queries, total, out.mutable_data_ptr<int64_t>());
  }
  return out;
}

// -- farthest points -------------------------------------------------------------------------------

constexpr int kSampleThreads = 256;

template <typename T>
struct SampleJob {
  const T* src;           // [points, dims]
  const int64_t* ptr;     // [examples + 1]
  const int64_t* starts;  // [examples + 1]: where the samples of each example begin and end
  const int64_t* first;   // [examples]: the first sample, counted within the example
  T* distances;           // [points]
  int64_t* out;
  int64_t dims;
};

// A block for each example: the points' distances from the samples so far, and the farthest point,
// of equally far ones the first.
template <typename T>
__global__ void __launch_bounds__(kSampleThreads)
    sample_points(const __grid_constant__ SampleJob<T> job) {
  __shared__ T far[kSampleThreads];
  __shared__ int64_t where[kSampleThreads];
  const int64_t example = blockIdx.x;
  const int64_t begin = job.ptr[example], points = job.ptr[example + 1] - begin;
  const int64_t samples = job.starts[example + 1] - job.starts[example];
  const T* src = job.src + begin * job.dims;
  T* distances = job.distances + begin;
  int64_t newest = job.first[example];
  for (int64_t step = 0; step < samples; ++step) {
    if (threadIdx.x == 0) job.out[job.starts[example] + step] = begin + newest;
    T farthest = T(-1);
    int64_t place = 0;
    for (int64_t i = threadIdx.x; i < points; i += kSampleThreads) {
      T sum = 0;
      for (int64_t d = 0; d < job.dims; ++d) {
        const T difference = src[i * job.dims + d] - src[newest * job.dims + d];
        sum += difference * difference;
      }
      const T before = step > 0 ? distances[i] : T(INFINITY);
      const T distance = sum < before ? sum : before;
      distances[i] = distance;
      if (distance > farthest) {
        farthest = distance;
        place = i;
      }
    }
    far[threadIdx.x] = farthest;
    where[threadIdx.x] = place;
    __syncthreads();
    for (int half = kSampleThreads / 2; half > 0; half /= 2) {
      if (static_cast<int>(threadIdx.x) < half) {
        const T other = far[threadIdx.x + half];
        const int64_t at = where[threadIdx.x + half];
        if (other > far[threadIdx.x] || (other == far[threadIdx.x] && at < where[threadIdx.x])) {
          far[threadIdx.x] = other;
          where[threadIdx.x] = at;
        }
      }
      __syncthreads();
    }
    newest = where[0];
    __syncthreads();  // before the next step writes there
  }
}

template <typename T>
void run_sample(const Tensor& src, const std::vector<int64_t>& bounds,
                const std::vector<int64_t>& starts, const std::vector<int64_t>& begins,
                Tensor& out) {
  const DeviceScope scope(src);
  const Tensor ptr = on_device(scope, src, bounds), device_starts = on_device(scope, src, starts);
  const Tensor first = on_device(scope, src, begins);
  Tensor distances = empty_bytes(src, src.size(0) * static_cast<int64_t>(sizeof(T)));
  SampleJob<T> job{};
  job.src = src.const_data_ptr<T>();
  job.ptr = ptr.const_data_ptr<int64_t>();
  job.starts = device_starts.const_data_ptr<int64_t>();
  job.first = first.const_data_ptr<int64_t>();
  job.distances = static_cast<T*>(distances.mutable_data_ptr());
  job.out = out.mutable_data_ptr<int64_t>();
  job.dims = src.size(1);
  launch_blocks(scope, static_cast<int64_t>(begins.size()), kSampleThreads, &sample_points<T>, job);
}

struct Cuda {
  static std::vector<int64_t> read(const Tensor& index) {
    return index.is_cpu() ? values_of(index) : read_index(DeviceScope(index), index);
  }

  static Tensor search(const Tensor& x, const Tensor& y, const std::vector<int64_t>& of_x,
                       const std::vector<int64_t>& of_y, const Question& question) {
    return x.scalar_type() == ScalarType::Float
               ? run_search<float>(x, y, of_x, of_y, question)
               : run_search<double>(x, y, of_x, of_y, question);
  }

  static void sample(const Tensor& src, const std::vector<int64_t>& bounds,
                     const std::vector<int64_t>& starts, const std::vector<int64_t>& begins,
                     Tensor& out) {
    if (src.scalar_type() == ScalarType::Float) {
      run_sample<float>(src, bounds, starts, begins, out);
    } else {
      run_sample<double>(src, bounds, starts, begins, out);
    }
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gnnscript, GNNSCRIPT_CUDA_KEY, m) {
  m.impl("knn", TORCH_BOX(&NeighborOps<Cuda>::knn));
  m.impl("radius", TORCH_BOX(&NeighborOps<Cuda>::radius));
  m.impl("fps", TORCH_BOX(&NeighborOps<Cuda>::fps));
}

}  // namespace gnnscript
