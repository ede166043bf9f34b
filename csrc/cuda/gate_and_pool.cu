// gate_and_pool: local = relu(sigmoid(gate) x), its average over each row and its maximum with the first place of it.
//
// A group of kGroup threads has a row, a warp up to 1024 positions, a block of 256 threads above; rows of every length
// are moved in 128-bit packs (row_packs.cuh). The forward kernel pools the values before they are rounded to S. The
// backward kernel forms g = dlocal + davg / n, plus dlargest at the place of the maximum, and from it dx = g s and
// dgate = g x s (1 - s) where s x > 0, s being the sigmoid. Bytes: forward 2 reads and 1 write of a feature map,
// backward 3 reads and 2 writes; a gradient that is missing is not read. Arithmetic is in float for half types, else in
// the type of the maps. s and 1 - s come from e^-|gate|, so that neither loses digits; float uses the hardware's
// reciprocal, which is within 2 units in the last place. A thread adds every 32nd or 256th pack of a row, one after the
// other. No atomics, all orders fixed: results repeat bit for bit.
#include "csrc/cuda/gate_and_pool.cuh"

#include "csrc/cuda/launch.cuh"
#include "csrc/cuda/reduce.cuh"
#include "csrc/cuda/row_packs.cuh"

namespace pyreid::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;
constexpr int64_t kLongestWarpRow = 1024;

template <class S>
using Compute = std::conditional_t<std::is_same_v<S, double>, double, float>;

// e^x for x <= 0
__device__ __forceinline__ float exp_nonpositive(float x) { return expf(x); }
__device__ __forceinline__ double exp_nonpositive(double x) { return exp(x); }
__device__ __forceinline__ float reciprocal(float x) { return __fdividef(1.0f, x); }
__device__ __forceinline__ double reciprocal(double x) { return 1.0 / x; }

template <class T>
struct Sigmoid {
  T value, complement;  // 1 - value, with all its digits
};

template <class T>
__device__ __forceinline__ Sigmoid<T> sigmoid(T x) {
  const bool positive = x > T(0);
  const T power = exp_nonpositive(positive ? -x : x);  // at most 1, or NaN
  const T larger = reciprocal(T(1) + power), smaller = power * larger;
  return {positive ? larger : smaller, positive ? smaller : larger};
}

// The largest value seen, and its place.
template <class T>
struct Best {
  T value;
  int64_t index;
};

// NaN is larger than everything; of equal values, and of NaNs, the first counts.
template <class T>
__device__ __forceinline__ Best<T> better(Best<T> a, Best<T> b) {
  const bool nan_a = a.value != a.value, nan_b = b.value != b.value;
  const bool equal = a.value == b.value || (nan_a && nan_b);
  const bool second = equal ? b.index < a.index : (nan_b || (!nan_a && b.value > a.value));
  return second ? b : a;
}

template <class T>
__device__ __forceinline__ Best<T> warp_best(Best<T> best) {
#pragma unroll
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) {
    const Best<T> other{__shfl_xor_sync(kFullMask, best.value, offset), __shfl_xor_sync(kFullMask, best.index, offset)};
    best = better(best, other);
  }
  return best;
}

template <class S, int kGroup>
__global__ void gate_kernel(const S* __restrict__ x, const S* __restrict__ gate, int64_t rows, int64_t n, bool aligned,
                            S* __restrict__ local, S* __restrict__ avg, S* __restrict__ largest,
                            int64_t* __restrict__ index) {
  using T = Compute<S>;
  __shared__ T scratch[kWarps];
  __shared__ T best_values[kWarps];
  __shared__ int64_t best_places[kWarps];
  const int member = threadIdx.x % kGroup, warp = threadIdx.x / kWarpSize;
  const int64_t groups = static_cast<int64_t>(gridDim.x) * (kThreads / kGroup);
  // All threads of a group have the same row, so that all of them reach its shuffles and barriers.
  for (int64_t r = blockIdx.x * static_cast<int64_t>(kThreads / kGroup) + threadIdx.x / kGroup; r < rows; r += groups) {
    const int64_t begin = r * n;
    T sum = 0;
    Best<T> best{T(-1), n};  // below every value
    each_pack<S, kGroup>(begin, n, aligned, member, [&](int64_t i, auto width) {
      constexpr int kWidth = decltype(width)::value;
      T values[kWidth], gates[kWidth];
      load_as(x + begin + i, values);
      load_as(gate + begin + i, gates);
      T terms = 0;
#pragma unroll
      for (int k = 0; k < kWidth; ++k) {
        const T product = sigmoid(gates[k]).value * values[k];
        values[k] = product <= T(0) ? T(0) : product;  // keeps NaN
        terms += values[k];
        // places come in rising order: only a larger value, or the first NaN, takes the place of the best
        const bool first_nan = values[k] != values[k] && best.value == best.value;
        if (values[k] > best.value || first_nan) best = {values[k], i + k};
      }
      sum += terms;
      store_as(local + begin + i, values);
    });
    best = warp_best(best);
    if constexpr (kGroup == kWarpSize) {
      sum = warp_sum(sum);
    } else {
      sum = block_sum<kGroup>(sum, scratch);  // its barriers also part this row's use of the arrays from the last one's
      if (threadIdx.x % kWarpSize == 0) {
        best_values[warp] = best.value;
        best_places[warp] = best.index;
      }
      __syncthreads();
      if (member == 0) {
        for (int other = 1; other < kWarps; ++other) best = better(best, {best_values[other], best_places[other]});
      }
    }
    if (member != 0) continue;
    avg[r] = to_storage<S>(sum / static_cast<T>(n));
    largest[r] = to_storage<S>(best.value);
    index[r] = best.index;
  }
}

