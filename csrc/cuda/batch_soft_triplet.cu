// Batch-soft triplet loss: softmax-weighted means, loss and their derivatives by the distances in one pass over the
// rows of distances, and the gradient as a sum of weighted differences.
//
// weighted_means: a block per anchor. It sums the splits x B partial sums of its row into distances (kept in the row of
// `weights`, each thread its own columns), then finds the largest positive and smallest negative distance, sums the
// exponentials relative to them, and overwrites the row by the derivatives over the distances. finish_losses
// (triplet.cuh) follows with the mean.
// gradient: row i of dx is the sum over j of (g_i w_ij + g_j w_ji) (x_i - x_j). A block computes 16 rows x 64 columns,
// going over j in pieces of 32 through shared memory; a thread holds 4 rows of one column. The differences are formed
// one by one, since a product of matrices would lose the digits of near duplicates, whose weights are large. Reads
// B^2 D / 16 features and 2 B^2 D / 64 weights, mostly from the second-level cache; writes B D. All sums run in a fixed
// order, so results repeat bit for bit. Arithmetic is in T (float or double).
#include "csrc/cuda/batch_soft_triplet.cuh"

#include "csrc/cuda/triplet.cuh"

namespace pyreid::cuda {
namespace {

constexpr int kMeansThreads = 128;
constexpr int kGradientThreads = 256;
constexpr int kTileRows = 16, kTileColumns = 64, kPiece = 32;
constexpr int kRowsPerThread = kTileRows * kTileColumns / kGradientThreads;

// Every thread gets the largest value; `scratch` as in block_sum.
template <class T>
__device__ __forceinline__ T block_max(T value, T* scratch) {
  value = warp_max(value);
  __syncthreads();
  if (threadIdx.x % kWarpSize == 0) scratch[threadIdx.x / kWarpSize] = value;
  __syncthreads();
  T largest = scratch[0];
#pragma unroll
  for (int warp = 1; warp < kMeansThreads / kWarpSize; ++warp) {
    largest = scratch[warp] > largest ? scratch[warp] : largest;
  }
  return largest;
}

// The mean of distances with weights softmax(+-distance), relative to the largest (smallest) one.
template <class T>
struct WeightedMean {
  T shift;
  T total;  // of exp(+-(distance - shift))
  T mean;   // of distance - shift
};

template <class T>
__global__ void weighted_means_kernel(const T* __restrict__ squared, const int64_t* __restrict__ labels, int64_t b,
                                      int64_t splits, Margin margin, T* __restrict__ losses, T* __restrict__ weights,
                                      T* __restrict__ slopes) {
  __shared__ T scratch[kMeansThreads / kWarpSize];
  __shared__ int count_scratch[kMeansThreads / kWarpSize];
  for (int64_t i = blockIdx.x; i < b; i += gridDim.x) {
    const int64_t label = labels[i];
    T* row = weights + i * b;
    T farthest = T(-INFINITY), nearest = T(-INFINITY);  // nearest: the largest of the negated
    int positives = 0, negatives = 0;
    for (int64_t j = threadIdx.x; j < b; j += kMeansThreads) {
      const T distance = sqrt(sum_splits(squared, b, splits, i, j));
      row[j] = distance;
      if (labels[j] != label) {
        ++negatives;
        nearest = -distance > nearest ? -distance : nearest;
      } else if (j != i) {
        ++positives;
        farthest = distance > farthest ? distance : farthest;
      }
    }
    positives = block_sum<kMeansThreads>(positives, count_scratch);
    negatives = block_sum<kMeansThreads>(negatives, count_scratch);
    if (positives == 0 || negatives == 0) {
      for (int64_t j = threadIdx.x; j < b; j += kMeansThreads) row[j] = 0;
      if (threadIdx.x == 0) {
        losses[i] = T(kNoLoss);
        slopes[i] = 0;
      }
      continue;
    }
    WeightedMean<T> positive = {block_max(farthest, scratch), T(0), T(0)};
    WeightedMean<T> negative = {-block_max(nearest, scratch), T(0), T(0)};
    for (int64_t j = threadIdx.x; j < b; j += kMeansThreads) {
      if (labels[j] != label) {
        const T relative = row[j] - negative.shift, e = exp(-relative);
        negative.total += e;
        negative.mean += e * relative;
      } else if (j != i) {
        const T relative = row[j] - positive.shift, e = exp(relative);
        positive.total += e;
        positive.mean += e * relative;
      }
    }
    positive.total = block_sum<kMeansThreads>(positive.total, scratch);
    positive.mean = block_sum<kMeansThreads>(positive.mean, scratch) / positive.total;
    negative.total = block_sum<kMeansThreads>(negative.total, scratch);
    negative.mean = block_sum<kMeansThreads>(negative.mean, scratch) / negative.total;
    // Of a mean with weights softmax(+-d): w_j (1 +- (d_j - mean)).
    for (int64_t j = threadIdx.x; j < b; j += kMeansThreads) {
      const T distance = row[j];
      T gradient = 0;
      if (labels[j] != label) {
        const T relative = distance - negative.shift;
        gradient = -exp(-relative) / negative.total * (T(1) + (negative.mean - relative));
      } else if (j != i) {
        const T relative = distance - positive.shift;
        gradient = exp(relative) / positive.total * (T(1) + (relative - positive.mean));
      }
      row[j] = distance == T(0) || j == i ? T(0) : gradient / distance;
    }
    if (threadIdx.x == 0) {
      const T difference = (positive.shift - negative.shift) + (positive.mean - negative.mean);
      triplet_loss(difference, margin, &losses[i], &slopes[i]);
    }
  }
}

template <class T>
__global__ void soft_gradient_kernel(const T* __restrict__ grad, bool per_anchor, const T* __restrict__ x,
                                     const T* __restrict__ weights, const T* __restrict__ slopes, int64_t b, int64_t d,
                                     int64_t column_tiles, int64_t tiles, T* __restrict__ dx) {
  __shared__ T pair_weights[kTileRows][kPiece];
  __shared__ T others[kPiece][kTileColumns];
  const int column = threadIdx.x % kTileColumns, group = threadIdx.x / kTileColumns;
  for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const int64_t i0 = tile / column_tiles * kTileRows, k0 = tile % column_tiles * kTileColumns;
    const int64_t k = k0 + column;
    T own[kRowsPerThread], sums[kRowsPerThread];
#pragma unroll
    for (int r = 0; r < kRowsPerThread; ++r) {
      const int64_t i = i0 + group * kRowsPerThread + r;
      own[r] = i < b && k < d ? x[i * d + k] : T(0);
      sums[r] = 0;
    }
    for (int64_t j0 = 0; j0 < b; j0 += kPiece) {
      const int rows = static_cast<int>(b - j0 < kPiece ? b - j0 : kPiece);
      __syncthreads();  // the last piece has been read
      for (int e = threadIdx.x; e < kTileRows * kPiece; e += kGradientThreads) {
        const int64_t i = i0 + e / kPiece, j = j0 + e % kPiece;
        T weight = 0;
        if (i < b && j < b) {
          weight = (per_anchor ? grad[i] : grad[0]) * slopes[i] * weights[i * b + j] +
                   (per_anchor ? grad[j] : grad[0]) * slopes[j] * weights[j * b + i];
        }
        pair_weights[e / kPiece][e % kPiece] = weight;
      }
      for (int e = threadIdx.x; e < kPiece * kTileColumns; e += kGradientThreads) {
        const int64_t j = j0 + e / kTileColumns, c = k0 + e % kTileColumns;
        others[e / kTileColumns][e % kTileColumns] = j < b && c < d ? x[j * d + c] : T(0);
      }
      __syncthreads();
      for (int j = 0; j < rows; ++j) {
        const T other = others[j][column];
#pragma unroll
        for (int r = 0; r < kRowsPerThread; ++r) {
          sums[r] += pair_weights[group * kRowsPerThread + r][j] * (own[r] - other);
        }
      }
    }
#pragma unroll
    for (int r = 0; r < kRowsPerThread; ++r) {
      const int64_t i = i0 + group * kRowsPerThread + r;
      if (i < b && k < d) dx[i * d + k] = sums[r];
    }
  }
}

}  // namespace

