// Batch-soft triplet loss: softmax-weighted means, loss and their derivatives by the distances in one pass over the
// rows of distances, and the gradient as a sum of weighted differences.
//
// Means: the largest positive and the smallest negative distance of a row are found first, the exponentials are summed
// relative to them, and the row is overwritten by the derivatives over the distances.
//
// Small batches: small_triplet.cuh, one launch; a warp for each anchor does the means.
//
// Large batches: self_distances.cu writes the squared distances where the weights will lie (or in parts beside them,
// below about a thousand rows), and weighted_means follows with a block per anchor: one B x B matrix in all. A product
// of matrices in full float32 would gain nothing over the differences: it takes B^2 D multiply-adds for all pairs,
// where the differences take a subtraction and a multiply-add for half of them, and then neither cancellation nor the
// program's choice of TF32 is there to be mended.
//
// gradient: row i of dx is the sum over j of (g_i w_ij + g_j w_ji) (x_i - x_j). A thread holds 4 rows of 4 columns (2
// of doubles): 32 instructions of arithmetic for two 128-bit loads, of a row j, straight from the caches, and of 4
// weights from shared memory, whose loads are under way all at once. A block computes 64 rows, or 16 where blocks
// of 64 would be few: there its warps share the rows j out among them in four parts, whose sums are added in order, so
// that B = 72, D = 2048 gives 160 blocks and B = 1024, D = 512 gives 512. The differences are formed one by one, since
// a product of matrices would lose the digits of near duplicates, whose weights are large. Reads B^2 D / 64 (or 16)
// features and 2 B^2 D / 64 weights, mostly from the second-level cache; writes B D. All sums run in a fixed order, so
// results repeat bit for bit. Arithmetic is in T (float or double).
#include "csrc/cuda/batch_soft_triplet.cuh"

#include "csrc/cuda/pack.cuh"
#include "csrc/cuda/self_distances.cuh"
#include "csrc/cuda/small_triplet.cuh"
#include "csrc/cuda/triplet.cuh"

