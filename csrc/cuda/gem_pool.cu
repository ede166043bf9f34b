// gem_pool: y = (mean over a row of max(x, eps)^p)^(1/p), a row being the n positions of one channel of one sample.
//
// Numbers. Every row is divided by its largest value m first, v = max(x, eps) and u = v / m in (0, 1], so that nothing
// overflows, whatever x and p. The forward needs m, the sum of u^p and with a learnable p that of u^p log2 u; it keeps
// m, dy/dx at m and dy/dp, so that the backward, dx = grad dy/dx(m) u^(p - 1), has no reduction. Arithmetic is in float
// for half types, else in the type of x; a thread adds at most 64 terms before they go into its total. p = 1, 2 and 3
// (0, 1 and 2 as p - 1) take a branch without logarithms. dp is summed in double, over samples by a block for 32
// channels, then over channels by one block if p is a single value. All sums run in an order fixed by the shape, so
// results repeat bit for bit. p is read on the device: no synchronisation.
//
// Bytes: x once forward, x and dx once each backward, in packs of 16 bytes where runs of memory are whole packs, else
// one element at a time, plus three or four numbers for each row. A thread loads all it can hold of a row, in
// registers, before it needs the first of it: 64 to 80 bytes in flight for each thread; a memory of 5 TB/s and 700 ns
// needs 26 KiB of each multiprocessor, which is 13 warps.
//   Rows (channels first): 8, 16 or 32 threads hold a row of up to 5 packs (16 single elements) each, a block of 256
// longer ones: 16 x 8 is 8 lanes with 4 packs of floats or 2 of halves, 24 x 24 is 32 lanes with 4.5 or 16 with 4.5,
// 12 x 4 is 8 lanes with 1.5, and 7 x 7, which has no packs, 8 lanes with 6.1 elements. m is found by shuffles between
// the two loops over the registers. What even a block cannot hold is taken in pieces: a thread keeps its own m, and
// when a piece has a larger one its sums shrink by (m / larger)^p; at the end all go to the m of the row. The root of a
// row costs as much as a dozen of its values: where rows are many, a group takes up to 8, and each of its lanes
// finishes one.
//   Columns (channels last): a lane has a pack of channels and a block 32 of them for one sample; its 8 warps take each
// eighth position, 4 or 8 at a time, as in pieces of a long row, and are added in order through shared memory.
//
// Registers (sm_80 to sm_120): 48 to 91 for rows, 44 to 127 for columns, without spills: 16 to 40 warps to a
// multiprocessor. Instructions, at 4.3 TB/s on 132 multiprocessors of 128 lanes: floats have 27 for each value and
// halves 14 before the forward waits for them and no longer for memory. p = 3 takes about 10 and 8; any other p about
// 28 of a float and 17 of a half, whose logarithm and power are one instruction of the special function unit each (16 a
// clock, where bytes would allow 19). So bfloat16 with a learnable p is the one case that memory does not bound, by a
// fifth.
#include "csrc/cuda/gem_pool.cuh"

#include <type_traits>

#include "csrc/cuda/half.cuh"
#include "csrc/cuda/launch.cuh"
#include "csrc/cuda/pack.cuh"
#include "csrc/cuda/reduce.cuh"

namespace pyreid::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;
// Blocks that keep a large device busy: with more than that, a group takes several rows. Few in cpp_tests.
constexpr int64_t kBusyGrid = PYREID_GRID_CAP < 1024 ? PYREID_GRID_CAP : 1024;
constexpr int kLargestBatch = 8;

// How many packs of a row a thread holds. Five of 16 bytes let 8 lanes have the 160 floats or 320 halves that cover
// 16 x 8, and 32 lanes the 640 floats that cover 24 x 24. The logarithm of a double is so long that it is unrolled
// less.
template <class T, int kWidth>
constexpr int kHeld = std::is_same_v<T, double> ? (kWidth == 1 ? 4 : 2) : (kWidth == 1 ? 16 : 5);
// The same for the positions of channels-last maps.
template <class T, int kWidth>
constexpr int kHeldPositions = std::is_same_v<T, double> ? 2
                               : kWidth > 4              ? 4
                                                         : 8;

__device__ __forceinline__ float log_2(float x) { return log2f(x); }
__device__ __forceinline__ double log_2(double x) { return log2(x); }
__device__ __forceinline__ float exp_2(float x) { return exp2f(x); }
__device__ __forceinline__ double exp_2(double x) { return exp2(x); }