template <class T>
void batch_soft_triplet(const T* squared, const int64_t* labels, int64_t b, int64_t splits, Margin margin,
                        Reduction reduction, T* losses, T* loss, T* weights, T* slopes, cudaStream_t stream) {
  if (b > 0) {
    PYREID_LAUNCH((weighted_means_kernel<T>), grid_for(b, 1), kMeansThreads, 0, stream, squared, labels, b, splits,
                  margin, losses, weights, slopes);
  }
  finish_losses(b, b, reduction, losses, loss, slopes, stream);
}

template <class T>
void batch_soft_triplet_backward(const T* grad, bool per_anchor, const T* x, const T* weights, const T* slopes,
                                 int64_t b, int64_t d, T* dx, cudaStream_t stream) {
  if (b == 0 || d == 0) return;
  const int64_t column_tiles = (d + kTileColumns - 1) / kTileColumns;
  const int64_t tiles = (b + kTileRows - 1) / kTileRows * column_tiles;
  PYREID_LAUNCH((soft_gradient_kernel<T>), grid_for(tiles, 1), kGradientThreads, 0, stream, grad, per_anchor, x,
                weights, slopes, b, d, column_tiles, tiles, dx);
}

#define PYREID_INSTANTIATE(T)                                                                                     \
  template void batch_soft_triplet(const T*, const int64_t*, int64_t, int64_t, Margin, Reduction, T*, T*, T*, T*, \
                                   cudaStream_t);                                                                 \
  template void batch_soft_triplet_backward(const T*, bool, const T*, const T*, const T*, int64_t, int64_t, T*,   \
                                            cudaStream_t);
PYREID_INSTANTIATE(float)
PYREID_INSTANTIATE(double)
#undef PYREID_INSTANTIATE

}  // namespace pyreid::cuda
