// pairwise_distance around a matrix product that cuBLAS has done.
//
// squared_norms: a warp per row, reads N D once. distances_from_products: a thread per pair, one read and one write of
// N M; pairs whose squared distance cancels (metric.h) are summed again from the features, D reads of each row, which
// is rare. distance_gradient_weights: a block per row for the weights and row sums, then a thread per column for the
// column sums: 3 reads and 1 write of N M, then 1 to 2 reads. All sums run in a fixed order, so results repeat bit for
// bit. Arithmetic is in T (float or double).
#include "csrc/cuda/pairwise_distance.cuh"

#include "csrc/cuda/launch.cuh"
#include "csrc/cuda/reduce.cuh"

namespace pyreid::cuda {
namespace {

constexpr int kThreads = 256;

// A row of zero length has no direction: its cosine similarity with anything is 0.
template <class T>
__device__ __forceinline__ T inverse_norm(T squared) {
  return squared > T(0) ? T(1) / sqrt(squared) : T(0);
}

template <class T>
__global__ void squared_norms_kernel(const T* __restrict__ x, int64_t n, int64_t d, T* __restrict__ norms) {
  const int lane = threadIdx.x % kWarpSize;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * (kThreads / kWarpSize);
  for (int64_t i = blockIdx.x * static_cast<int64_t>(kThreads / kWarpSize) + threadIdx.x / kWarpSize; i < n;
       i += warps) {
    T sum = 0;
    for (int64_t k = lane; k < d; k += kWarpSize) sum += x[i * d + k] * x[i * d + k];
    sum = warp_sum(sum);
    if (lane == 0) norms[i] = sum;
  }
}

template <class T>
__global__ void distances_kernel(const T* __restrict__ x, const T* __restrict__ y, const T* __restrict__ x_norms,
                                 const T* __restrict__ y_norms, int64_t n, int64_t m, int64_t d, Metric metric,
                                 bool same, T* __restrict__ out) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t pair = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x; pair < n * m; pair += stride) {
    const int64_t i = pair / m, j = pair % m;
    // The distance of a row to itself; NaN and infinite rows, and rows without a direction, have none.
    if (same && i == j && x_norms[i] - x_norms[i] == T(0) && (metric != Metric::kCosine || x_norms[i] > T(0))) {
      out[pair] = 0;
    } else if (metric == Metric::kCosine) {
      out[pair] = T(1) - out[pair] * inverse_norm(x_norms[i]) * inverse_norm(y_norms[j]);
    } else {
      const T norms = x_norms[i] + y_norms[j];
      T squared = norms - T(2) * out[pair];
      if (!(squared >= T(kCancellation) * norms)) {  // also when the norms overflow
        squared = 0;
        for (int64_t k = 0; k < d; ++k) {
          const T difference = x[i * d + k] - y[j * d + k];
          squared += difference * difference;
        }
      }
      out[pair] = metric == Metric::kEuclidean ? sqrt(squared) : squared;
    }
  }
}

template <class T>
__global__ void row_weights_kernel(const T* __restrict__ grad, const T* __restrict__ distance,
                                   const T* __restrict__ x_norms, const T* __restrict__ y_norms, int64_t n, int64_t m,
                                   Metric metric, T* __restrict__ weights, T* __restrict__ x_scale) {
  __shared__ T scratch[kThreads / kWarpSize];
  for (int64_t i = blockIdx.x; i < n; i += gridDim.x) {
    const T x_inverse = metric == Metric::kCosine ? inverse_norm(x_norms[i]) : T(0);
    T sum = 0;
    for (int64_t j = threadIdx.x; j < m; j += kThreads) {
      const int64_t pair = i * m + j;
      T weight;
      if (metric == Metric::kCosine) {
        weight = grad[pair] * x_inverse * inverse_norm(y_norms[j]);
        sum += grad[pair] * (T(1) - distance[pair]);
      } else {
        weight = metric == Metric::kSquaredEuclidean ? T(2) * grad[pair]
                 : distance[pair] > T(0)             ? grad[pair] / distance[pair]
                                                     : T(0);
        sum += weight;
      }
      weights[pair] = weight;
    }
    sum = block_sum<kThreads>(sum, scratch);
    if (threadIdx.x == 0) x_scale[i] = metric == Metric::kCosine ? sum * x_inverse * x_inverse : sum;
  }
}

