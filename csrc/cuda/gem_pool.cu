// gem_pool: y = (mean over a row of max(x, eps)^p)^(1/p), a row being the n positions of one channel of one sample.
//
// A group of kGroup threads has a row: a warp up to 1024 positions, a block of 256 threads above. pooled_kernel reads
// the row for its largest value m and again, from cache, for the sums of u^p and u^p log2 u over u = v / m, v = max(x,
// eps): with u in (0, 1] nothing overflows, whatever x and p. It keeps m, dy/dx at m and dy/dp, so that gradient_kernel
// is one pass, dx = grad dy/dx(m) u^(p - 1), with no reduction. Bytes: 1 read of x forward, 1 read and 1 write
// backward. Arithmetic is in float for half types, else in the type of x; each thread adds 64 terms before they go into
// its total, so that rounding errors do not grow with n. p = 1, 2 and 3 need no logarithm, unless dy/dp is wanted. dp
// is summed in double, over samples by a block for 32 channels, then over channels by one block if p is a single value.
// All sums run in a fixed order, so results repeat bit for bit. p is read on the device: no synchronisation.
#include "csrc/cuda/gem_pool.cuh"

#include "csrc/cuda/half.cuh"
#include "csrc/cuda/launch.cuh"
#include "csrc/cuda/reduce.cuh"

namespace pyreid::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;
constexpr int64_t kLongestWarpRow = 1024;
constexpr int kTermsPerPartial = 64;

__device__ __forceinline__ float log_2(float x) { return log2f(x); }
__device__ __forceinline__ double log_2(double x) { return log2(x); }
__device__ __forceinline__ float exp_2(float x) { return exp2f(x); }
__device__ __forceinline__ double exp_2(double x) { return exp2(x); }

template <class T>
__device__ __forceinline__ T exponent_of(const GemExponent<T>& p, int64_t channel) {
  return p.values == nullptr ? p.value : p.values[p.count == 1 ? 0 : channel];
}

// NaN is larger than everything, so that it is never lost.
template <class T>
__device__ __forceinline__ T larger_or_nan(T a, T b) {
  return b > a || b != b ? b : a;
}

template <class T>
__device__ __forceinline__ T clamp_from_below(T x, T eps) {
  return x < eps ? eps : x;  // keeps NaN
}

__device__ __forceinline__ float smallest_normal(float) { return 1.17549435e-38f; }
__device__ __forceinline__ double smallest_normal(double) { return 2.2250738585072014e-308; }

// log2(v / m) for 0 < v <= m, also where the quotient underflows
template <class T>
__device__ __forceinline__ T log_ratio(T v, T m) {
  const T u = v / m;
  return u < smallest_normal(u) ? log_2(v) - log_2(m) : log_2(u);
}

// (v / m)^p for 0 < v <= m; p is the same for all threads of a group
template <class T>
__device__ __forceinline__ T power_of_ratio(T v, T m, T p) {
  if (p == T(0)) return T(1);
  if (p == T(1)) return v / m;
  if (p == T(2)) return (v / m) * (v / m);
  if (p == T(3)) return (v / m) * (v / m) * (v / m);
  return exp_2(p * log_ratio(v, m));
}

template <int kGroup, class T>
__device__ __forceinline__ T group_sum(T value, T* scratch) {
  if constexpr (kGroup == kWarpSize) {
    return warp_sum(value);
  } else {
    return block_sum<kGroup>(value, scratch);
  }
}

template <int kGroup, class T>
__device__ __forceinline__ T group_largest(T value, T* scratch) {
#pragma unroll
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) {
    value = larger_or_nan(value, __shfl_xor_sync(kFullMask, value, offset));
  }
  if constexpr (kGroup == kWarpSize) {
    return value;
  } else {
    __syncthreads();
    if (threadIdx.x % kWarpSize == 0) scratch[threadIdx.x / kWarpSize] = value;
    __syncthreads();
    value = scratch[0];
#pragma unroll
    for (int warp = 1; warp < kGroup / kWarpSize; ++warp) value = larger_or_nan(value, scratch[warp]);
    return value;
  }
}

