// The stages of k-reciprocal re-ranking, between which torch sorts and gathers (pyreid/ops/k_reciprocal_cuda.py).
//
// reciprocal_neighbors: a warp owns an item and compares it with the lists of its k neighbors, 32 places at a time, up
// to the first hit. Bytes: k lists of k items each for an item, most of them from the second-level cache; k out.
//
// reciprocal_expansions: a warp owns an item. For each candidate in its set the lanes hold the candidate's set, look
// each item up in the own set, which ascends, by halving, and are counted by ballot. The rule of two thirds is one of
// integers. Bytes: a row of `half` for each candidate.
//
// pair_distances: a warp owns a row i, whose features stay in the first-level cache, and walks its entries; each reads
// the features of another row once.
//
// reciprocal_weights: a warp owns a row: its least distance, the exponentials and their sum, the quotients. Bytes: two
// reads of the distances and three passes over the weights, short rows from the cache.
//
// run_means: a thread owns a run of the sorted values and adds it from its front to its end, as the CPU kernel does.
//
// re_rank_strip: a block owns a query (grid-stride) and a row of scratch over the gallery. It walks the columns of the
// query in ascending order; the items of one column are different ones, so that no two threads add to one place, and
// a barrier parts the columns. Then one pass makes the distances and blends. Bytes: 8 or 12 of each entry of these
// columns, two of scratch for it, and one read and write of the row of values and of the scratch.
//
// There are no atomics, and every sum has a fixed order: the result does not depend on how threads are scheduled.
// Arithmetic is in T (float or double), the sum of the weights in double.
#include "csrc/cuda/k_reciprocal.cuh"

#include "csrc/cuda/launch.cuh"
#include "csrc/cuda/reduce.cuh"

namespace pyreid::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;

__device__ __forceinline__ int64_t first_of_warp() {
  return static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarpSize;
}
__device__ __forceinline__ int64_t warps_of_grid() { return static_cast<int64_t>(gridDim.x) * kWarps; }

__global__ void reciprocal_neighbors_kernel(Neighbors neighbors, int64_t k, int32_t* __restrict__ out) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  for (int64_t i = first_of_warp(); i < neighbors.items; i += warps_of_grid()) {
    const int32_t* list = neighbors.indices + i * neighbors.k;
    for (int64_t begin = 0; begin < k; begin += kWarpSize) {
      const int64_t place = begin + lane;
      const int32_t neighbor = place < k ? list[place] : 0;
      const int here = static_cast<int>(k - begin < kWarpSize ? k - begin : kWarpSize);
      bool reciprocal = false;
      for (int a = 0; a < here; ++a) {
        const int32_t* theirs = neighbors.indices + __shfl_sync(kFullMask, neighbor, a) * neighbors.k;
        bool found = false;
        for (int64_t b = lane; b - lane < k && !found; b += kWarpSize) {
          found = __any_sync(kFullMask, b < k && theirs[b] == i);
        }
        if (lane == a) reciprocal = found;
      }
      if (place < k) out[i * k + place] = reciprocal ? neighbor : kNoItem;
    }
  }
}

// Whether `item` is in a list of n that ascends.
__device__ __forceinline__ bool is_in(const int32_t* list, int n, int32_t item) {
  int begin = 0, end = n;
  while (begin < end) {
    const int middle = (begin + end) / 2;
    if (list[middle] < item) {
      begin = middle + 1;
    } else {
      end = middle;
    }
  }
  return begin < n && list[begin] == item;
}