namespace pyreid::cuda {
namespace {

constexpr int kThreads = 256;

// Who computes the means of an anchor: every thread of the team gets every sum.
struct WarpTeam {
  static constexpr int kSize = kWarpSize;
  __device__ __forceinline__ int rank() const { return static_cast<int>(threadIdx.x) % kWarpSize; }
  template <class T>
  __device__ __forceinline__ T sum(T value) const {
    return warp_sum(value);
  }
  template <class T>
  __device__ __forceinline__ T max(T value) const {
    return warp_max(value);
  }
};

template <class T>
struct BlockTeam {
  static constexpr int kSize = kThreads;
  T* scratch;
  int* count_scratch;
  __device__ __forceinline__ int rank() const { return static_cast<int>(threadIdx.x); }
  __device__ __forceinline__ int sum(int value) const { return block_sum<kThreads>(value, count_scratch); }
  __device__ __forceinline__ T sum(T value) const { return block_sum<kThreads>(value, scratch); }
  __device__ __forceinline__ T max(T value) const { return block_max<kThreads>(value, scratch); }
};

// The mean of distances with weights softmax(+-distance), relative to the largest (smallest) one.
template <class T>
struct WeightedMean {
  T shift;
  T total;  // of exp(+-(distance - shift))
  T mean;   // of distance - shift
};

// squared(j) is read before distances[j] is written; `distances` and `weights` may be one row. Each thread keeps to its
// own columns.
template <class T, class Team, class Squared>
__device__ __forceinline__ void weighted_means(const Team& team, int64_t i, const int64_t* labels, int64_t b,
                                               const Squared& squared, Margin margin, Reduction reduction, T* distances,
                                               T* weights, T* losses, T* slopes) {
  const int64_t label = labels[i];
  T farthest = T(-INFINITY), nearest = T(-INFINITY);  // nearest: the largest of the negated
  int positives = 0, negatives = 0;
  for (int64_t j = team.rank(); j < b; j += Team::kSize) {
    const T distance = sqrt(squared(j));
    distances[j] = distance;
    if (labels[j] != label) {
      ++negatives;
      nearest = -distance > nearest ? -distance : nearest;
    } else if (j != i) {
      ++positives;
      farthest = distance > farthest ? distance : farthest;
    }
  }
  positives = team.sum(positives);
  negatives = team.sum(negatives);
  if (positives == 0 || negatives == 0) {
    for (int64_t j = team.rank(); j < b; j += Team::kSize) weights[j] = 0;
    if (team.rank() == 0) {
      losses[i] = loss_of_none<T>(reduction);
      slopes[i] = 0;
    }
    return;
  }
  WeightedMean<T> positive = {team.max(farthest), T(0), T(0)};
  WeightedMean<T> negative = {-team.max(nearest), T(0), T(0)};
  for (int64_t j = team.rank(); j < b; j += Team::kSize) {
    if (labels[j] != label) {
      const T relative = distances[j] - negative.shift, e = exp(-relative);
      negative.total += e;
      negative.mean += e * relative;
    } else if (j != i) {
      const T relative = distances[j] - positive.shift, e = exp(relative);
      positive.total += e;
      positive.mean += e * relative;
    }
  }
  positive.total = team.sum(positive.total);
  positive.mean = team.sum(positive.mean) / positive.total;
  negative.total = team.sum(negative.total);
  negative.mean = team.sum(negative.mean) / negative.total;
  // Of a mean with weights softmax(+-d): w_j (1 +- (d_j - mean)).
  for (int64_t j = team.rank(); j < b; j += Team::kSize) {
    const T distance = distances[j];
    T gradient = 0;
    if (labels[j] != label) {
      const T relative = distance - negative.shift;
      gradient = -exp(-relative) / negative.total * (T(1) + (negative.mean - relative));
    } else if (j != i) {
      const T relative = distance - positive.shift;
      gradient = exp(relative) / positive.total * (T(1) + (relative - positive.mean));
    }
    weights[j] = distance == T(0) || j == i ? T(0) : gradient / distance;
  }
  if (team.rank() == 0) {
    const T difference = (positive.shift - negative.shift) + (positive.mean - negative.mean);
    triplet_loss(difference, margin, &losses[i], &slopes[i]);
  }
}

template <class T, int kRows, bool kClusters, bool kPacks>
__global__ __launch_bounds__(kSmallThreads, sizeof(T) == 4 ? 2 : 1) void small_soft_triplet_kernel(SmallTriplet<T> args,
                                                                                                   T* weights) {
  small_triplet<T, kRows, kClusters, kPacks>(args, [&](int i, T* row, const int64_t* labels) {
    weighted_means(
        WarpTeam{}, i, labels, args.b, [&](int64_t j) { return row[j]; }, args.margin, args.reduction, row,
        weights + static_cast<int64_t>(i) * args.b, args.losses, args.slopes);
  });
}

template <class T>
struct SmallSoftTriplet {
  template <int kRows, bool kClusters, bool kPacks>
  struct At {
    static constexpr auto kernel = small_soft_triplet_kernel<T, kRows, kClusters, kPacks>;
  };
};

// `squared` may be `weights` where there is one split.
template <class T>
__global__ void weighted_means_kernel(const T* squared, const int64_t* __restrict__ labels, int64_t b, int64_t splits,
                                      Margin margin, Reduction reduction, T* losses, T* weights, T* slopes) {
  __shared__ T scratch[kThreads / kWarpSize];
  __shared__ int count_scratch[kThreads / kWarpSize];
  const BlockTeam<T> team = {scratch, count_scratch};
  for (int64_t i = blockIdx.x; i < b; i += gridDim.x) {
    const auto sum_splits = [&](int64_t j) {
      T sum = squared[i * b + j];
      for (int64_t split = 1; split < splits; ++split) sum += squared[(split * b + i) * b + j];
      return sum;
    };
    weighted_means(team, i, labels, b, sum_splits, margin, reduction, weights + i * b, weights + i * b, losses, slopes);
  }
}

constexpr int kThreadRows = 4;
constexpr int kPackColumns = 16;      // packs of a tile's width
constexpr int kTileWeights = 4096;    // rows of a tile times rows j at once
constexpr int kPad = 4;               // keeps 4 weights aligned and their banks apart
constexpr int64_t kManyBlocks = 264;  // two for each multiprocessor of an H200

template <class T>
constexpr int kTileColumns = kPackColumns * kPackSize<T>;

// kSlices: into how many parts the rows j are shared out.
template <int kSlices>
constexpr int kTileRows = kThreads / (kPackColumns * kSlices) * kThreadRows;

template <class T, int kSlices, bool kPacks>
__global__ __launch_bounds__(kThreads, sizeof(T) == 4 ? 2 : 1) void soft_gradient_kernel(
    const T* __restrict__ grad, bool per_anchor, const T* __restrict__ x, const T* __restrict__ weights,
    const T* __restrict__ slopes, int64_t b, int64_t d, int64_t column_tiles, int64_t tiles, T* __restrict__ dx) {
  constexpr int kWidth = kPackSize<T>, kColumns = kTileColumns<T>;
  constexpr int kRows = kTileRows<kSlices>, kOthers = kTileWeights / kRows;
  constexpr int kGroups = kRows / kThreadRows;
  constexpr int kStaged = kTileWeights / kThreads, kFactors = (kOthers + kThreads - 1) / kThreads;  // of a thread
  __shared__ __align__(16) T pair_weights[kOthers][kRows + kPad];
  __shared__ T own_factors[kRows], other_factors[kOthers];
  static_assert(kSlices == 1 || kThreads * kThreadRows * kWidth <= kOthers * (kRows + kPad), "sums reuse the weights");
  const int column = static_cast<int>(threadIdx.x) % kPackColumns;
  const int group = static_cast<int>(threadIdx.x) / kPackColumns % kGroups;
  const int slice = static_cast<int>(threadIdx.x) / (kPackColumns * kGroups);
  const auto load = [&](int64_t row, int64_t k, T(&out)[kWidth]) {
    if constexpr (kPacks) {
      Pack<T> pack = {};
      if (k < d) pack = load_pack(x + row * d + k);
#pragma unroll
      for (int c = 0; c < kWidth; ++c) out[c] = pack[c];
    } else {
#pragma unroll
      for (int c = 0; c < kWidth; ++c) out[c] = k + c < d ? x[row * d + k + c] : T(0);
    }
  };
  // Of the weights that a thread fetches: the first row and the column in a tile's part of the matrix...
  constexpr int kRowStep = kThreads / kOthers, kOtherStep = kThreads / kRows;
  static_assert(kThreads % kOthers == 0 && kThreads % kRows == 0, "a thread keeps to its column");
  const int tile_row = static_cast<int>(threadIdx.x) / kOthers, across = static_cast<int>(threadIdx.x) % kOthers;
  // ...and in the mirror image of that part, whose rows are the rows j.
  const int tile_other = static_cast<int>(threadIdx.x) / kRows, down = static_cast<int>(threadIdx.x) % kRows;
  const auto fetch = [&](int64_t row0, int64_t column0, int row, int column, int step, T(&out)[kStaged]) {
    const int64_t first = row0 + row;
    const T* place = weights + first * b + column0 + column;
    const int64_t left = column0 + column < b ? b - first : 0;  // rows from the first one on
#pragma unroll
    for (int s = 0; s < kStaged; ++s) {
      out[s] = s * step < left ? *place : T(0);
      place += step * b;
    }
  };
  const auto factor_of = [&](int64_t a) { return a < b ? (per_anchor ? grad[a] : grad[0]) * slopes[a] : T(0); };
  for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const int64_t i0 = tile / column_tiles * kRows;
    const int64_t k = tile % column_tiles * kColumns + column * kWidth;
    T own[kThreadRows][kWidth], sums[kThreadRows][kWidth];
#pragma unroll
    for (int r = 0; r < kThreadRows; ++r) {
      const int64_t i = i0 + group * kThreadRows + r;
      load(i < b ? i : b - 1, k, own[r]);
#pragma unroll
      for (int c = 0; c < kWidth; ++c) sums[r][c] = 0;
    }
    for (int e = threadIdx.x; e < kRows; e += kThreads) own_factors[e] = factor_of(i0 + e);
    for (int64_t j0 = 0; j0 < b; j0 += kOthers) {
      const int others = static_cast<int>(b - j0 < kOthers ? b - j0 : kOthers);
      // All loads of a thread are under way at once, while other warps and the block beside this one still sum.
      T factors[kFactors], along_rows[kStaged], along_columns[kStaged];
#pragma unroll
      for (int s = 0; s < kFactors; ++s) factors[s] = factor_of(j0 + s * kThreads + threadIdx.x);
      fetch(i0, j0, tile_row, across, kRowStep, along_rows);
      fetch(j0, i0, tile_other, down, kOtherStep, along_columns);
      __syncthreads();  // the last weights have been read
#pragma unroll
      for (int s = 0; s < kFactors; ++s) {
        const int e = s * kThreads + static_cast<int>(threadIdx.x);
        if (e < kOthers) other_factors[e] = factors[s];
      }
#pragma unroll
      for (int s = 0; s < kStaged; ++s) {
        const int r = tile_row + s * kRowStep;
        pair_weights[across][r] = own_factors[r] * along_rows[s];
      }
      __syncthreads();
#pragma unroll
      for (int s = 0; s < kStaged; ++s) {
        const int j = tile_other + s * kOtherStep;
        pair_weights[j][down] += other_factors[j] * along_columns[s];
      }
      __syncthreads();
#pragma unroll 4
      for (int j = slice; j < others; j += kSlices) {
        T other[kWidth], weight[kThreadRows];
        load(j0 + j, k, other);
#pragma unroll
        for (int r = 0; r < kThreadRows; r += kWidth) {
          const Pack<T> pack = load_pack(&pair_weights[j][group * kThreadRows + r]);
#pragma unroll
          for (int c = 0; c < kWidth; ++c) weight[r + c] = pack[c];
        }
#pragma unroll
        for (int r = 0; r < kThreadRows; ++r) {
#pragma unroll
          for (int c = 0; c < kWidth; ++c) sums[r][c] += weight[r] * (own[r][c] - other[c]);
        }
      }
    }
    if constexpr (kSlices > 1) {
      T* shared_sums = &pair_weights[0][0];  // [kSlices, kThreadRows * kWidth, threads of a slice]
      constexpr int kSliceThreads = kThreads / kSlices;
      const int place = static_cast<int>(threadIdx.x) % kSliceThreads;
      __syncthreads();
#pragma unroll
      for (int r = 0; r < kThreadRows; ++r) {
#pragma unroll
        for (int c = 0; c < kWidth; ++c) {
          shared_sums[(slice * kThreadRows * kWidth + r * kWidth + c) * kSliceThreads + place] = sums[r][c];
        }
      }
      __syncthreads();
      if (slice == 0) {
#pragma unroll
        for (int r = 0; r < kThreadRows; ++r) {
#pragma unroll
          for (int c = 0; c < kWidth; ++c) {
#pragma unroll
            for (int s = 1; s < kSlices; ++s) {
              sums[r][c] += shared_sums[(s * kThreadRows * kWidth + r * kWidth + c) * kSliceThreads + place];
            }
          }
        }
      }
    }
    if (slice == 0) {
#pragma unroll
      for (int r = 0; r < kThreadRows; ++r) {
        const int64_t i = i0 + group * kThreadRows + r;
        if (i >= b) continue;
        if constexpr (kPacks) {
          Pack<T> pack;
#pragma unroll
          for (int c = 0; c < kWidth; ++c) pack[c] = sums[r][c];
          if (k < d) store_pack(dx + i * d + k, pack);
        } else {
#pragma unroll
          for (int c = 0; c < kWidth; ++c) {
            if (k + c < d) dx[i * d + k + c] = sums[r][c];
          }
        }
      }
    }
  }
}

template <class T, int kSlices>
int64_t gradient_tiles(int64_t b, int64_t d) {
  return (b + kTileRows<kSlices> - 1) / kTileRows<kSlices> * ((d + kTileColumns<T> - 1) / kTileColumns<T>);
}

template <class T, int kSlices>
void launch_soft_gradient(const T* grad, bool per_anchor, const T* x, const T* weights, const T* slopes, int64_t b,
                          int64_t d, T* dx, cudaStream_t stream) {
  const int64_t column_tiles = (d + kTileColumns<T> - 1) / kTileColumns<T>;
  const int64_t tiles = gradient_tiles<T, kSlices>(b, d);
  if (fits_packs(x, d) && fits_packs(dx, d)) {
    PYREID_LAUNCH((soft_gradient_kernel<T, kSlices, true>), grid_for(tiles, 1), kThreads, 0, stream, grad, per_anchor,
                  x, weights, slopes, b, d, column_tiles, tiles, dx);
  } else {
    PYREID_LAUNCH((soft_gradient_kernel<T, kSlices, false>), grid_for(tiles, 1), kThreads, 0, stream, grad, per_anchor,
                  x, weights, slopes, b, d, column_tiles, tiles, dx);
  }
}

}  // namespace