template <class T>
__device__ __forceinline__ T exponent_of(const GemExponent<T>& p, int64_t row, int64_t channels) {
  return p.values == nullptr ? p.value : p.values[p.count == 1 ? 0 : row % channels];
}

// NaN is larger than everything, so that it is never lost.
template <class S>
__device__ __forceinline__ S larger_or_nan(S a, S b) {
  const auto x = to_compute(a), y = to_compute(b);
  return y > x || y != y ? b : a;
}

// Element by element; of half types two at a time.
__device__ __forceinline__ __half2 larger_of_two(__half a0, __half a1, __half b0, __half b1) {
  return __hmax2_nan(__halves2half2(a0, a1), __halves2half2(b0, b1));
}
__device__ __forceinline__ __nv_bfloat162 larger_of_two(__nv_bfloat16 a0, __nv_bfloat16 a1, __nv_bfloat16 b0,
                                                        __nv_bfloat16 b1) {
  return __hmax2_nan(__halves2bfloat162(a0, a1), __halves2bfloat162(b0, b1));
}
template <class S, int kWidth>
__device__ __forceinline__ void keep_larger(Pack<S, kWidth>& best, const Pack<S, kWidth>& pack) {
  if constexpr (sizeof(S) == 2 && kWidth % 2 == 0) {
#pragma unroll
    for (int i = 0; i < kWidth; i += 2) {
      const auto two = larger_of_two(best[i], best[i + 1], pack[i], pack[i + 1]);
      best[i] = two.x;
      best[i + 1] = two.y;
    }
  } else {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) best[i] = larger_or_nan(best[i], pack[i]);
  }
}

template <class S, int kWidth>
__device__ __forceinline__ Pack<S, kWidth> lowest_pack() {
  Pack<S, kWidth> pack;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) pack[i] = to_storage<S>(-INFINITY);
  return pack;
}

// Division by the largest value of a row. In an ordinary row v / largest and its reciprocal are normal numbers for all
// v >= eps. Other rows (infinity, NaN, more than 36 decades between eps and the largest value) are rare: they take the
// difference of two logarithms.
template <class T>
struct Ratio {
  T divisor, inverse, offset;
  bool ordinary;
  __device__ __forceinline__ Ratio(T largest, T eps) {
    constexpr T kLimit = static_cast<T>(std::is_same_v<T, float> ? 0x1p100 : 0x1p900);
    constexpr T kRange = static_cast<T>(std::is_same_v<T, float> ? 0x1p-120 : 0x1p-1000);
    ordinary = largest <= kLimit && largest >= 1 / kLimit && largest * kRange <= eps;
    divisor = ordinary ? largest : T(1);
    inverse = T(1) / divisor;
    offset = ordinary ? T(0) : log_2(largest);
  }
};

// v / divisor. float and double are rounded correctly (one step of Newton's method), so that the quotient of the
// largest value is 1; halves, of which there are twice as many to a byte, are multiplied by the reciprocal.
template <class S, class T>
__device__ __forceinline__ T quotient(T v, const Ratio<T>& ratio) {
  const T q = v * ratio.inverse;
  if constexpr (!std::is_same_v<S, T>) {
    return q;
  } else {
    return fma(fma(-q, ratio.divisor, v), ratio.inverse, q);
  }
}

// Of halves the special function unit's logarithm, whose error of 2^-22 is far below the rounding of such values; log2f
// is a polynomial of some twenty instructions.
template <class S, class T>
__device__ __forceinline__ T log_ratio(T v, const Ratio<T>& ratio) {
  const T u = quotient<S>(v, ratio);
  if constexpr (sizeof(S) == 2) {
    return __log2f(u) - ratio.offset;
  } else {
    return log_2(u) - ratio.offset;
  }
}

// (v / largest)^p; kAnyPower of a row that may not be ordinary, the other powers need no logarithm.
constexpr int kAnyPower = -1;
template <int kPower, class S, class T>
__device__ __forceinline__ T power_of_ratio(T v, const Ratio<T>& ratio, T p) {
  if constexpr (kPower == kAnyPower) {
    return exp_2(p * log_ratio<S>(v, ratio));
  } else if constexpr (kPower == 0) {
    return T(1);
  } else {
    const T u = quotient<S>(v, ratio);
    return kPower == 1 ? u : kPower == 2 ? u * u : u * u * u;
  }
}