__global__ void reciprocal_expansions_kernel(const int32_t* __restrict__ own, const int32_t* __restrict__ half,
                                             int64_t items, int64_t forward, int64_t length,
                                             int32_t* __restrict__ sizes) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize, n = static_cast<int>(forward);
  for (int64_t i = first_of_warp(); i < items; i += warps_of_grid()) {
    const int32_t* set = own + i * forward;
    for (int64_t begin = 0; begin < forward; begin += kWarpSize) {
      const int64_t place = begin + lane;
      const int32_t candidate = place < forward ? set[place] : kNoItem;
      int joined = 0;
      for (int a = 0; a < kWarpSize; ++a) {
        const int32_t c = __shfl_sync(kFullMask, candidate, a);
        if (c == kNoItem) break;  // so are those behind it
        const int32_t* theirs = half + c * length;
        int size = 0, common = 0;
        for (int64_t b = lane; b - lane < length; b += kWarpSize) {
          const int32_t item = b < length ? theirs[b] : kNoItem;
          const unsigned here = __ballot_sync(kFullMask, item != kNoItem);
          if (here == 0) break;
          size += __popc(here);
          common += __popc(__ballot_sync(kFullMask, item != kNoItem && is_in(set, n, item)));
        }
        if (lane == a && 3 * common > 2 * size) joined = size;
      }
      if (place < forward) sizes[i * forward + place] = joined;
    }
  }
}

template <class T>
__global__ void pair_distances_kernel(const T* __restrict__ x, int64_t d, SparseRows<T> pairs,
                                      T* __restrict__ distances) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  for (int64_t i = first_of_warp(); i < pairs.rows; i += warps_of_grid()) {
    const T* row = x + i * d;
    const int64_t end = pairs.starts[i + 1];
    for (int64_t e = pairs.starts[i]; e < end; ++e) {
      const T* other = x + pairs.columns[e] * d;
      T distance = 0;
#pragma unroll 4
      for (int64_t c = lane; c < d; c += kWarpSize) {
        const T difference = row[c] - other[c];
        distance += difference * difference;
      }
      distance = warp_sum(distance);
      if (lane == 0) distances[e] = distance;
    }
  }
}

__device__ __forceinline__ float exponential(float x) { return expf(x); }
__device__ __forceinline__ double exponential(double x) { return exp(x); }

template <class T>
__global__ void reciprocal_weights_kernel(SparseRows<T> distances, T* __restrict__ weights) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  for (int64_t i = first_of_warp(); i < distances.rows; i += warps_of_grid()) {
    const int64_t begin = distances.starts[i], end = distances.starts[i + 1];
    if (begin == end) continue;
    // As a rule the least is the item's distance to itself, 0. Where it is not, the largest weight must not vanish.
    T least = distances.weights[begin];
    for (int64_t e = begin + lane; e < end; e += kWarpSize) {
      const T distance = distances.weights[e];
      least = distance < least ? distance : least;
    }
    least = -warp_max(-least);
    double sum = 0;
    for (int64_t e = begin + lane; e < end; e += kWarpSize) {
      const T weight = exponential(least - distances.weights[e]);
      weights[e] = weight;
      sum += static_cast<double>(weight);
    }
    const T total = static_cast<T>(warp_sum(sum));
    for (int64_t e = begin + lane; e < end; e += kWarpSize) weights[e] /= total;  // a lane's own
  }
}

template <class T>
__global__ void run_means_kernel(const T* __restrict__ values, const int64_t* __restrict__ starts, int64_t runs,
                                 T divisor, T* __restrict__ means) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t r = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; r < runs; r += step) {
    const int64_t end = starts[r + 1];
    T sum = 0;
    for (int64_t e = starts[r]; e < end; ++e) sum += values[e];
    means[r] = sum / divisor;
  }
}