template <class T>
__global__ void column_scale_kernel(const T* __restrict__ grad, const T* __restrict__ distance,
                                    const T* __restrict__ weights, const T* __restrict__ y_norms, int64_t n, int64_t m,
                                    Metric metric, T* __restrict__ y_scale) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t j = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x; j < m; j += stride) {
    T sum = 0;
    for (int64_t i = 0; i < n; ++i) {
      const int64_t pair = i * m + j;
      sum += metric == Metric::kCosine ? grad[pair] * (T(1) - distance[pair]) : weights[pair];
    }
    if (metric == Metric::kCosine) sum = y_norms[j] > T(0) ? sum / y_norms[j] : T(0);
    y_scale[j] = sum;
  }
}

template <class T>
__global__ void scaled_rows_minus_kernel(const T* __restrict__ x, const T* __restrict__ scale, int64_t n, int64_t d,
                                         T* __restrict__ out) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t e = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x; e < n * d; e += stride) {
    out[e] = scale[e / d] * x[e] - out[e];
  }
}

}  // namespace

template <class T>
void squared_norms(const T* x, int64_t n, int64_t d, T* norms, cudaStream_t stream) {
  if (n == 0) return;
  PYREID_LAUNCH((squared_norms_kernel<T>), grid_for(n, kThreads / kWarpSize), kThreads, 0, stream, x, n, d, norms);
}

template <class T>
void distances_from_products(const T* x, const T* y, const T* x_norms, const T* y_norms, int64_t n, int64_t m,
                             int64_t d, Metric metric, bool same, T* out, cudaStream_t stream) {
  if (n == 0 || m == 0) return;
  PYREID_LAUNCH((distances_kernel<T>), grid_for(n * m, kThreads), kThreads, 0, stream, x, y, x_norms, y_norms, n, m, d,
                metric, same, out);
}

template <class T>
void distance_gradient_weights(const T* grad, const T* distance, const T* x_norms, const T* y_norms, int64_t n,
                               int64_t m, Metric metric, T* weights, T* x_scale, T* y_scale, cudaStream_t stream) {
  if (n > 0) {
    PYREID_LAUNCH((row_weights_kernel<T>), grid_for(n, 1), kThreads, 0, stream, grad, distance, x_norms, y_norms, n, m,
                  metric, weights, x_scale);
  }
  if (m > 0) {
    PYREID_LAUNCH((column_scale_kernel<T>), grid_for(m, kThreads), kThreads, 0, stream, grad, distance, weights,
                  y_norms, n, m, metric, y_scale);
  }
}

template <class T>
void scaled_rows_minus(const T* x, const T* scale, int64_t n, int64_t d, T* out, cudaStream_t stream) {
  if (n == 0 || d == 0) return;
  PYREID_LAUNCH((scaled_rows_minus_kernel<T>), grid_for(n * d, kThreads), kThreads, 0, stream, x, scale, n, d, out);
}

#define PYREID_INSTANTIATE(T)                                                                                       \
  template void squared_norms(const T*, int64_t, int64_t, T*, cudaStream_t);                                        \
  template void distances_from_products(const T*, const T*, const T*, const T*, int64_t, int64_t, int64_t, Metric,  \
                                        bool, T*, cudaStream_t);                                                    \
  template void distance_gradient_weights(const T*, const T*, const T*, const T*, int64_t, int64_t, Metric, T*, T*, \
                                          T*, cudaStream_t);                                                        \
  template void scaled_rows_minus(const T*, const T*, int64_t, int64_t, T*, cudaStream_t);
PYREID_INSTANTIATE(float)
PYREID_INSTANTIATE(double)
#undef PYREID_INSTANTIATE

}  // namespace pyreid::cuda