template <class S, class T, int kGroup>
__global__ void pooled_kernel(const S* __restrict__ x, int64_t rows, int64_t channels, int64_t n, GemExponent<T> p,
                              T eps, T* __restrict__ pooled, T* __restrict__ largest, T* __restrict__ factor,
                              T* __restrict__ slope) {
  __shared__ T scratch[kWarps];
  const int member = threadIdx.x % kGroup;
  const int64_t groups = static_cast<int64_t>(gridDim.x) * (kThreads / kGroup);
  // All threads of a group have the same row, so that all of them reach its shuffles and barriers.
  for (int64_t r = blockIdx.x * static_cast<int64_t>(kThreads / kGroup) + threadIdx.x / kGroup; r < rows; r += groups) {
    const S* row = x + r * n;
    const T exponent = exponent_of(p, r % channels);
    T m = eps;
    for (int64_t i = member; i < n; i += kGroup) m = larger_or_nan(m, to_compute(row[i]));
    m = group_largest<kGroup>(m, scratch);

    T sum = 0, log_sum = 0, partial = 0, log_partial = 0;
    int terms = 0;
    for (int64_t i = member; i < n; i += kGroup) {
      const T v = clamp_from_below(to_compute(row[i]), eps);
      if (slope != nullptr) {
        const T log_u = log_ratio(v, m);
        const T power = exp_2(exponent * log_u);
        partial += power;
        if (power > T(0)) log_partial += power * log_u;  // u^p log2 u goes to 0 with u^p
      } else {
        partial += power_of_ratio(v, m, exponent);
      }
      if (++terms == kTermsPerPartial) {
        sum += partial;
        log_sum += log_partial;
        partial = log_partial = 0;
        terms = 0;
      }
    }
    sum = group_sum<kGroup>(sum + partial, scratch);
    if (slope != nullptr) log_sum = group_sum<kGroup>(log_sum + log_partial, scratch);
    if (member != 0) continue;

    largest[r] = m;
    const bool finite = m - m == T(0);
    // NaN and infinity pool to themselves; there u is NaN, and the sum with it
    const T log_mean = finite ? log_2(sum / static_cast<T>(n)) : T(0);
    const T ratio = exp_2(log_mean / exponent);
    const T y = m * (ratio > T(1) ? T(1) : ratio);  // a mean is no larger than the largest
    pooled[r] = y;
    factor[r] = exp_2(log_mean * (T(1) / exponent - T(1))) / static_cast<T>(n);
    if (slope != nullptr) {
      constexpr double kLn2 = 0.6931471805599453;
      slope[r] = y / exponent * static_cast<T>(kLn2) * (log_sum / sum - log_mean / exponent);
    }
  }
}

template <class S, class T, int kGroup>
__global__ void gradient_kernel(const T* __restrict__ grad, const S* __restrict__ x, const T* __restrict__ largest,
                                const T* __restrict__ factor, int64_t rows, int64_t channels, int64_t n,
                                GemExponent<T> p, T eps, S* __restrict__ dx) {
  const int member = threadIdx.x % kGroup;
  const int64_t groups = static_cast<int64_t>(gridDim.x) * (kThreads / kGroup);
  for (int64_t r = blockIdx.x * static_cast<int64_t>(kThreads / kGroup) + threadIdx.x / kGroup; r < rows; r += groups) {
    const S* row = x + r * n;
    S* out = dx + r * n;
    const T exponent = exponent_of(p, r % channels) - T(1), m = largest[r], scale = grad[r] * factor[r];
    for (int64_t i = member; i < n; i += kGroup) {
      const T value = to_compute(row[i]);
      out[i] = to_storage<S>(value < eps ? T(0) : scale * power_of_ratio(value, m, exponent));
    }
  }
}

// by_channel[c] = sum over samples: a block for 32 channels, each of its warps for every eighth sample.
template <class T>
__global__ void exponent_gradient_kernel(const T* __restrict__ grad, const T* __restrict__ slope, int64_t samples,
                                         int64_t channels, double* __restrict__ by_channel, T* __restrict__ dp) {
  __shared__ double scratch[kThreads];
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  for (int64_t first = blockIdx.x * static_cast<int64_t>(kWarpSize); first < channels;
       first += static_cast<int64_t>(gridDim.x) * kWarpSize) {
    const int64_t c = first + lane;
    double sum = 0;
    if (c < channels) {
      for (int64_t i = warp; i < samples; i += kWarps) {
        sum += static_cast<double>(grad[i * channels + c]) * static_cast<double>(slope[i * channels + c]);
      }
    }
    __syncthreads();  // the scratch of the channels before has been read
    scratch[threadIdx.x] = sum;
    __syncthreads();
    if (warp == 0 && c < channels) {
      for (int other = 1; other < kWarps; ++other) sum += scratch[other * kWarpSize + lane];
      by_channel[c] = sum;
      if (dp != nullptr) dp[c] = static_cast<T>(sum);
    }
  }
}