template <class T>
__global__ void re_rank_strip_kernel(ReRankedStrip<T> strip, T* __restrict__ overlaps) {
  const SparseRows<T> queries = strip.queries, gallery = strip.gallery;
  const T lambda = static_cast<T>(strip.lambda), rest = static_cast<T>(1 - strip.lambda);
  T* overlap = overlaps + blockIdx.x * strip.columns;
  for (int64_t g = threadIdx.x; g < strip.columns; g += kThreads) overlap[g] = T(0);
  for (int64_t row = blockIdx.x; row < strip.rows; row += gridDim.x) {
    const int64_t last = queries.starts[row + 1];
    for (int64_t e = queries.starts[row]; e < last; ++e) {
      __syncthreads();
      const int32_t column = queries.columns[e];
      const T weight = queries.weights[e];
      const int64_t end = gallery.starts[column + 1];
      for (int64_t g = gallery.starts[column] + threadIdx.x; g < end; g += kThreads) {
        const T other = gallery.weights[g];
        overlap[gallery.columns[g]] += other < weight ? other : weight;
      }
    }
    __syncthreads();
    T* values = strip.values + row * strip.row_stride;
    T norm = 0, limit = 0, divisor = 1;
    if (strip.offset) {
      norm = strip.query_norms[row];
      limit = strip.limits[row];
      if (strip.divisors[row] > T(0)) divisor = strip.divisors[row];
    }
    for (int64_t g = threadIdx.x; g < strip.columns; g += kThreads) {
      T distance = values[g];
      if (strip.offset) {
        distance = norm + T(2) * (strip.offset[g] - distance);
        distance = distance > T(0) ? distance : T(0);
        distance = (distance < limit ? distance : limit) / divisor;
        if (strip.squared) distance *= distance;
      }
      const T m = overlap[g];
      overlap[g] = T(0);
      T jaccard = T(1) - m / (T(2) - m);
      if (strip.clip && !(jaccard > T(0))) jaccard = T(0);
      values[g] = jaccard * rest + distance * lambda;
    }
    __syncthreads();  // the next row adds to places that other threads have just cleared
  }
}

}  // namespace

void reciprocal_neighbors(const Neighbors& neighbors, int64_t k, int32_t* out, cudaStream_t stream) {
  if (neighbors.items == 0) return;
  PYREID_LAUNCH((reciprocal_neighbors_kernel), grid_for(neighbors.items, kWarps), kThreads, 0, stream, neighbors, k,
                out);
}

void reciprocal_expansions(const int32_t* own, const int32_t* half, int64_t items, int64_t forward, int64_t length,
                           int32_t* sizes, cudaStream_t stream) {
  if (items == 0) return;
  PYREID_LAUNCH((reciprocal_expansions_kernel), grid_for(items, kWarps), kThreads, 0, stream, own, half, items, forward,
                length, sizes);
}

template <class T>
void pair_distances(const T* x, int64_t d, const SparseRows<T>& pairs, T* distances, cudaStream_t stream) {
  if (pairs.rows == 0) return;
  PYREID_LAUNCH((pair_distances_kernel<T>), grid_for(pairs.rows, kWarps), kThreads, 0, stream, x, d, pairs, distances);
}

template <class T>
void reciprocal_weights(const SparseRows<T>& distances, T* weights, cudaStream_t stream) {
  if (distances.rows == 0) return;
  PYREID_LAUNCH((reciprocal_weights_kernel<T>), grid_for(distances.rows, kWarps), kThreads, 0, stream, distances,
                weights);
}

template <class T>
void run_means(const T* values, const int64_t* starts, int64_t runs, T divisor, T* means, cudaStream_t stream) {
  if (runs == 0) return;
  PYREID_LAUNCH((run_means_kernel<T>), grid_for(runs, kThreads), kThreads, 0, stream, values, starts, runs, divisor,
                means);
}

template <class T>
void re_rank_strip(const ReRankedStrip<T>& strip, T* overlaps, int64_t blocks, cudaStream_t stream) {
  if (strip.rows == 0 || strip.columns == 0) return;
  PYREID_LAUNCH((re_rank_strip_kernel<T>), grid_for(strip.rows, 1, blocks), kThreads, 0, stream, strip, overlaps);
}

#define PYREID_INSTANTIATE(T)                                                              \
  template void pair_distances(const T*, int64_t, const SparseRows<T>&, T*, cudaStream_t); \
  template void reciprocal_weights(const SparseRows<T>&, T*, cudaStream_t);                \
  template void run_means(const T*, const int64_t*, int64_t, T, T*, cudaStream_t);         \
  template void re_rank_strip(const ReRankedStrip<T>&, T*, int64_t, cudaStream_t);
PYREID_INSTANTIATE(float)
PYREID_INSTANTIATE(double)
#undef PYREID_INSTANTIATE

}  // namespace pyreid::cuda