template <class T>
bool soft_triplet_clusters() {
  return small_can_cluster<SmallSoftTriplet<T>::template At, T>();
}

int64_t soft_triplet_scratch(int64_t b, int64_t d, bool clusters) {
  if (b <= kSmallBatch) return small_scratch(b, d, clusters);
  const int64_t splits = distance_splits(b, d);
  return splits > 1 ? splits * b * b : 0;
}

template <class T>
void batch_soft_triplet(const T* x, const int64_t* labels, int64_t b, int64_t d, bool clusters, Margin margin,
                        Reduction reduction, T* scratch, T* losses, T* loss, T* weights, T* slopes,
                        cudaStream_t stream) {
  if (0 < b && b <= kSmallBatch) {
    SmallTriplet<T> args = {};
    args.x = x;
    args.labels = labels;
    args.b = static_cast<int>(b);
    args.d = d;
    args.partial = scratch;
    args.margin = margin;
    args.reduction = reduction;
    args.losses = losses;
    args.loss = loss;
    args.slopes = slopes;
    args.slope_count = b;
    launch_small<SmallSoftTriplet<T>::template At>(args, clusters, stream, weights);
    return;
  }
  if (b > 0) {
    const int64_t splits = distance_splits(b, d);
    T* squared = splits > 1 ? scratch : weights;
    squared_self_distances(x, b, d, splits, squared, stream);
    PYREID_LAUNCH((weighted_means_kernel<T>), grid_for(b, 1), kThreads, 0, stream, squared, labels, b, splits, margin,
                  reduction, losses, weights, slopes);
  }
  launch_reduce_losses(b, b, reduction, losses, loss, slopes, stream);
}

template <class T>
void batch_soft_triplet_backward(const T* grad, bool per_anchor, const T* x, const T* weights, const T* slopes,
                                 int64_t b, int64_t d, T* dx, cudaStream_t stream) {
  if (b == 0 || d == 0) return;
  if (b <= kSmallBatch || gradient_tiles<T, 1>(b, d) < kManyBlocks) {
    launch_soft_gradient<T, 4>(grad, per_anchor, x, weights, slopes, b, d, dx, stream);
  } else {
    launch_soft_gradient<T, 1>(grad, per_anchor, x, weights, slopes, b, d, dx, stream);
  }
}

#define PYREID_INSTANTIATE(T)                                                                                       \
  template bool soft_triplet_clusters<T>();                                                                         \
  template void batch_soft_triplet(const T*, const int64_t*, int64_t, int64_t, bool, Margin, Reduction, T*, T*, T*, \
                                   T*, T*, cudaStream_t);                                                           \
  template void batch_soft_triplet_backward(const T*, bool, const T*, const T*, const T*, int64_t, int64_t, T*,     \
                                            cudaStream_t);
PYREID_INSTANTIATE(float)
PYREID_INSTANTIATE(double)
#undef PYREID_INSTANTIATE

}  // namespace pyreid::cuda