// scale (v / largest)^exponent. In a row that is not ordinary the power alone may overflow: its root comes in twice.
template <int kPower, class S, class T>
__device__ __forceinline__ T scaled_power(T scale, T v, const Ratio<T>& ratio, T exponent) {
  if constexpr (kPower == kAnyPower) {
    if (!ratio.ordinary) {
      const T root = exp_2(exponent / T(2) * log_ratio<S>(v, ratio));
      return scale * root * root;
    }
  }
  return scale * power_of_ratio<kPower, S>(v, ratio, exponent);
}

template <int kValue>
using Constant = std::integral_constant<int, kValue>;

// Calls body with the power as a constant, where it is one of kFirst, kFirst + 1 and kFirst + 2: the branch is taken
// once for a thread's values, and all threads of a row take the same.
template <int kFirst, class T, class Body>
__device__ __forceinline__ void with_power(T p, bool ordinary, Body body) {
  if (p == T(kFirst + 2) && ordinary) {
    body(Constant<kFirst + 2>{});
  } else if (p == T(kFirst + 1) && ordinary) {
    body(Constant<kFirst + 1>{});
  } else if (p == T(kFirst) && (ordinary || kFirst == 0)) {
    body(Constant<kFirst>{});
  } else {
    body(Constant<kAnyPower>{});
  }
}

// Sums of u^p and of u^p log2 u over values v with u = v / largest, v = max(x, eps).
template <class T>
struct Sums {
  T largest, powers, logs;
};

// The same sums for a larger `largest`: u shrinks by the factor of the two.
template <class T>
__device__ __forceinline__ void rescale(Sums<T>& sums, T largest, T p, T eps) {
  if (sums.largest == largest) return;
  const T log_factor = log_ratio<T>(sums.largest, Ratio<T>(largest, eps)), factor = exp_2(p * log_factor);
  sums = {largest, factor * sums.powers, factor * (sums.logs + log_factor * sums.powers)};
}

template <int kPower, bool kLogs, class S, class T>
__device__ __forceinline__ void add_term(S x, const Ratio<T>& ratio, T p, T eps, T& powers, T& logs) {
  const T v = max(to_compute(x), eps);  // loses NaN, but then `largest` is NaN
  if constexpr (kLogs) {
    const T log_u = log_ratio<S>(v, ratio), power = exp_2(p * log_u);
    powers += power;
    logs += power * log_u;
  } else {
    powers += power_of_ratio<kPower, S>(v, ratio, p);
  }
}

// What a row with these sums pools to, and what its backward needs.
template <class T>
struct GemOutput {
  T* __restrict__ pooled;
  T* __restrict__ largest;
  T* __restrict__ factor;
  T* __restrict__ slope;  // or null

  __device__ __forceinline__ void write(int64_t r, int64_t n, const Sums<T>& sums, T p) const {
    const T m = sums.largest;
    const bool finite = m - m == T(0);
    // NaN and infinity pool to themselves; there u is NaN, and the sum with it
    const T log_mean = finite ? log_2(sums.powers / static_cast<T>(n)) : T(0);
    const T ratio = exp_2(log_mean / p);
    const T y = m * (ratio > T(1) ? T(1) : ratio);  // a mean is no larger than the largest
    largest[r] = m;
    pooled[r] = y;
    factor[r] = exp_2(log_mean * (T(1) / p - T(1))) / static_cast<T>(n);
    if (slope != nullptr) {
      constexpr double kLn2 = 0.6931471805599453;
      slope[r] = y / p * static_cast<T>(kLn2) * (sums.logs / sums.powers - log_mean / p);
    }
  }
};

// Rows: the values of a channel are neighbours in memory

