// The k nearest gallery items of each query, from tiles of inner products that cuBLAS has done.
//
// keep_nearest: a block owns a query row (grid-stride over rows) and keeps its k smallest neighbors, sorted, in shared
// memory, in a list whose length is k rounded up to a power of two; between tiles they lie in `kept`. All threads walk
// the row, 1024 items a step. An item is compared with the k-th neighbor; those that come before it are few, and find
// their places in a buffer by a ballot of their warp and one atomic of it. When there are about k of them (256 to
// 1024), the buffer is sorted, and merged into the list, by bitonic networks. Bytes: one read of the products, and the
// offsets from the second-level cache; k neighbors in and out for each row and tile.
//
// nearest_distances: a block owns a row. A thread turns a neighbor into its distance; where that cancels, a warp sums
// it again from the features, one read of both rows, and the row is sorted by distance.
//
// nearest_gradients: a block owns a row, first of the queries, then of the gallery, a thread owns columns of it, and
// walks the row's pairs in their order: one read of a row of features for each pair, either way.
//
// No two neighbors are equal (csrc/nearest_neighbors.h), so the k smallest, sorted, do not depend on the order of the
// atomics; all sums run in a fixed order. Arithmetic is in T (float or double).
#include "csrc/cuda/nearest_neighbors.cuh"

#include "csrc/cuda/launch.cuh"
#include "csrc/cuda/reduce.cuh"

namespace pyreid::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;
constexpr int kPerThread = 4;
constexpr int kStep = kThreads * kPerThread;
constexpr int kBuffer = 2 * kStep;  // merged before a step could find it full
constexpr int kLeastMerged = 256;

// Comes after every neighbor.
template <class T>
__device__ __forceinline__ Neighbor<T> last_neighbor();
template <>
__device__ __forceinline__ Neighbor<float> last_neighbor<float>() {
  return ~uint64_t{0};
}
template <>
__device__ __forceinline__ Neighbor<double> last_neighbor<double>() {
  return {~uint64_t{0}, ~uint64_t{0}};
}

PYREID_HOST_DEVICE inline int power_of_two_from(int n) {
  int power = 1;
  while (power < n) power *= 2;
  return power;
}

// Compares the pairs of a bitonic network that lie `stride` apart; runs of `width` ascend and descend in turn.
template <class Item>
__device__ __forceinline__ void compare_pairs(Item* items, int size, int stride, int width) {
  for (int t = static_cast<int>(threadIdx.x); t < size / 2; t += kThreads) {
    const int i = 2 * t - (t & (stride - 1)), j = i + stride;
    const Item a = items[i], b = items[j];
    const bool ascend = (i & width) == 0;
    if (ascend ? b < a : a < b) {
      items[i] = b;
      items[j] = a;
    }
  }
  __syncthreads();
}

// Sorts `size` items, a power of two.
template <class Item>
__device__ void sort_items(Item* items, int size) {
  for (int width = 2; width <= size; width *= 2) {
    for (int stride = width / 2; stride > 0; stride /= 2) compare_pairs(items, size, stride, width);
  }
}

// Merges the `found` neighbors of the buffer into the sorted list, of which the smallest stay.
template <class T>
__device__ void merge_into(Neighbor<T>* list, int list_size, Neighbor<T>* buffer, int found) {
  const int size = power_of_two_from(found);
  for (int i = found + static_cast<int>(threadIdx.x); i < size; i += kThreads) buffer[i] = last_neighbor<T>();
  __syncthreads();
  sort_items(buffer, size);
  // The smaller of each item and its opposite: the smallest of both lists, rising and then falling.
  const int opposite = size < list_size ? size : list_size;
  for (int i = static_cast<int>(threadIdx.x); i < opposite; i += kThreads) {
    const Neighbor<T> other = buffer[i];
    Neighbor<T>& kept = list[list_size - 1 - i];
    if (other < kept) kept = other;
  }
  __syncthreads();
  for (int stride = list_size / 2; stride > 0; stride /= 2) compare_pairs(list, list_size, stride, list_size);
}

