// Batch-hard triplet loss: mining and loss in one pass over the distances, and the gradient as a gather.
//
// hardest_pairs: a block per anchor reads its row of splits x B partial sums and B labels, and reduces candidates
// (squared distance, index) in a total order, so the result does not depend on the order of the reduction: NaN before
// numbers, then the harder, then the lower index. finish_losses (triplet.cuh) follows with the mean.
// gradient: a block per row i. Its threads look through the pairs of all anchors for those that hold i, 256 at a time,
// and add their differences in the order of the anchors: no atomics, and results repeat bit for bit. Reads 2 B indices
// and about 4 rows of D for each row, writes B D. Arithmetic is in T (float or double).
#include "csrc/cuda/batch_hard_triplet.cuh"

#include "csrc/cuda/triplet.cuh"

namespace pyreid::cuda {
namespace {

constexpr int kMiningThreads = 128;
constexpr int kGradientThreads = 256;

// A pair in the running for the hardest: `value` is larger for harder ones; no pair yet at index -1.
template <class T>
struct Candidate {
  T value;
  int index;
};

template <class T>
__device__ __forceinline__ Candidate<T> harder(Candidate<T> a, Candidate<T> b) {
  if (a.index < 0) return b;
  if (b.index < 0) return a;
  const bool a_nan = a.value != a.value, b_nan = b.value != b.value;
  if (a_nan != b_nan) return a_nan ? a : b;
  if (!a_nan && a.value != b.value) return a.value > b.value ? a : b;
  return a.index < b.index ? a : b;
}

// Thread 0 gets the hardest of the block. `scratch` holds one candidate for each warp; the barrier at the beginning
// orders earlier reads of it.
template <class T>
__device__ __forceinline__ Candidate<T> block_hardest(Candidate<T> candidate, Candidate<T>* scratch) {
#pragma unroll
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) {
    Candidate<T> other;
    other.value = __shfl_xor_sync(kFullMask, candidate.value, offset);
    other.index = __shfl_xor_sync(kFullMask, candidate.index, offset);
    candidate = harder(candidate, other);
  }
  __syncthreads();
  if (threadIdx.x % kWarpSize == 0) scratch[threadIdx.x / kWarpSize] = candidate;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int warp = 1; warp < kMiningThreads / kWarpSize; ++warp) candidate = harder(candidate, scratch[warp]);
  }
  return candidate;
}

// The derivative of a distance by its rows is their difference over the distance, and taken as 0 at distance 0.
template <class T>
__device__ __forceinline__ T over_distance(T slope, T distance) {
  return distance == T(0) ? T(0) : slope / distance;
}

template <class T>
__global__ void hardest_pairs_kernel(const T* __restrict__ squared, const int64_t* __restrict__ labels, int64_t b,
                                     int64_t splits, Margin margin, T* __restrict__ losses, int32_t* __restrict__ pairs,
                                     T* __restrict__ slopes) {
  __shared__ Candidate<T> scratch[kMiningThreads / kWarpSize];
  for (int64_t i = blockIdx.x; i < b; i += gridDim.x) {
    const int64_t label = labels[i];
    Candidate<T> positive = {T(0), -1}, negative = {T(0), -1};
    for (int64_t j = threadIdx.x; j < b; j += kMiningThreads) {
      if (j == i) continue;
      const T value = sum_splits(squared, b, splits, i, j);
      if (labels[j] == label) {
        positive = harder(positive, Candidate<T>{value, static_cast<int>(j)});
      } else {
        negative = harder(negative, Candidate<T>{-value, static_cast<int>(j)});
      }
    }
    positive = block_hardest(positive, scratch);
    negative = block_hardest(negative, scratch);
    if (threadIdx.x != 0) continue;
    T loss = T(kNoLoss), positive_slope = 0, negative_slope = 0;
    const bool valid = positive.index >= 0 && negative.index >= 0;
    if (valid) {
      const T positive_distance = sqrt(positive.value), negative_distance = sqrt(-negative.value);
      T slope;
      triplet_loss(positive_distance - negative_distance, margin, &loss, &slope);
      positive_slope = over_distance(slope, positive_distance);
      negative_slope = over_distance(slope, negative_distance);
    }
    losses[i] = loss;
    pairs[i] = valid ? positive.index : -1;
    pairs[b + i] = valid ? negative.index : -1;
    slopes[i] = positive_slope;
    slopes[b + i] = negative_slope;
  }
}