template <int kGroup, class T>
__device__ __forceinline__ T group_sum(T value, T* scratch) {
  if constexpr (kGroup > kWarpSize) {
    return block_sum<kGroup>(value, scratch);
  } else {
#pragma unroll
    for (int offset = kGroup / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(kFullMask, value, offset);
    return value;
  }
}

template <int kGroup, class T>
__device__ __forceinline__ T group_largest(T value, T* scratch) {
#pragma unroll
  for (int offset = (kGroup < kWarpSize ? kGroup : kWarpSize) / 2; offset > 0; offset /= 2) {
    value = larger_or_nan(value, __shfl_xor_sync(kFullMask, value, offset));
  }
  if constexpr (kGroup > kWarpSize) {
    __syncthreads();
    if (threadIdx.x % kWarpSize == 0) scratch[threadIdx.x / kWarpSize] = value;
    __syncthreads();
    value = scratch[0];
#pragma unroll
    for (int warp = 1; warp < kGroup / kWarpSize; ++warp) value = larger_or_nan(value, scratch[warp]);
  }
  return value;
}

// A group of kGroup threads has a row of `packs` packs, and a group of up to 32 has `batch` rows one after the other:
// each of its first lanes finishes one of them, which costs as much as many values. The threads of a warp or block stay
// together for the shuffles and barriers, also where `valid` is false behind the last row.
template <int kGroup, int kWidth, class S, class T>
__device__ __forceinline__ Sums<T> sums_of_row(const S* __restrict__ row, int64_t packs, bool valid, T p, T eps,
                                               bool with_logs, T* scratch) {
  constexpr int kCount = kHeld<T, kWidth>;
  const int member = threadIdx.x % kGroup;
  const bool held_whole = kGroup <= kWarpSize || packs <= kGroup * kCount;
  Sums<T> sums{eps, T(0), T(0)};
  int64_t begin = 0;
  do {
    Pack<S, kWidth> held[kCount], best = lowest_pack<S, kWidth>();
    const int count = valid ? static_cast<int>(min(static_cast<long long>(packs - begin), 1LL * kGroup * kCount)) : 0;
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
      const int i = k * kGroup + member;
      if (i < count) held[k] = load_pack<kWidth>(row + (begin + i) * kWidth);
    }
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
      if (k * kGroup + member < count) keep_larger(best, held[k]);
    }
    T largest = sums.largest;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) largest = larger_or_nan(largest, to_compute(best[i]));
    if (held_whole) {
      sums.largest = group_largest<kGroup>(largest, scratch);
    } else {
      rescale(sums, largest, p, eps);
    }
    const Ratio<T> ratio(sums.largest, eps);
    T powers = 0, logs = 0;  // of at most 40 values, so that rounding errors do not grow with n
    const auto add = [&](auto power, auto kLogs) {
#pragma unroll
      for (int k = 0; k < kCount; ++k) {
        if (k * kGroup + member < count) {
#pragma unroll
          for (int i = 0; i < kWidth; ++i) {
            add_term<decltype(power)::value, decltype(kLogs)::value>(held[k][i], ratio, p, eps, powers, logs);
          }
        }
      }
    };
    if (with_logs) {
      add(Constant<kAnyPower>{}, std::true_type{});
    } else {
      with_power<1>(p, ratio.ordinary, [&](auto power) { add(power, std::false_type{}); });
    }
    sums.powers += powers;
    sums.logs += logs;
    begin += kGroup * kCount;
  } while (kGroup > kWarpSize && begin < packs);
  if (!held_whole) rescale(sums, group_largest<kGroup>(sums.largest, scratch), p, eps);
  sums.powers = group_sum<kGroup>(sums.powers, scratch);
  if (with_logs) sums.logs = group_sum<kGroup>(sums.logs, scratch);
  return sums;
}

template <class S, class T, int kWidth, int kGroup>
__global__ void pooled_rows_kernel(const S* __restrict__ x, int64_t rows, int64_t channels, int64_t n, int batch,
                                   GemExponent<T> p, T eps, GemOutput<T> out) {
  __shared__ T scratch[kWarps];
  const int member = threadIdx.x % kGroup, group = threadIdx.x / kGroup;
  const int64_t rows_per_block = static_cast<int64_t>(kThreads / kGroup) * batch;
  for (int64_t block = blockIdx.x * rows_per_block; block < rows; block += gridDim.x * rows_per_block) {
    const int64_t first = block + group * batch;
    Sums<T> mine{};
    T exponent_of_mine = 0;
    for (int j = 0; j < batch; ++j) {
      const bool valid = first + j < rows;
      const int64_t r = valid ? first + j : 0;
      const T exponent = exponent_of(p, r, channels);
      const Sums<T> sums =
          sums_of_row<kGroup, kWidth>(x + r * n, n / kWidth, valid, exponent, eps, out.slope != nullptr, scratch);
      if (member == j) {
        mine = sums;
        exponent_of_mine = exponent;
      }
    }
    if (member < batch && first + member < rows) out.write(first + member, n, mine, exponent_of_mine);
  }
}