template <class T>
__global__ void keep_nearest_kernel(NearestTile<T> tile, int k, int list_size, Neighbor<T>* __restrict__ kept) {
  PYREID_DYNAMIC_SHARED(Neighbor<T>, list);  // [list_size], then the buffer
  Neighbor<T>* buffer = list + list_size;
  __shared__ int count;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarpSize;
  const int seen = tile.first < k ? static_cast<int>(tile.first) : k;
  const int enough = k < kLeastMerged ? kLeastMerged : k < kStep ? k : kStep;
  for (int64_t row = blockIdx.x; row < tile.rows; row += gridDim.x) {
    const T* products = tile.products + row * tile.row_stride;
    for (int i = thread; i < list_size; i += kThreads) list[i] = i < seen ? kept[row * k + i] : last_neighbor<T>();
    if (thread == 0) count = 0;
    __syncthreads();
    Neighbor<T> limit = list[k - 1];
    for (int64_t begin = 0; begin < tile.columns; begin += kStep) {
      Neighbor<T> neighbors[kPerThread];
#pragma unroll
      for (int i = 0; i < kPerThread; ++i) {
        const int64_t j = begin + i * kThreads + thread;
        neighbors[i] = j < tile.columns
                           ? make_neighbor(rank_value(products[j], tile.offset, tile.scale, j), tile.first + j)
                           : last_neighbor<T>();
      }
#pragma unroll
      for (int i = 0; i < kPerThread; ++i) {
        const bool below = neighbors[i] < limit;
        const unsigned found = __ballot_sync(kFullMask, below);
        if (found == 0) continue;
        int place = lane == 0 ? atomicAdd(&count, __popc(found)) : 0;
        place = __shfl_sync(kFullMask, place, 0) + __popc(found & ((1u << lane) - 1));
        if (below) buffer[place] = neighbors[i];
      }
      __syncthreads();
      const int found = count;
      __syncthreads();
      if (found < enough && begin + kStep < tile.columns) continue;
      if (found == 0) break;
      merge_into<T>(list, list_size, buffer, found);
      limit = list[k - 1];
      if (thread == 0) count = 0;
      __syncthreads();
    }
    for (int i = thread; i < k; i += kThreads) kept[row * k + i] = list[i];
    __syncthreads();
  }
}

// A row of zero length has no direction: its cosine similarity with anything is 0.
template <class T>
__device__ __forceinline__ T inverse_norm(T squared) {
  return squared > T(0) ? T(1) / sqrt(squared) : T(0);
}

template <class T>
__global__ void nearest_distances_kernel(NearestFeatures<T> f, int k, int list_size, Metric metric,
                                         const Neighbor<T>* __restrict__ kept, T* __restrict__ distances,
                                         int64_t* __restrict__ indices) {
  PYREID_DYNAMIC_SHARED(Neighbor<T>, by_distance);  // [list_size], distance and place in the row of `kept`
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarpSize;
  for (int64_t row = blockIdx.x; row < f.rows; row += gridDim.x) {
    const Neighbor<T>* by_value = kept + row * k;
    const T* query = f.query + row * f.d;
    const T norm = f.query_norms[row], inverse = inverse_norm(norm);
    for (int j = thread; j < list_size; j += kThreads) {
      if (j < k) {
        const T gallery_norm = f.gallery_norms[index_of(by_value[j])];
        const T distance = distance_from_value(value_of(by_value[j]), norm, gallery_norm, inverse, metric);
        by_distance[j] = make_neighbor(metric == Metric::kEuclidean && distance > T(0) ? sqrt(distance) : distance, j);
      } else {
        by_distance[j] = last_neighbor<T>();
      }
    }
    __syncthreads();
    bool summed = false;
    for (int j = thread / kWarpSize; j < k; j += kWarps) {
      if (!(value_of(by_distance[j]) < T(0))) continue;
      summed = true;
      const int64_t item = index_of(by_value[j]);
      const MultipleOf<T> pair(query, f.gallery + item * f.d, norm, f.gallery_norms[item], metric);
      T sum = 0;
      for (int64_t c = lane; c < f.d; c += kWarpSize) {
        const T difference = pair.a[c] - pair.ratio * pair.b[c];
        sum += difference * difference;
      }
      sum = warp_sum(sum);
      __syncwarp();
      if (lane == 0) by_distance[j] = make_neighbor(pair.distance(sum, metric), j);
    }
    if (__syncthreads_or(summed)) sort_items(by_distance, list_size);
    for (int j = thread; j < k; j += kThreads) {
      distances[row * k + j] = value_of(by_distance[j]);
      indices[row * k + j] = index_of(by_value[index_of(by_distance[j])]);
    }
    __syncthreads();
  }
}

