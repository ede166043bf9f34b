// Batch-hard triplet loss: mining and loss in one launch or behind a matrix product, and the gradient as a gather.
//
// Candidates (squared distance, index) are compared in a total order, so the result does not depend on the order of the
// reduction: NaN before numbers, then the harder, then the lower index.
//
// Small batches: small_triplet.cuh, one launch.
//
// Large batches: cuBLAS has computed all inner products p; certified_pairs follows with a block per anchor. Of a pair
// it knows n_i + n_j - 2 p_ij (n: squared norms) and a bound on what that lost to rounding, so it knows an interval
// that holds the squared distance. Its first pass over the row of products finds what the hardest distance must at
// least reach; its second one sums the differences of the few pairs whose intervals do, a warp per pair, and compares
// those. So the pairs and their distances are those of the sums of differences, ties of equal rows included; they
// depend neither on how cuBLAS rounds nor on whether it may use TF32, which the bound covers. It reads B^2 products
// twice (the second time from the caches) and about 3 rows of D for each anchor and side. An anchor whose rows are all
// equally far, up to the bound, is summed in full.
//
// gradient: a block for one or four rows i, and a part of the columns where the batch is small. It lists the pairs that
// hold i, in the order of the anchors (ballots and counts, 1024 anchors at a time), and then adds their differences in
// that order, four loads in flight: no atomics, and results repeat bit for bit. Reads 2 B indices for each block and
// about 5 rows of D for each row, writes B D. Arithmetic is in T (float or double).
#include "csrc/cuda/batch_hard_triplet.cuh"

#include <cfloat>

#include "csrc/cuda/pack.cuh"
#include "csrc/cuda/pairwise_distance.cuh"
#include "csrc/cuda/small_triplet.cuh"
#include "csrc/cuda/triplet.cuh"

namespace pyreid::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;

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

// Every lane gets the hardest of the warp.
template <class T>
__device__ __forceinline__ Candidate<T> warp_hardest(Candidate<T> candidate) {
#pragma unroll
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) {
    Candidate<T> other;
    other.value = __shfl_xor_sync(kFullMask, candidate.value, offset);
    other.index = __shfl_xor_sync(kFullMask, candidate.index, offset);
    candidate = harder(candidate, other);
  }
  return candidate;
}

// Thread 0 gets the hardest of the block. `scratch` holds one candidate for each warp; the barrier at the beginning
// orders earlier reads of it.
template <class T>
__device__ __forceinline__ Candidate<T> block_hardest(Candidate<T> candidate, Candidate<T>* scratch) {
  candidate = warp_hardest(candidate);
  __syncthreads();
  if (threadIdx.x % kWarpSize == 0) scratch[threadIdx.x / kWarpSize] = candidate;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int warp = 1; warp < kWarps; ++warp) candidate = harder(candidate, scratch[warp]);
  }
  return candidate;
}

// The derivative of a distance by its rows is their difference over the distance, and taken as 0 at distance 0.
template <class T>
__device__ __forceinline__ T over_distance(T slope, T distance) {
  return distance == T(0) ? T(0) : slope / distance;
}