template <class S, class T, int kWidth, int kGroup>
__global__ void gradient_rows_kernel(const T* __restrict__ grad, const S* __restrict__ x, const T* __restrict__ largest,
                                     const T* __restrict__ factor, int64_t rows, int64_t channels, int64_t n,
                                     GemExponent<T> p, T eps, S* __restrict__ dx) {
  constexpr int kCount = kHeld<T, kWidth>;
  const int member = threadIdx.x % kGroup;
  const int64_t groups = static_cast<int64_t>(gridDim.x) * (kThreads / kGroup), packs = n / kWidth;
  for (int64_t r = blockIdx.x * static_cast<int64_t>(kThreads / kGroup) + threadIdx.x / kGroup; r < rows; r += groups) {
    const S* row = x + r * n;
    S* out = dx + r * n;
    for (int64_t begin = 0; begin < packs; begin += kGroup * kCount) {
      const int count = static_cast<int>(min(static_cast<long long>(packs - begin), 1LL * kGroup * kCount));
      Pack<S, kWidth> held[kCount];
#pragma unroll
      for (int k = 0; k < kCount; ++k) {
        const int i = k * kGroup + member;
        if (i < count) held[k] = load_pack<kWidth>(row + (begin + i) * kWidth);
      }
      const T exponent = exponent_of(p, r, channels) - T(1), scale = grad[r] * factor[r];
      const Ratio<T> ratio(largest[r], eps);
      with_power<0>(exponent, ratio.ordinary, [&](auto power) {
#pragma unroll
        for (int k = 0; k < kCount; ++k) {
          const int i = k * kGroup + member;
          if (i < count) {
#pragma unroll
            for (int e = 0; e < kWidth; ++e) {
              const T v = to_compute(held[k][e]);
              const T gradient = scaled_power<decltype(power)::value, S>(scale, v, ratio, exponent);
              held[k][e] = to_storage<S>(v < eps ? T(0) : gradient);
            }
            store_pack(out + (begin + i) * kWidth, held[k]);
          }
        }
      });
    }
  }
}

// Columns: channels are neighbours in memory, the values of one channel lie `channels` apart. A block has 32 packs of
// channels of a sample; each of its warps has every eighth position.

template <int kWidth>
struct Columns {
  static constexpr int kTile = kWarpSize * kWidth;
  int64_t tiles, sample, channel;
  int lane, warp;
  bool valid;
  __device__ __forceinline__ Columns(int64_t index, int64_t channels)
      : tiles((channels + kTile - 1) / kTile),
        sample(index / tiles),
        lane(threadIdx.x % kWarpSize),
        warp(threadIdx.x / kWarpSize) {
    channel = (index - sample * tiles) * kTile + lane * kWidth;
    valid = channel < channels;
  }
};