// One block.
template <class T>
__global__ void total_kernel(const double* __restrict__ by_channel, int64_t channels, T* __restrict__ dp) {
  __shared__ double scratch[kWarps];
  double sum = 0;
  for (int64_t c = threadIdx.x; c < channels; c += kThreads) sum += by_channel[c];
  sum = block_sum<kThreads>(sum, scratch);
  if (threadIdx.x == 0) dp[0] = static_cast<T>(sum);
}

}  // namespace

template <class S, class T>
void gem_pool(const S* x, int64_t samples, int64_t channels, int64_t n, GemExponent<T> p, T eps, T* pooled, T* largest,
              T* factor, T* slope, cudaStream_t stream) {
  const int64_t rows = samples * channels;
  if (rows == 0) return;
  if (n <= kLongestWarpRow) {
    PYREID_LAUNCH((pooled_kernel<S, T, kWarpSize>), grid_for(rows, kWarps), kThreads, 0, stream, x, rows, channels, n,
                  p, eps, pooled, largest, factor, slope);
  } else {
    PYREID_LAUNCH((pooled_kernel<S, T, kThreads>), grid_for(rows, 1), kThreads, 0, stream, x, rows, channels, n, p, eps,
                  pooled, largest, factor, slope);
  }
}

template <class S, class T>
void gem_pool_gradient(const T* grad, const S* x, const T* largest, const T* factor, int64_t samples, int64_t channels,
                       int64_t n, GemExponent<T> p, T eps, S* dx, cudaStream_t stream) {
  const int64_t rows = samples * channels;
  if (rows == 0) return;
  if (n <= kLongestWarpRow) {
    PYREID_LAUNCH((gradient_kernel<S, T, kWarpSize>), grid_for(rows, kWarps), kThreads, 0, stream, grad, x, largest,
                  factor, rows, channels, n, p, eps, dx);
  } else {
    PYREID_LAUNCH((gradient_kernel<S, T, kThreads>), grid_for(rows, 1), kThreads, 0, stream, grad, x, largest, factor,
                  rows, channels, n, p, eps, dx);
  }
}

template <class T>
void gem_pool_exponent_gradient(const T* grad, const T* slope, int64_t samples, int64_t channels, double* by_channel,
                                int64_t count, T* dp, cudaStream_t stream) {
  T* none = nullptr;
  if (channels > 0) {
    PYREID_LAUNCH((exponent_gradient_kernel<T>), grid_for(channels, kWarpSize), kThreads, 0, stream, grad, slope,
                  samples, channels, by_channel, count == 1 ? none : dp);
  }
  if (count == 1) {
    PYREID_LAUNCH((total_kernel<T>), 1, kThreads, 0, stream, by_channel, channels, dp);
  }
}

#define PYREID_INSTANTIATE_ROWS(S, T)                                                                                \
  template void gem_pool(const S*, int64_t, int64_t, int64_t, GemExponent<T>, T, T*, T*, T*, T*, cudaStream_t);      \
  template void gem_pool_gradient(const T*, const S*, const T*, const T*, int64_t, int64_t, int64_t, GemExponent<T>, \
                                  T, S*, cudaStream_t);
#define PYREID_INSTANTIATE(T) \
  template void gem_pool_exponent_gradient(const T*, const T*, int64_t, int64_t, double*, int64_t, T*, cudaStream_t);
PYREID_INSTANTIATE_ROWS(float, float)
PYREID_INSTANTIATE_ROWS(double, double)
PYREID_INSTANTIATE_ROWS(__half, float)
PYREID_INSTANTIATE_ROWS(__nv_bfloat16, float)
PYREID_INSTANTIATE(float)
PYREID_INSTANTIATE(double)
#undef PYREID_INSTANTIATE
#undef PYREID_INSTANTIATE_ROWS

}  // namespace pyreid::cuda
