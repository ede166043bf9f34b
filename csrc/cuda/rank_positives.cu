// The ranks of each query's positives by counting, without sorting the gallery.
//
// A block owns a query row (grid-stride over rows). First it sorts the row's positives by (value, gallery index): each
// thread finds the places of its slots by counting the slots that come before them, and leaves the gallery indices in
// place in `ranks`. Then it takes the sorted positives in chunks that fit shared memory. For a chunk all threads walk
// the row; a binary search finds the first positive of the chunk that a value precedes, and an integer atomic in
// shared memory enters the value there. Junk items are entered like all others and taken back afterwards. A prefix sum
// over the entries is the chunk's ranks, ascending, written where they belong.
//
// Bytes: one read of the row per kChunk positives (one in practice), and P^2 reads of the positives' values, cached.
// Every value is rounded once (csrc/rank_value.h) and all sums are integers, so the result does not depend on the
// order of the atomics and equals the CPU's for equal values.
#include "csrc/cuda/rank_positives.cuh"

#include "csrc/cuda/launch.cuh"

namespace pyreid::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kChunk = 1024;  // positives in shared memory at a time: 20 or 24 KB

template <class T>
__device__ __forceinline__ T value_of(const RankTask<T>& task, int64_t row, int64_t item) {
  return rank_value(task.values[row * task.row_stride + item], task.offset, task.scale, item);
}

template <class T>
__device__ __forceinline__ bool precedes(T v, int64_t item, T threshold, int64_t positive) {
  return v < threshold || (v == threshold && item < positive);
}

// The first of n sorted positives that the item precedes; n if there is none or the value is NaN.
template <class T>
__device__ __forceinline__ int first_preceded(T v, int64_t item, const T* thresholds, const int64_t* positives, int n) {
  if (!(v <= thresholds[n - 1])) return n;
  int first = 0, count = n;
  while (count > 0) {
    const int half = count / 2, middle = first + half;
    if (precedes(v, item, thresholds[middle], positives[middle])) {
      count = half;
    } else {
      first = middle + 1;
      count -= half + 1;
    }
  }
  return first;
}

// Replaces n <= kChunk counters by their running sums.
__device__ __forceinline__ void prefix_sum(unsigned long long* counters, int n) {
  constexpr int kPerThread = kChunk / kThreads;
  for (int distance = 1; distance < n; distance *= 2) {
    unsigned long long moved[kPerThread];
    for (int k = 0; k < kPerThread; ++k) {
      const int i = static_cast<int>(threadIdx.x) + k * kThreads;
      moved[k] = i < n && i >= distance ? counters[i - distance] : 0;
    }
    __syncthreads();
    for (int k = 0; k < kPerThread; ++k) {
      const int i = static_cast<int>(threadIdx.x) + k * kThreads;
      if (i < n) counters[i] += moved[k];
    }
    __syncthreads();
  }
}

template <class T>
__global__ void rank_positives_kernel(RankTask<T> task, int64_t* __restrict__ ranks, int64_t* __restrict__ nans) {
  __shared__ T thresholds[kChunk];
  __shared__ int64_t positives[kChunk];
  __shared__ unsigned long long counters[kChunk];
  __shared__ unsigned long long num_nans, num_positives;

  for (int64_t row = blockIdx.x; row < task.rows; row += gridDim.x) {
    const int64_t slots = task.starts[row + 1] - task.starts[row];
    const int64_t* items = task.order + task.begin[row];  // [slots]
    int64_t* out = ranks + task.starts[row];              // [slots]
    const int64_t camera = task.query_cams ? task.query_cams[row] : 0;
    const auto is_junk = [&](int64_t item) { return task.gallery_cams && task.gallery_cams[item] == camera; };
    const auto is_positive = [&](int64_t item) {
      const T v = value_of(task, row, item);
      return v == v && !is_junk(item);
    };

    if (threadIdx.x == 0) num_nans = num_positives = 0;
    __syncthreads();
    for (int64_t s = threadIdx.x; s < slots; s += kThreads) {
      if (is_positive(items[s])) atomicAdd(&num_positives, 1ULL);
    }
    __syncthreads();
    const int64_t count = static_cast<int64_t>(num_positives);
    for (int64_t s = threadIdx.x; s < slots; s += kThreads) {
      const int64_t item = items[s];
      if (!is_positive(item)) continue;
      const T v = value_of(task, row, item);
      int64_t place = 0;
      for (int64_t other = 0; other < slots; ++other) {
        const int64_t rival = items[other];
        if (!is_junk(rival) && precedes(value_of(task, row, rival), rival, v, item)) ++place;
      }
      out[place] = item;
    }
    for (int64_t s = count + threadIdx.x; s < slots; s += kThreads) out[s] = -1;
    __syncthreads();

    for (int64_t chunk = 0; chunk == 0 || chunk < count; chunk += kChunk) {
      const int n = static_cast<int>(count - chunk < kChunk ? count - chunk : kChunk);
      const bool first_walk = chunk == 0;
      for (int p = static_cast<int>(threadIdx.x); p < n; p += kThreads) {
        positives[p] = out[chunk + p];
        thresholds[p] = value_of(task, row, positives[p]);
        counters[p] = 0;
      }
      __syncthreads();
      // What precedes the positives of earlier chunks precedes this chunk's first and is entered there, so each chunk
      // stands alone.
      for (int64_t item = threadIdx.x; item < task.columns; item += kThreads) {
        const T v = value_of(task, row, item);
        if (first_walk && v != v) atomicAdd(&num_nans, 1ULL);
        if (n == 0) continue;
        const int first = first_preceded(v, item, thresholds, positives, n);
        if (first < n) atomicAdd(&counters[first], 1ULL);
      }
      if (n > 0 && task.gallery_cams) {
        for (int64_t s = threadIdx.x; s < slots; s += kThreads) {
          if (!is_junk(items[s])) continue;
          const int first = first_preceded(value_of(task, row, items[s]), items[s], thresholds, positives, n);
          if (first < n) atomicAdd(&counters[first], ~0ULL);  // minus one
        }
      }
      __syncthreads();
      prefix_sum(counters, n);
      for (int p = static_cast<int>(threadIdx.x); p < n; p += kThreads) {
        out[chunk + p] = static_cast<int64_t>(counters[p]);
      }
      __syncthreads();
    }
    if (threadIdx.x == 0) nans[row] = static_cast<int64_t>(num_nans);
  }
}

}  // namespace

template <class T>
void rank_positives(const RankTask<T>& task, int64_t* ranks, int64_t* nans, cudaStream_t stream) {
  if (task.rows == 0) return;
  PYREID_LAUNCH((rank_positives_kernel<T>), grid_for(task.rows, 1), kThreads, 0, stream, task, ranks, nans);
}

template void rank_positives(const RankTask<float>&, int64_t*, int64_t*, cudaStream_t);
template void rank_positives(const RankTask<double>&, int64_t*, int64_t*, cudaStream_t);

}  // namespace pyreid::cuda