// What anchor i costs; the candidates hold squared distances, negated for the negative.
template <class T>
__device__ __forceinline__ void store_anchor(int64_t i, int64_t b, Candidate<T> positive, Candidate<T> negative,
                                             Margin margin, Reduction reduction, T* losses, int32_t* pairs, T* slopes) {
  T loss = loss_of_none<T>(reduction), positive_slope = 0, negative_slope = 0;
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

template <class T, int kRows, bool kClusters, bool kPacks>
__global__ __launch_bounds__(kSmallThreads, sizeof(T) == 4 ? 2 : 1) void small_hard_triplet_kernel(SmallTriplet<T> args,
                                                                                                   int32_t* pairs) {
  small_triplet<T, kRows, kClusters, kPacks>(args, [&](int i, const T* row, const int64_t* labels) {
    Candidate<T> positive = {T(0), -1}, negative = {T(0), -1};
    for (int j = threadIdx.x % kWarpSize; j < args.b; j += kWarpSize) {
      if (j == i) continue;
      if (labels[j] == labels[i]) {
        positive = harder(positive, Candidate<T>{row[j], j});
      } else {
        negative = harder(negative, Candidate<T>{-row[j], j});
      }
    }
    positive = warp_hardest(positive);
    negative = warp_hardest(negative);
    if (threadIdx.x % kWarpSize == 0) {
      store_anchor(i, args.b, positive, negative, args.margin, args.reduction, args.losses, pairs, args.slopes);
    }
  });
}

template <class T>
struct SmallHardTriplet {
  template <int kRows, bool kClusters, bool kPacks>
  struct At {
    static constexpr auto kernel = small_hard_triplet_kernel<T, kRows, kClusters, kPacks>;
  };
};

// Bounds the error of n_i + n_j - 2 p_ij by relative * (n_i + n_j) + absolute. A sum of d products, in any order and
// with additions that may truncate, loses at most d epsilon of the sum of their sizes, and 2 |p_ij| <= n_i + n_j; the
// norms lose half of that. Where TF32 is allowed, each factor of a product has lost up to 2^-10 before.
template <class T>
struct ProductError {
  T relative, absolute;
};

template <class T>
ProductError<T> product_error(int64_t d) {
  const T terms = static_cast<T>(d) + T(8);
  if constexpr (sizeof(T) == 4) return {2 * terms * FLT_EPSILON + 1.0f / 480, 4 * terms * FLT_MIN};
  return {static_cast<T>(2 * terms * DBL_EPSILON), static_cast<T>(4 * terms * DBL_MIN)};
}

// All lanes get the squared distance of two rows.
template <bool kPacks, class T>
__device__ __forceinline__ T warp_squared_distance(const T* __restrict__ a, const T* __restrict__ b, int64_t d) {
  T sum = 0;
  if constexpr (kPacks) {
    constexpr int kWidth = kPackSize<T>;
#pragma unroll 4
    for (int64_t k = threadIdx.x % kWarpSize * kWidth; k < d; k += kWarpSize * kWidth) {
      const Pack<T> p = load_pack(a + k), q = load_pack(b + k);
#pragma unroll
      for (int c = 0; c < kWidth; ++c) sum += (p[c] - q[c]) * (p[c] - q[c]);
    }
  } else {
#pragma unroll 4
    for (int64_t k = threadIdx.x % kWarpSize; k < d; k += kWarpSize) sum += (a[k] - b[k]) * (a[k] - b[k]);
  }
  return warp_sum(sum);
}

template <class T, bool kPacks>
__global__ __launch_bounds__(kThreads, 2) void certified_pairs_kernel(
    const T* __restrict__ x, const T* __restrict__ products, const T* __restrict__ norms,
    const int64_t* __restrict__ labels, int64_t b, int64_t d, ProductError<T> error, Margin margin, Reduction reduction,
    T* __restrict__ losses, int32_t* __restrict__ pairs, T* __restrict__ slopes) {
  __shared__ T scratch_values[kWarps];
  __shared__ Candidate<T> scratch[kWarps];
  const int lane = threadIdx.x % kWarpSize;
  for (int64_t i = blockIdx.x; i < b; i += gridDim.x) {
    const int64_t label = labels[i];
    const T norm = norms[i];
    const T* row = products + i * b;
    // What the farthest positive at least reaches, and the nearest negative, negated. NaN raises neither.
    T far = T(-INFINITY), near = T(-INFINITY);
    for (int64_t j = threadIdx.x; j < b; j += kThreads) {
      if (j == i) continue;
      const T both = norm + norms[j], squared = both - T(2) * row[j];
      const T bound = error.relative * both + error.absolute;
      if (labels[j] == label) {
        far = squared - bound > far ? squared - bound : far;
      } else {
        near = -squared - bound > near ? -squared - bound : near;
      }
    }
    far = block_max<kThreads>(far, scratch_values);
    near = block_max<kThreads>(near, scratch_values);
    Candidate<T> positive = {T(0), -1}, negative = {T(0), -1};
    for (int64_t first = threadIdx.x - lane; first < b; first += kThreads) {
      const int64_t j = first + lane;
      bool contends = false, same = false;
      if (j < b && j != i) {
        same = labels[j] == label;
        const T both = norm + norms[j], squared = both - T(2) * row[j];
        const T bound = error.relative * both + error.absolute;
        contends = !(same ? squared + bound < far : bound - squared < near);  // also where NaN is involved
      }
      T exact = 0;
      for (unsigned mask = __ballot_sync(kFullMask, contends); mask != 0; mask &= mask - 1) {
        const int at = __ffs(static_cast<int>(mask)) - 1;
        const T squared = warp_squared_distance<kPacks>(x + i * d, x + (first + at) * d, d);
        if (lane == at) exact = squared;
      }
      if (contends && same) positive = harder(positive, Candidate<T>{exact, static_cast<int>(j)});
      if (contends && !same) negative = harder(negative, Candidate<T>{-exact, static_cast<int>(j)});
    }
    positive = block_hardest(positive, scratch);
    negative = block_hardest(negative, scratch);
    if (threadIdx.x == 0) store_anchor(i, b, positive, negative, margin, reduction, losses, pairs, slopes);
  }
}

constexpr int kBatches = 4;
constexpr int kListed = kBatches * kThreads;  // anchors that are looked through at once

// Elements of a row that a thread moves at once.
template <class T, bool kPacks>
struct Columns {
  static constexpr int kWidth = kPacks ? kPackSize<T> : 1;
  T values[kWidth];
  __device__ __forceinline__ void load(const T* p) {
    if constexpr (kPacks) {
      const Pack<T> pack = load_pack(p);
#pragma unroll
      for (int c = 0; c < kWidth; ++c) values[c] = pack[c];
    } else {
      values[0] = *p;
    }
  }
  __device__ __forceinline__ void store(T* p) const {
    if constexpr (kPacks) {
      Pack<T> pack;
#pragma unroll
      for (int c = 0; c < kWidth; ++c) pack[c] = values[c];
      store_pack(p, pack);
    } else {
      *p = values[0];
    }
  }
};

template <class T, bool kPacks>
__global__ __launch_bounds__(kThreads) void hard_gradient_kernel(
    const T* __restrict__ grad, bool per_anchor, const T* __restrict__ x, const int32_t* __restrict__ pairs,
    const T* __restrict__ slopes, int64_t b, int64_t d, int rows, int64_t slab, int64_t slabs, int64_t items, T* dx) {
  using Row = Columns<T, kPacks>;
  __shared__ T weights[kListed + 2];
  __shared__ int others[kListed + 2];
  __shared__ int counts[kBatches][kWarps];
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  for (int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const int64_t first = item / slabs * rows, last = first + rows < b ? first + rows : b;
    const int64_t begin = item % slabs * slab, end = begin + slab < d ? begin + slab : d;
    for (int64_t chunk = 0; chunk < b; chunk += kListed) {
      int32_t positives[kBatches], negatives[kBatches];
#pragma unroll
      for (int batch = 0; batch < kBatches; ++batch) {
        const int64_t a = chunk + batch * kThreads + threadIdx.x;
        positives[batch] = a < b ? pairs[a] : -1;
        negatives[batch] = a < b ? pairs[b + a] : -1;
      }
      for (int64_t i = first; i < last; ++i) {
        // The pairs of which i is the anchor come first, then those of which it is the other row: as positive or as
        // negative, never both for one anchor.
        T own_weights[2] = {T(0), T(0)};
        int own_others[2] = {0, 0}, listed = 0;
        if (chunk == 0 && pairs[i] >= 0) {
          const T g = per_anchor ? grad[i] : grad[0];
          own_others[0] = pairs[i];
          own_others[1] = pairs[b + i];
          own_weights[0] = g * slopes[i];
          own_weights[1] = -g * slopes[b + i];
        }
        T batch_weights[kBatches];
        unsigned masks[kBatches];
#pragma unroll
        for (int batch = 0; batch < kBatches; ++batch) {
          const int64_t a = chunk + batch * kThreads + threadIdx.x;
          T weight = 0;
          if (positives[batch] == i) {
            weight = (per_anchor ? grad[a] : grad[0]) * slopes[a];
          } else if (negatives[batch] == i) {
            weight = -(per_anchor ? grad[a] : grad[0]) * slopes[b + a];
          }
          batch_weights[batch] = weight;
          masks[batch] = __ballot_sync(kFullMask, weight != T(0));
        }
        __syncthreads();  // the last list has been read
#pragma unroll
        for (int batch = 0; batch < kBatches; ++batch) {
          if (lane == 0) counts[batch][warp] = __popc(masks[batch]);
        }
#pragma unroll
        for (int side = 0; side < 2; ++side) {
          if (own_weights[side] == T(0)) continue;
          if (threadIdx.x == 0) {
            weights[listed] = own_weights[side];
            others[listed] = own_others[side];
          }
          ++listed;
        }
        __syncthreads();
#pragma unroll
        for (int batch = 0; batch < kBatches; ++batch) {
          if (chunk + batch * kThreads >= b) break;
          int before = listed;
#pragma unroll
          for (int w = 0; w < kWarps; ++w) {
            const int count = counts[batch][w];
            if (w < warp) before += count;
            listed += count;
          }
          if (batch_weights[batch] != T(0)) {
            const int at = before + __popc(masks[batch] & ((1u << lane) - 1u));
            weights[at] = batch_weights[batch];
            others[at] = static_cast<int>(chunk + batch * kThreads + threadIdx.x);
          }
        }
        __syncthreads();
        if (listed == 0 && chunk > 0) continue;
        // Each thread keeps to its own columns in all chunks.
        for (int64_t k = begin + threadIdx.x * Row::kWidth; k < end; k += kThreads * Row::kWidth) {
          Row own, sum;
          own.load(x + i * d + k);
          if (chunk == 0) {
#pragma unroll
            for (int c = 0; c < Row::kWidth; ++c) sum.values[c] = 0;
          } else {
            sum.load(dx + i * d + k);
          }
          constexpr int kInFlight = 4;
          for (int e = 0; e < listed; e += kInFlight) {
            Row other[kInFlight];
#pragma unroll
            for (int u = 0; u < kInFlight; ++u) {
              if (e + u < listed) other[u].load(x + others[e + u] * d + k);
            }
#pragma unroll
            for (int u = 0; u < kInFlight; ++u) {
              if (e + u >= listed) break;
              const T weight = weights[e + u];
#pragma unroll
              for (int c = 0; c < Row::kWidth; ++c) sum.values[c] += weight * (own.values[c] - other[u].values[c]);
            }
          }
          sum.store(dx + i * d + k);
        }
      }
    }
  }
}

}  // namespace