template <class S, int kGroup>
__global__ void gradient_kernel(const S* __restrict__ dlocal, const S* __restrict__ davg,
                                const S* __restrict__ dlargest, const S* __restrict__ x, const S* __restrict__ gate,
                                const int64_t* __restrict__ index, int64_t rows, int64_t n, bool aligned,
                                S* __restrict__ dx, S* __restrict__ dgate) {
  using T = Compute<S>;
  const int member = threadIdx.x % kGroup;
  const int64_t groups = static_cast<int64_t>(gridDim.x) * (kThreads / kGroup);
  for (int64_t r = blockIdx.x * static_cast<int64_t>(kThreads / kGroup) + threadIdx.x / kGroup; r < rows; r += groups) {
    const int64_t begin = r * n;
    const T mean_gradient = davg == nullptr ? T(0) : to_compute(davg[r]) / static_cast<T>(n);
    const T best_gradient = mean_gradient + (dlargest == nullptr ? T(0) : to_compute(dlargest[r]));
    const int64_t best = index[r];
    each_pack<S, kGroup>(begin, n, aligned, member, [&](int64_t i, auto width) {
      constexpr int kWidth = decltype(width)::value;
      T values[kWidth], gates[kWidth], grads[kWidth];
      load_as(x + begin + i, values);
      load_as(gate + begin + i, gates);
      if (dlocal != nullptr) {
        load_as(dlocal + begin + i, grads);
      } else {
#pragma unroll
        for (int k = 0; k < kWidth; ++k) grads[k] = 0;
      }
#pragma unroll
      for (int k = 0; k < kWidth; ++k) {
        const Sigmoid<T> s = sigmoid(gates[k]);
        const bool off = s.value * values[k] <= T(0);
        const T g = off ? T(0) : (grads[k] + (i + k == best ? best_gradient : mean_gradient)) * s.value;
        grads[k] = g;
        gates[k] = off ? T(0) : g * values[k] * s.complement;
      }
      if (dx != nullptr) store_as(dx + begin + i, grads);
      if (dgate != nullptr) store_as(dgate + begin + i, gates);
    });
  }
}

}  // namespace

template <class S>
void gate_and_pool(const S* x, const S* gate, int64_t rows, int64_t n, S* local, S* avg, S* largest, int64_t* index,
                   cudaStream_t stream) {
  if (rows == 0) return;
  const bool aligned = all_aligned(x, gate, local);
  if (n <= kLongestWarpRow) {
    PYREID_LAUNCH((gate_kernel<S, kWarpSize>), grid_for(rows, kWarps), kThreads, 0, stream, x, gate, rows, n, aligned,
                  local, avg, largest, index);
  } else {
    PYREID_LAUNCH((gate_kernel<S, kThreads>), grid_for(rows, 1), kThreads, 0, stream, x, gate, rows, n, aligned, local,
                  avg, largest, index);
  }
}

template <class S>
void gate_and_pool_gradient(const S* dlocal, const S* davg, const S* dlargest, const S* x, const S* gate,
                            const int64_t* index, int64_t rows, int64_t n, S* dx, S* dgate, cudaStream_t stream) {
  if (rows == 0) return;
  const bool aligned = all_aligned(dlocal, x, gate, dx, dgate);
  if (n <= kLongestWarpRow) {
    PYREID_LAUNCH((gradient_kernel<S, kWarpSize>), grid_for(rows, kWarps), kThreads, 0, stream, dlocal, davg, dlargest,
                  x, gate, index, rows, n, aligned, dx, dgate);
  } else {
    PYREID_LAUNCH((gradient_kernel<S, kThreads>), grid_for(rows, 1), kThreads, 0, stream, dlocal, davg, dlargest, x,
                  gate, index, rows, n, aligned, dx, dgate);
  }
}

#define PYREID_INSTANTIATE(S)                                                                                     \
  template void gate_and_pool(const S*, const S*, int64_t, int64_t, S*, S*, S*, int64_t*, cudaStream_t);          \
  template void gate_and_pool_gradient(const S*, const S*, const S*, const S*, const S*, const int64_t*, int64_t, \
                                       int64_t, S*, S*, cudaStream_t);
PYREID_INSTANTIATE(float)
PYREID_INSTANTIATE(double)
PYREID_INSTANTIATE(__half)
PYREID_INSTANTIATE(__nv_bfloat16)
#undef PYREID_INSTANTIATE

}  // namespace pyreid::cuda