// The pairs of query row r are r k to r k + k - 1, those of gallery row r order[starts[r]] to order[starts[r + 1] - 1].
template <class T, bool kOfQuery>
__global__ void nearest_gradients_kernel(NearestFeatures<T> f, int64_t k, Metric metric, const T* __restrict__ grad,
                                         const T* __restrict__ distances, const int64_t* __restrict__ indices,
                                         const int64_t* __restrict__ order, const int64_t* __restrict__ starts,
                                         T* __restrict__ out) {
  const T* rows = kOfQuery ? f.query : f.gallery;
  const T* others = kOfQuery ? f.gallery : f.query;
  const T* norms = kOfQuery ? f.query_norms : f.gallery_norms;
  const T* other_norms = kOfQuery ? f.gallery_norms : f.query_norms;
  const int64_t count = kOfQuery ? f.rows : f.columns;
  for (int64_t row = blockIdx.x; row < count; row += gridDim.x) {
    const int64_t begin = kOfQuery ? row * k : starts[row], end = kOfQuery ? begin + k : starts[row + 1];
    const T norm = norms[row], inverse = inverse_norm(norm);
    for (int64_t c = threadIdx.x; c < f.d; c += kThreads) {
      const T own = rows[row * f.d + c];
      T sum = 0;
      for (int64_t at = begin; at < end; ++at) {
        const int64_t pair = kOfQuery ? at : order[at], other = kOfQuery ? indices[pair] : pair / k;
        const T other_norm = other_norms[other];
        const PairGradient<T> gradient = pair_gradient(grad[pair], distances[pair], inverse, inverse_norm(other_norm),
                                                       ratio_of_lengths(other_norm, norm), metric);
        sum += gradient.weight * (gradient.scale * own - others[other * f.d + c]);
      }
      out[row * f.d + c] = sum;
    }
  }
}

// Beyond kSharedBytes a kernel has to ask for its shared memory.
template <class Kernel>
void allow_shared(Kernel kernel, int bytes) {
  if (bytes <= kSharedBytes) return;
  PYREID_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
}

}  // namespace

template <class T>
void keep_nearest(const NearestTile<T>& tile, int64_t k, Neighbor<T>* kept, cudaStream_t stream) {
  if (k == 0 || tile.rows == 0 || tile.columns == 0) return;
  const int list_size = power_of_two_from(static_cast<int>(k));
  const int bytes = (list_size + kBuffer) * static_cast<int>(sizeof(Neighbor<T>));
  allow_shared(keep_nearest_kernel<T>, bytes);
  PYREID_LAUNCH((keep_nearest_kernel<T>), grid_for(tile.rows, 1), kThreads, bytes, stream, tile, static_cast<int>(k),
                list_size, kept);
}

template <class T>
void nearest_distances(const NearestFeatures<T>& features, int64_t k, Metric metric, Neighbor<T>* kept, T* distances,
                       int64_t* indices, cudaStream_t stream) {
  if (k == 0 || features.rows == 0) return;
  const int list_size = power_of_two_from(static_cast<int>(k));
  const int bytes = list_size * static_cast<int>(sizeof(Neighbor<T>));
  PYREID_LAUNCH((nearest_distances_kernel<T>), grid_for(features.rows, 1), kThreads, bytes, stream, features,
                static_cast<int>(k), list_size, metric, kept, distances, indices);
}

template <class T>
void nearest_gradients(const NearestFeatures<T>& features, int64_t k, Metric metric, const T* grad, const T* distances,
                       const int64_t* indices, const int64_t* order, const int64_t* starts, T* query_grad,
                       T* gallery_grad, cudaStream_t stream) {
  if (features.d == 0) return;
  if (features.rows > 0) {
    PYREID_LAUNCH((nearest_gradients_kernel<T, true>), grid_for(features.rows, 1), kThreads, 0, stream, features, k,
                  metric, grad, distances, indices, order, starts, query_grad);
  }
  if (features.columns > 0) {
    PYREID_LAUNCH((nearest_gradients_kernel<T, false>), grid_for(features.columns, 1), kThreads, 0, stream, features, k,
                  metric, grad, distances, indices, order, starts, gallery_grad);
  }
}

#define PYREID_INSTANTIATE(T)                                                                                     \
  template void keep_nearest(const NearestTile<T>&, int64_t, Neighbor<T>*, cudaStream_t);                         \
  template void nearest_distances(const NearestFeatures<T>&, int64_t, Metric, Neighbor<T>*, T*, int64_t*,         \
                                  cudaStream_t);                                                                  \
  template void nearest_gradients(const NearestFeatures<T>&, int64_t, Metric, const T*, const T*, const int64_t*, \
                                  const int64_t*, const int64_t*, T*, T*, cudaStream_t);
PYREID_INSTANTIATE(float)
PYREID_INSTANTIATE(double)
#undef PYREID_INSTANTIATE

}  // namespace pyreid::cuda