template <class T>
bool hard_triplet_clusters() {
  return small_can_cluster<SmallHardTriplet<T>::template At, T>();
}

int64_t hard_triplet_scratch(int64_t b, int64_t d, bool clusters) {
  return b > kSmallBatch ? b : small_scratch(b, d, clusters);
}

template <class T>
void batch_hard_triplet(const T* x, const T* products, const int64_t* labels, int64_t b, int64_t d, bool clusters,
                        Margin margin, Reduction reduction, T* scratch, T* losses, T* loss, int32_t* pairs, T* slopes,
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
    args.slope_count = 2 * b;
    launch_small<SmallHardTriplet<T>::template At>(args, clusters, stream, pairs);
    return;
  }
  if (b > 0) {
    T* norms = scratch;
    squared_norms(x, b, d, norms, stream);
    const ProductError<T> error = product_error<T>(d);
    if (fits_packs(x, d)) {
      PYREID_LAUNCH((certified_pairs_kernel<T, true>), grid_for(b, 1), kThreads, 0, stream, x, products, norms, labels,
                    b, d, error, margin, reduction, losses, pairs, slopes);
    } else {
      PYREID_LAUNCH((certified_pairs_kernel<T, false>), grid_for(b, 1), kThreads, 0, stream, x, products, norms, labels,
                    b, d, error, margin, reduction, losses, pairs, slopes);
    }
  }
  launch_reduce_losses(b, 2 * b, reduction, losses, loss, slopes, stream);
}