template <class S, class T, int kWidth>
__global__ void pooled_columns_kernel(const S* __restrict__ x, int64_t blocks, int64_t channels, int64_t n,
                                      GemExponent<T> p, T eps, GemOutput<T> out) {
  constexpr int kCount = kHeldPositions<T, kWidth>;
  // One after the other the elements e of the packs of all lanes, in rows that are padded so that neither the writes
  // nor the reads below, which are by channel, meet in a bank.
  constexpr int kPitch = kWarpSize + kWarpSize / kWidth;
  __shared__ T parts[3][kWarps][kWidth * kPitch];
  const bool with_logs = out.slope != nullptr;
  for (int64_t b = blockIdx.x; b < blocks; b += gridDim.x) {
    const Columns<kWidth> at(b, channels);
    const S* column = x + at.sample * n * channels + at.channel;
    Sums<T> sums[kWidth];
    T exponents[kWidth];
#pragma unroll
    for (int e = 0; e < kWidth; ++e) {
      sums[e] = {eps, T(0), T(0)};
      exponents[e] = exponent_of(p, at.valid ? at.channel + e : 0, channels);
    }
    for (int64_t begin = at.warp; begin < n && at.valid; begin += kWarps * kCount) {
      Pack<S, kWidth> held[kCount], best = lowest_pack<S, kWidth>();
#pragma unroll
      for (int k = 0; k < kCount; ++k) {
        const int64_t i = begin + k * kWarps;
        if (i < n) held[k] = load_pack<kWidth>(column + i * channels);
      }
#pragma unroll
      for (int k = 0; k < kCount; ++k) {
        if (begin + k * kWarps < n) keep_larger(best, held[k]);
      }
#pragma unroll
      for (int e = 0; e < kWidth; ++e) {
        rescale(sums[e], larger_or_nan(sums[e].largest, to_compute(best[e])), exponents[e], eps);
        const Ratio<T> ratio(sums[e].largest, eps);
        T powers = 0, logs = 0;
        const auto add = [&](auto power, auto kLogs) {
#pragma unroll
          for (int k = 0; k < kCount; ++k) {
            if (begin + k * kWarps < n) {
              add_term<decltype(power)::value, decltype(kLogs)::value>(held[k][e], ratio, exponents[e], eps, powers,
                                                                       logs);
            }
          }
        };
        if (with_logs) {
          add(Constant<kAnyPower>{}, std::true_type{});
        } else {
          with_power<1>(exponents[e], ratio.ordinary, [&](auto power) { add(power, std::false_type{}); });
        }
        sums[e].powers += powers;
        sums[e].logs += logs;
      }
    }
    __syncthreads();  // the parts of the block before have been read
#pragma unroll
    for (int e = 0; e < kWidth; ++e) {
      parts[0][at.warp][e * kPitch + at.lane] = sums[e].largest;
      parts[1][at.warp][e * kPitch + at.lane] = sums[e].powers;
      parts[2][at.warp][e * kPitch + at.lane] = sums[e].logs;
    }
    __syncthreads();
    // The thread's channel is counted from the first of the block.
    const int c = threadIdx.x, place = c % kWidth * kPitch + c / kWidth;
    const int64_t channel = at.channel - at.lane * kWidth + c;
    if (c < Columns<kWidth>::kTile && channel < channels) {
      const int64_t r = at.sample * channels + channel;
      const T exponent = exponent_of(p, channel, channels);
      Sums<T> total{parts[0][0][place], parts[1][0][place], parts[2][0][place]};
      T largest = total.largest;
#pragma unroll
      for (int warp = 1; warp < kWarps; ++warp) largest = larger_or_nan(largest, parts[0][warp][place]);
      rescale(total, largest, exponent, eps);
      for (int warp = 1; warp < kWarps; ++warp) {
        Sums<T> part{parts[0][warp][place], parts[1][warp][place], parts[2][warp][place]};
        rescale(part, largest, exponent, eps);
        total.powers += part.powers;
        total.logs += part.logs;
      }
      out.write(r, n, total, exponent);
    }
  }
}