template <class T>
__global__ void hard_gradient_kernel(const T* __restrict__ grad, bool per_anchor, const T* __restrict__ x,
                                     const int32_t* __restrict__ pairs, const T* __restrict__ slopes, int64_t b,
                                     int64_t d, T* __restrict__ dx) {
  __shared__ T weights[kGradientThreads];
  __shared__ unsigned found[kGradientThreads / kWarpSize];
  for (int64_t i = blockIdx.x; i < b; i += gridDim.x) {
    const T* own = x + i * d;
    T* out = dx + i * d;
    // The pairs of which i is the anchor. Each thread keeps to its own columns, here and below.
    const int64_t p = pairs[i], n = pairs[b + i];
    const T g = per_anchor ? grad[i] : grad[0];
    const T positive = p < 0 ? T(0) : g * slopes[i], negative = p < 0 ? T(0) : -g * slopes[b + i];
    for (int64_t k = threadIdx.x; k < d; k += kGradientThreads) {
      T sum = 0;
      if (positive != T(0)) sum += positive * (own[k] - x[p * d + k]);
      if (negative != T(0)) sum += negative * (own[k] - x[n * d + k]);
      out[k] = sum;
    }
    // The pairs of which i is the other row: as positive or as negative, never both for one anchor.
    for (int64_t first = 0; first < b; first += kGradientThreads) {
      const int64_t a = first + threadIdx.x;
      T weight = 0;
      if (a < b) {
        const T anchor_grad = per_anchor ? grad[a] : grad[0];
        if (pairs[a] == i) {
          weight = anchor_grad * slopes[a];
        } else if (pairs[b + a] == i) {
          weight = -anchor_grad * slopes[b + a];
        }
      }
      const unsigned mask = __ballot_sync(kFullMask, weight != T(0));
      __syncthreads();  // the weights of the last round have been read
      weights[threadIdx.x] = weight;
      if (threadIdx.x % kWarpSize == 0) found[threadIdx.x / kWarpSize] = mask;
      __syncthreads();
      for (int warp = 0; warp < kGradientThreads / kWarpSize; ++warp) {
        if (found[warp] == 0) continue;
        for (int lane = 0; lane < kWarpSize; ++lane) {
          if ((found[warp] >> lane & 1u) == 0) continue;
          const int at = warp * kWarpSize + lane;
          const T* other = x + (first + at) * d;
          for (int64_t k = threadIdx.x; k < d; k += kGradientThreads) out[k] += weights[at] * (own[k] - other[k]);
        }
      }
    }
  }
}

}  // namespace

template <class T>
void batch_hard_triplet(const T* squared, const int64_t* labels, int64_t b, int64_t splits, Margin margin,
                        Reduction reduction, T* losses, T* loss, int32_t* pairs, T* slopes, cudaStream_t stream) {
  if (b > 0) {
    PYREID_LAUNCH((hardest_pairs_kernel<T>), grid_for(b, 1), kMiningThreads, 0, stream, squared, labels, b, splits,
                  margin, losses, pairs, slopes);
  }
  finish_losses(b, 2 * b, reduction, losses, loss, slopes, stream);
}

template <class T>
void batch_hard_triplet_backward(const T* grad, bool per_anchor, const T* x, const int32_t* pairs, const T* slopes,
                                 int64_t b, int64_t d, T* dx, cudaStream_t stream) {
  if (b == 0 || d == 0) return;
  PYREID_LAUNCH((hard_gradient_kernel<T>), grid_for(b, 1), kGradientThreads, 0, stream, grad, per_anchor, x, pairs,
                slopes, b, d, dx);
}

#define PYREID_INSTANTIATE(T)                                                                                         \
  template void batch_hard_triplet(const T*, const int64_t*, int64_t, int64_t, Margin, Reduction, T*, T*, int32_t*,   \
                                   T*, cudaStream_t);                                                                 \
  template void batch_hard_triplet_backward(const T*, bool, const T*, const int32_t*, const T*, int64_t, int64_t, T*, \
                                            cudaStream_t);
PYREID_INSTANTIATE(float)
PYREID_INSTANTIATE(double)
#undef PYREID_INSTANTIATE

}  // namespace pyreid::cuda