template <class T>
void batch_hard_triplet_backward(const T* grad, bool per_anchor, const T* x, const int32_t* pairs, const T* slopes,
                                 int64_t b, int64_t d, T* dx, cudaStream_t stream) {
  if (b == 0 || d == 0) return;
  const bool packs = fits_packs(x, d) && fits_packs(dx, d);
  // Small batches are split by columns as well; in large ones a few rows share the search through the pairs.
  const int rows = b > 1024 ? 4 : 1;
  const int64_t width = kThreads * (packs ? kPackSize<T> : 1);
  const int64_t slab = b > kSmallBatch ? d : width, slabs = (d + slab - 1) / slab;
  const int64_t items = (b + rows - 1) / rows * slabs;
  if (packs) {
    PYREID_LAUNCH((hard_gradient_kernel<T, true>), grid_for(items, 1), kThreads, 0, stream, grad, per_anchor, x, pairs,
                  slopes, b, d, rows, slab, slabs, items, dx);
  } else {
    PYREID_LAUNCH((hard_gradient_kernel<T, false>), grid_for(items, 1), kThreads, 0, stream, grad, per_anchor, x, pairs,
                  slopes, b, d, rows, slab, slabs, items, dx);
  }
}

#define PYREID_INSTANTIATE(T)                                                                                         \
  template bool hard_triplet_clusters<T>();                                                                           \
  template void batch_hard_triplet(const T*, const T*, const int64_t*, int64_t, int64_t, bool, Margin, Reduction, T*, \
                                   T*, T*, int32_t*, T*, cudaStream_t);                                               \
  template void batch_hard_triplet_backward(const T*, bool, const T*, const int32_t*, const T*, int64_t, int64_t, T*, \
                                            cudaStream_t);
PYREID_INSTANTIATE(float)
PYREID_INSTANTIATE(double)
#undef PYREID_INSTANTIATE

}  // namespace pyreid::cuda