template <class S, class T, int kWidth>
__global__ void gradient_columns_kernel(const T* __restrict__ grad, const S* __restrict__ x,
                                        const T* __restrict__ largest, const T* __restrict__ factor, int64_t blocks,
                                        int64_t channels, int64_t n, GemExponent<T> p, T eps, S* __restrict__ dx) {
  constexpr int kCount = kHeldPositions<T, kWidth>;
  for (int64_t b = blockIdx.x; b < blocks; b += gridDim.x) {
    const Columns<kWidth> at(b, channels);
    const int64_t first = at.sample * n * channels + at.channel, row = at.sample * channels + at.channel;
    for (int64_t begin = at.warp; begin < n && at.valid; begin += kWarps * kCount) {
      Pack<S, kWidth> held[kCount];
#pragma unroll
      for (int k = 0; k < kCount; ++k) {
        const int64_t i = begin + k * kWarps;
        if (i < n) held[k] = load_pack<kWidth>(x + first + i * channels);
      }
#pragma unroll
      for (int e = 0; e < kWidth; ++e) {
        const T exponent = exponent_of(p, at.channel + e, channels) - T(1), scale = grad[row + e] * factor[row + e];
        const Ratio<T> ratio(largest[row + e], eps);
        with_power<0>(exponent, ratio.ordinary, [&](auto power) {
#pragma unroll
          for (int k = 0; k < kCount; ++k) {
            if (begin + k * kWarps < n) {
              const T v = to_compute(held[k][e]);
              const T gradient = scaled_power<decltype(power)::value, S>(scale, v, ratio, exponent);
              held[k][e] = to_storage<S>(v < eps ? T(0) : gradient);
            }
          }
        });
      }
#pragma unroll
      for (int k = 0; k < kCount; ++k) {
        const int64_t i = begin + k * kWarps;
        if (i < n) store_pack(dx + first + i * channels, held[k]);
      }
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

// Calls body with the number of threads for a row of `packs` packs: the fewest that can hold it, else a block.
template <int kMost, class Body>
void with_group(int64_t packs, Body body) {
  if (packs <= 8 * kMost) {
    body(Constant<8>{});
  } else if (packs <= 16 * kMost) {
    body(Constant<16>{});
  } else if (packs <= kWarpSize * kMost) {
    body(Constant<kWarpSize>{});
  } else {
    body(Constant<kThreads>{});
  }
}

// Calls body with the width of the accesses to runs of n elements at x, and at dx unless it is null.
template <class S, class Body>
void with_width(const S* x, const S* dx, int64_t n, Body body) {
  if (fits_packs(x, n) && (dx == nullptr || fits_packs(dx, n))) {
    body(Constant<kPackSize<S>>{});
  } else {
    body(Constant<1>{});
  }
}

}  // namespace

template <class S, class T>
void gem_pool(const S* x, int64_t samples, int64_t channels, int64_t n, bool channels_last, GemExponent<T> p, T eps,
              T* pooled, T* largest, T* factor, T* slope, cudaStream_t stream) {
  const int64_t rows = samples * channels;
  if (rows == 0) return;
  const GemOutput<T> out{pooled, largest, factor, slope};
  with_width<S>(x, nullptr, channels_last ? channels : n, [&](auto width) {
    constexpr int kWidth = decltype(width)::value;
    if (channels_last) {
      const int64_t blocks = samples * ((channels + Columns<kWidth>::kTile - 1) / Columns<kWidth>::kTile);
      PYREID_LAUNCH((pooled_columns_kernel<S, T, kWidth>), grid_for(blocks, 1), kThreads, 0, stream, x, blocks,
                    channels, n, p, eps, out);
      return;
    }
    with_group<kHeld<T, kWidth>>(n / kWidth, [&](auto group) {
      constexpr int kGroup = decltype(group)::value, kGroups = kThreads / kGroup;
      const int64_t enough = kGroup > kWarpSize ? 1 : rows / (kGroups * kBusyGrid);
      const int batch = static_cast<int>(enough < 1 ? 1 : enough > kLargestBatch ? kLargestBatch : enough);
      PYREID_LAUNCH((pooled_rows_kernel<S, T, kWidth, kGroup>), grid_for(rows, kGroups * batch), kThreads, 0, stream, x,
                    rows, channels, n, batch, p, eps, out);
    });
  });
}

template <class S, class T>
void gem_pool_gradient(const T* grad, const S* x, const T* largest, const T* factor, int64_t samples, int64_t channels,
                       int64_t n, bool channels_last, GemExponent<T> p, T eps, S* dx, cudaStream_t stream) {
  const int64_t rows = samples * channels;
  if (rows == 0) return;
  with_width<S>(x, dx, channels_last ? channels : n, [&](auto width) {
    constexpr int kWidth = decltype(width)::value;
    if (channels_last) {
      const int64_t blocks = samples * ((channels + Columns<kWidth>::kTile - 1) / Columns<kWidth>::kTile);
      PYREID_LAUNCH((gradient_columns_kernel<S, T, kWidth>), grid_for(blocks, 1), kThreads, 0, stream, grad, x, largest,
                    factor, blocks, channels, n, p, eps, dx);
      return;
    }
    with_group<kHeld<T, kWidth>>(n / kWidth, [&](auto group) {
      constexpr int kGroup = decltype(group)::value;
      PYREID_LAUNCH((gradient_rows_kernel<S, T, kWidth, kGroup>), grid_for(rows, kThreads / kGroup), kThreads, 0,
                    stream, grad, x, largest, factor, rows, channels, n, p, eps, dx);
    });
  });
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

#define PYREID_INSTANTIATE_ROWS(S, T)                                                                                 \
  template void gem_pool(const S*, int64_t, int64_t, int64_t, bool, GemExponent<T>, T, T*, T*, T*, T*, cudaStream_t); \
  template void gem_pool_gradient(const T*, const S*, const T*, const T*, int64_t, int64_t, int64_t, bool,            \
                                  GemExponent<T>, T, S*, cudaStream_t);
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
