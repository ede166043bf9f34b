// spatial_gate: h = conv(x, weight1), a = conv(leaky(h), weight2), local = relu(sigmoid(a) x), and the mean and maximum
// of local over each plane; depthwise 3x3 convolutions with zeros around the plane.
//
// A block has a plane, or four small ones of a warp each. It goes through the plane in tiles that lie in shared memory,
// one after the other; a plane that fits (in float 64 x 64 forward and 48 x 48 backward) is a tile, and larger ones
// have tiles with halos, which are computed twice. Each stage turns one buffer of the tile into the next. A thread
// computes a patch of four rows in a column: 18 loads from shared memory serve its 36 products, and lanes read
// neighbouring columns, so no two need the same bank; rows narrower than a warp get a stride that keeps it so.
//
// Bytes: forward 1 read of x and 1 write; backward, which computes h and a again, 2 reads and 1 write, and 18 values a
// plane for the filters. Halos are read again, mostly from cache. Arithmetic is in float for half types, else in the
// type of x. A thread's sums are over its part of one tile, then over the block in a fixed order, and sums for the
// filters go on in double over tiles and samples: results repeat bit for bit. Equal maxima are decided by position.
#include "csrc/cuda/spatial_gate.cuh"

#include "csrc/cuda/half.cuh"
#include "csrc/cuda/launch.cuh"
#include "csrc/cuda/pack.cuh"
#include "csrc/cuda/reduce.cuh"

namespace pyreid::cuda {
namespace {

constexpr int kTaps = 9;
constexpr int kPatch = 4;
constexpr int kForwardHalo = 2, kBackwardHalo = 4;
constexpr int kForwardBuffers = 2, kBackwardBuffers = 4;
constexpr int kBlockThreads = 256;
constexpr int kWarpPlanes = 4;  // planes of a block that has a warp for each
constexpr int64_t kLargestWarpPlane = 256;

// Blocks of a multiprocessor that registers must suffice for: 128 registers in float and all 255 in double. Left to
// itself, ptxas spills a few values for the sake of more.
template <class T, int kThreads>
constexpr int kResidentBlocks = sizeof(T) == 4 ? 512 / kThreads : 1;

__device__ __forceinline__ float exponential(float x) { return expf(x); }
__device__ __forceinline__ double exponential(double x) { return exp(x); }

// i / divisor by a multiplication, for i < 2^16 and divisors below 2^10
struct Divider {
  int divisor;
  uint64_t magic;
  __host__ __device__ explicit Divider(int d) : divisor(d), magic((uint64_t{1} << 32) / static_cast<unsigned>(d) + 1) {}
  __device__ __forceinline__ int quotient(int i) const {
    return static_cast<int>((static_cast<unsigned>(i) * magic) >> 32);
  }
};

// How planes are cut, the same for all of them. Pads are the rows and columns around a tile, the halo or, around a
// whole plane, zeros.
struct Tiling {
  int height, width;
  int rows, columns;  // of a tile, the last ones may have less
  int row_tiles, column_tiles;
  int row_pad, column_pad;
  int stride, size;  // of a buffer
  Divider by_width;
  bool whole() const { return row_tiles == 1 && column_tiles == 1; }
};

// Wider planes are cut into columns of tiles: few rows of a wide plane would be mostly halo.
template <class T>
constexpr int kWidestTile = 384 / sizeof(T);
template <class T>
constexpr int kCutTile = 256 / sizeof(T);

template <class T>
Tiling make_tiling(int64_t height, int64_t width, int halo, int buffers, bool packed) {
  Tiling t{static_cast<int>(height), static_cast<int>(width), 0, 0, 0, 1, 0, 0, 0, 0, Divider(1)};
  t.columns = t.width;
  t.column_pad = packed ? 4 : 1;
  if (t.width > kWidestTile<T>) {
    t.column_tiles = static_cast<int>((width + kCutTile<T> - 1) / kCutTile<T>);
    t.columns = static_cast<int>((width + t.column_tiles - 1) / t.column_tiles);
    t.column_pad = halo;
  } else {
    t.by_width = Divider(t.width);
  }
  t.stride = t.columns + 2 * t.column_pad;
  // Lanes of a warp lie in several groups of four rows: the groups' columns fall into different banks.
  if (t.width < kWarpSize) {
    while (t.stride % 8 != (t.width + 3) / 4 % 8) ++t.stride;
  }
  const int64_t most = kSharedBytes / (buffers * t.stride * static_cast<int64_t>(sizeof(T)));
  if (height + 2 <= most) {
    t.row_tiles = 1;
    t.row_pad = 1;
  } else {
    const int64_t inner = most - 2 * halo;
    t.row_tiles = static_cast<int>((height + inner - 1) / inner);
    t.row_pad = halo;
  }
  t.rows = static_cast<int>((height + t.row_tiles - 1) / t.row_tiles);
  t.size = (t.rows + 2 * t.row_pad) * t.stride;
  t.size = (t.size + 3) / 4 * 4;  // whole packs of any type
  return t;
}

// A tile: rows [row, row + rows) and columns [column, column + columns) of the plane. Inside it rows and columns count
// from its own first ones; those of the pads are negative or behind the last ones.
struct Tile {
  int row, column, rows, columns;
  __device__ Tile(const Tiling& t, int index)
      : row(index / t.column_tiles * t.rows), column(index % t.column_tiles * t.columns) {
    rows = t.height - row < t.rows ? t.height - row : t.rows;
    columns = t.width - column < t.columns ? t.width - column : t.columns;
  }
};

// The part of the plane that is no farther than `margin` from the tile.
struct Region {
  int first_row, end_row, first_column, columns;
  __device__ Region(const Tiling& t, const Tile& tile, int margin) {
    first_row = tile.row < margin ? -tile.row : -margin;
    end_row = t.height - tile.row < tile.rows + margin ? t.height - tile.row : tile.rows + margin;
    first_column = tile.column < margin ? -tile.column : -margin;
    const int end = t.width - tile.column < tile.columns + margin ? t.width - tile.column : tile.columns + margin;
    columns = end - first_column;
  }
};

__device__ __forceinline__ int offset_of(const Tiling& t, int row, int column) {
  return (row + t.row_pad) * t.stride + column + t.column_pad;
}

// In registers for one stage at a time: all filters of all stages would take those that hide latency.
template <class T>
struct Filter {
  T tap[kTaps];
  __device__ __forceinline__ explicit Filter(const T* __restrict__ weights) {
#pragma unroll
    for (int k = 0; k < kTaps; ++k) tap[k] = weights[k];
  }
};

// A column of kPatch rows that a thread computes, with what is around it.
template <class T>
struct Window {
  T value[kPatch + 2][3];
  // Rows behind end_row, which is a row of the pad at most, are not wanted.
  __device__ __forceinline__ Window(const Tiling& t, const T* buffer, int row, int column, int end_row) {
#pragma unroll
    for (int i = 0; i < kPatch + 2; ++i) {
      const T* p = buffer + offset_of(t, row + i - 1 < end_row ? row + i - 1 : end_row, column - 1);
#pragma unroll
      for (int j = 0; j < 3; ++j) value[i][j] = p[j];
    }
  }
  __device__ __forceinline__ void make_leaky(T slope) {
#pragma unroll
    for (int i = 0; i < kPatch + 2; ++i) {
#pragma unroll
      for (int j = 0; j < 3; ++j) value[i][j] = value[i][j] > T(0) ? value[i][j] : value[i][j] * slope;
    }
  }
  __device__ __forceinline__ T convolve(int i, const Filter<T>& filter) const {
    T sum = 0;
#pragma unroll
    for (int k = 0; k < kTaps; ++k) sum += value[i + k / 3][k % 3] * filter.tap[k];
    return sum;
  }
  // The filter turned round: the gradient of a convolution by its input
  __device__ __forceinline__ T convolve_back(int i, const Filter<T>& filter) const {
    T sum = 0;
#pragma unroll
    for (int k = 0; k < kTaps; ++k) sum += value[i + k / 3][k % 3] * filter.tap[kTaps - 1 - k];
    return sum;
  }
  __device__ __forceinline__ void add_taps(int i, T gradient, T (&sums)[kTaps]) const {
#pragma unroll
    for (int k = 0; k < kTaps; ++k) sums[k] += value[i + k / 3][k % 3] * gradient;
  }
};

// body(row, column) for the patches of a region, by the threads of a group
template <int kGroup, class Body>
__device__ __forceinline__ void for_patches(const Tiling& t, const Region& region, const Body& body) {
  const int patches = (region.end_row - region.first_row + kPatch - 1) / kPatch * region.columns;
  const Divider by_columns = t.column_tiles == 1 ? t.by_width : Divider(region.columns);
  for (int i = threadIdx.x % kGroup; i < patches; i += kGroup) {
    const int q = by_columns.quotient(i);
    body(region.first_row + q * kPatch, region.first_column + i - q * region.columns);
  }
}

// Packs are for rows in one tile.
template <bool kPacked, int kGroup, class S, class T>
__device__ __forceinline__ void load_region(const Tiling& t, const Tile& tile, const Region& region,
                                            const S* __restrict__ plane, T* buffer) {
  const int member = threadIdx.x % kGroup;
  const int rows = region.end_row - region.first_row;
  if constexpr (kPacked) {
    const int packs = t.width / kPackSize<S>;
    const Divider by_packs(packs);
    const S* from = plane + static_cast<int64_t>(tile.row + region.first_row) * t.width;
    for (int i = member; i < rows * packs; i += kGroup) {
      const int q = by_packs.quotient(i);
      const Pack<S> pack = load_pack(from + static_cast<int64_t>(i) * kPackSize<S>);
      T* to = buffer + offset_of(t, region.first_row + q, (i - q * packs) * kPackSize<S>);
#pragma unroll
      for (int j = 0; j < kPackSize<S>; j += kPackSize<T>) {
        Pack<T> part;
#pragma unroll
        for (int k = 0; k < kPackSize<T>; ++k) part[k] = to_compute(pack[j + k]);
        store_pack(to + j, part);
      }
    }
  } else {
    const Divider by_columns = t.column_tiles == 1 ? t.by_width : Divider(region.columns);
    for (int i = member; i < rows * region.columns; i += kGroup) {
      const int q = by_columns.quotient(i);
      const int row = region.first_row + q, column = region.first_column + i - q * region.columns;
      const int64_t at = static_cast<int64_t>(tile.row + row) * t.width + tile.column + column;
      buffer[offset_of(t, row, column)] = to_compute(plane[at]);
    }
  }
}

// h from x
template <int kGroup, class T>
__device__ __forceinline__ void hide(const Tiling& t, const Region& region, const T* inputs, const Filter<T>& filter,
                                     T* hidden) {
  for_patches<kGroup>(t, region, [&](int row, int column) {
    const Window<T> window(t, inputs, row, column, region.end_row);
#pragma unroll
    for (int i = 0; i < kPatch; ++i) {
      if (row + i < region.end_row) hidden[offset_of(t, row + i, column)] = window.convolve(i, filter);
    }
  });
}

template <class T>
__device__ __forceinline__ void zero_shared(T* buffers, int64_t count) {
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x) buffers[i] = 0;
}

// NaN is larger than everything; of equal values the first one is. Position -1 is none.
template <class T>
__device__ __forceinline__ bool beats(T value, int position, T best, int best_position) {
  const bool nan = value != value, best_nan = best != best;
  if (nan != best_nan) return nan;
  return value > best || ((nan || value == best) && position < best_position);
}

template <class S, class T, int kGroup, int kPlanes, bool kPacked>
__global__ void __launch_bounds__(kGroup* kPlanes, kResidentBlocks<T, kGroup * kPlanes>)
    gate_kernel(const S* __restrict__ x, const T* __restrict__ weight1, const T* __restrict__ weight2, int64_t planes,
                int64_t channels, Tiling t, T slope, S* __restrict__ local, S* __restrict__ avg, S* __restrict__ max,
                int64_t* __restrict__ argmax) {
  constexpr int kWarps = kGroup / kWarpSize;
  PYREID_DYNAMIC_SHARED(T, shared);
  __shared__ T warp_sums[kPlanes][kWarps], warp_best[kPlanes][kWarps];
  __shared__ int warp_positions[kPlanes][kWarps];
  const int group = threadIdx.x / kGroup, member = threadIdx.x % kGroup;
  T* inputs = shared + static_cast<int64_t>(group) * kForwardBuffers * t.size;
  T* hidden = inputs + t.size;
  const int tiles = t.row_tiles * t.column_tiles;
  const int64_t positions = static_cast<int64_t>(t.height) * t.width;
  zero_shared(shared, int64_t{kPlanes} * kForwardBuffers * t.size);
  __syncthreads();
  for (int64_t first = blockIdx.x * int64_t{kPlanes}; first < planes; first += gridDim.x * int64_t{kPlanes}) {
    // A group without a plane computes the last one again and writes nothing: it has to reach the barriers.
    const bool active = first + group < planes;
    const int64_t p = active ? first + group : planes - 1;
    const S* plane = x + p * positions;
    S* out = local + p * positions;
    const T* of_channel1 = weight1 + p % channels * kTaps;
    const T* of_channel2 = weight2 + p % channels * kTaps;
    T sum = 0, best = -1;  // less than all that ReLU leaves
    int best_position = 0;
    for (int index = 0; index < tiles; ++index) {
      const Tile tile(t, index);
      if (tiles > 1) {  // what is outside the plane differs from tile to tile
        __syncthreads();
        zero_shared(shared, int64_t{kPlanes} * kForwardBuffers * t.size);
        __syncthreads();
      }
      load_region<kPacked, kGroup>(t, tile, Region(t, tile, 2), plane, inputs);
      __syncthreads();
      hide<kGroup>(t, Region(t, tile, 1), inputs, Filter<T>(of_channel1), hidden);
      __syncthreads();
      const Region inside(t, tile, 0);
      const Filter<T> filter(of_channel2);
      T partial = 0;
      for_patches<kGroup>(t, inside, [&](int row, int column) {
        Window<T> window(t, hidden, row, column, inside.end_row);
        window.make_leaky(slope);
#pragma unroll
        for (int i = 0; i < kPatch; ++i) {
          if (row + i >= inside.end_row) break;
          const T a = window.convolve(i, filter);
          const T e = exponential(a < T(0) ? a : -a), r = T(1) / (e + T(1));
          const T product = (a < T(0) ? e * r : r) * inputs[offset_of(t, row + i, column)];
          const T v = product < T(0) ? T(0) : product;  // keeps NaN
          const int at = (tile.row + row + i) * t.width + tile.column + column;
          if (active) out[at] = to_storage<S>(v);
          partial += v;
          if (beats(v, at, best, best_position)) {
            best = v;
            best_position = at;
          }
        }
      });
      sum += partial;
    }
    sum = warp_sum(sum);
#pragma unroll
    for (int step = kWarpSize / 2; step > 0; step /= 2) {
      const T other = __shfl_xor_sync(kFullMask, best, step);
      const int other_position = __shfl_xor_sync(kFullMask, best_position, step);
      if (beats(other, other_position, best, best_position)) {
        best = other;
        best_position = other_position;
      }
    }
    if (threadIdx.x % kWarpSize == 0) {
      warp_sums[group][member / kWarpSize] = sum;
      warp_best[group][member / kWarpSize] = best;
      warp_positions[group][member / kWarpSize] = best_position;
    }
    __syncthreads();  // also: the tile has been read before the next plane's is loaded
    if (member == 0 && active) {
#pragma unroll
      for (int warp = 1; warp < kWarps; ++warp) {
        sum += warp_sums[group][warp];
        if (beats(warp_best[group][warp], warp_positions[group][warp], best, best_position)) {
          best = warp_best[group][warp];
          best_position = warp_positions[group][warp];
        }
      }
      avg[p] = to_storage<S>(sum / static_cast<T>(positions));
      max[p] = to_storage<S>(best);
      argmax[p] = best_position;
    }
  }
}

// The sums over a warp, by its lane 0 into sums[0..8]
template <class T>
__device__ __forceinline__ void write_tap_sums(const T (&taps)[kTaps], T* sums) {
#pragma unroll
  for (int k = 0; k < kTaps; ++k) {
    const T total = warp_sum(taps[k]);
    if (threadIdx.x % kWarpSize == 0) sums[k] = total;
  }
}

template <class S, class T, int kGroup, int kPlanes, bool kPacked>
__global__ void __launch_bounds__(kGroup* kPlanes, kResidentBlocks<T, kGroup * kPlanes>)
    gate_gradient_kernel(const S* __restrict__ dlocal, const S* __restrict__ davg, const S* __restrict__ dmax,
                         const S* __restrict__ x, const T* __restrict__ weight1, const T* __restrict__ weight2,
                         const int64_t* __restrict__ argmax, int64_t planes, int64_t channels, Tiling t, T slope,
                         S* __restrict__ dx, T* __restrict__ dweights) {
  constexpr int kWarps = kGroup / kWarpSize;
  PYREID_DYNAMIC_SHARED(T, shared);
  __shared__ T warp_taps[kPlanes][kWarps][2 * kTaps];
  const int group = threadIdx.x / kGroup, member = threadIdx.x % kGroup;
  T* inputs = shared + static_cast<int64_t>(group) * kBackwardBuffers * t.size;
  T* hidden = inputs + t.size;  // h, later its gradient
  T* dgate = hidden + t.size;   // the gradient of a
  T* direct = dgate + t.size;   // the gradient of x without the way through h
  const int tiles = t.row_tiles * t.column_tiles;
  const int64_t positions = static_cast<int64_t>(t.height) * t.width;
  zero_shared(shared, int64_t{kPlanes} * kBackwardBuffers * t.size);
  __syncthreads();
  for (int64_t first = blockIdx.x * int64_t{kPlanes}; first < planes; first += gridDim.x * int64_t{kPlanes}) {
    const bool active = first + group < planes;
    const int64_t p = active ? first + group : planes - 1;
    const S* upstream = dlocal == nullptr ? nullptr : dlocal + p * positions;
    const T* of_channel1 = weight1 + p % channels * kTaps;
    const T* of_channel2 = weight2 + p % channels * kTaps;
    const T mean_gradient = davg == nullptr ? T(0) : to_compute(davg[p]) / static_cast<T>(positions);
    const T max_gradient = dmax == nullptr ? T(0) : to_compute(dmax[p]);
    const int max_position = static_cast<int>(argmax[p]);
    double total = 0;  // of one weight, for the first 18 threads of the group
    for (int index = 0; index < tiles; ++index) {
      const Tile tile(t, index);
      if (tiles > 1) {
        __syncthreads();
        zero_shared(shared, int64_t{kPlanes} * kBackwardBuffers * t.size);
        __syncthreads();
      }
      // No one reads the inputs after the third stage, so those of the next plane may come while the last one runs.
      load_region<kPacked, kGroup>(t, tile, Region(t, tile, 4), x + p * positions, inputs);
      __syncthreads();
      hide<kGroup>(t, Region(t, tile, 3), inputs, Filter<T>(of_channel1), hidden);
      __syncthreads();
      {
        T taps[kTaps] = {};
        const Region second(t, tile, 2);
        const Filter<T> filter(of_channel2);
        for_patches<kGroup>(t, second, [&](int row, int column) {
          T gradient[kPatch];
#pragma unroll
          for (int i = 0; i < kPatch; ++i) {
            gradient[i] = mean_gradient;
            if (row + i >= second.end_row) continue;
            const int at = (tile.row + row + i) * t.width + tile.column + column;
            if (upstream != nullptr) gradient[i] += to_compute(upstream[at]);
            if (at == max_position) gradient[i] += max_gradient;
          }
          Window<T> window(t, hidden, row, column, second.end_row);
          window.make_leaky(slope);
#pragma unroll
          for (int i = 0; i < kPatch; ++i) {
            if (row + i >= second.end_row) break;
            const T a = window.convolve(i, filter);
            const T e = exponential(a < T(0) ? a : -a), r = T(1) / (e + T(1));
            const T s = a < T(0) ? e * r : r, v = inputs[offset_of(t, row + i, column)];
            const T g = s * v <= T(0) ? T(0) : gradient[i];
            const T da = g * v * (e * r * r);  // s (1 - s) without cancellation
            direct[offset_of(t, row + i, column)] = g * s;
            dgate[offset_of(t, row + i, column)] = da;
            const bool inside = row + i >= 0 && row + i < tile.rows && column >= 0 && column < tile.columns;
            if (dweights != nullptr && inside) window.add_taps(i, da, taps);
          }
        });
        if (dweights != nullptr) write_tap_sums(taps, warp_taps[group][member / kWarpSize] + kTaps);
      }
      __syncthreads();
      {
        T taps[kTaps] = {};
        const Region around(t, tile, 1);
        const Filter<T> filter(of_channel2);
        for_patches<kGroup>(t, around, [&](int row, int column) {
          T dh[kPatch];
          {
            const Window<T> window(t, dgate, row, column, around.end_row);
#pragma unroll
            for (int i = 0; i < kPatch; ++i) dh[i] = window.convolve_back(i, filter);
          }
#pragma unroll
          for (int i = 0; i < kPatch; ++i) {
            if (row + i >= around.end_row) break;
            T* h = hidden + offset_of(t, row + i, column);
            dh[i] = *h > T(0) ? dh[i] : dh[i] * slope;
            *h = dh[i];  // nobody else reads this one before the barrier
          }
          if (dweights == nullptr || column < 0 || column >= tile.columns) return;
          const Window<T> window(t, inputs, row, column, around.end_row);
#pragma unroll
          for (int i = 0; i < kPatch; ++i) {
            if (row + i >= 0 && row + i < tile.rows) window.add_taps(i, dh[i], taps);
          }
        });
        if (dweights != nullptr) write_tap_sums(taps, warp_taps[group][member / kWarpSize]);
      }
      __syncthreads();
      if (dweights != nullptr && member < 2 * kTaps) {
        T sum = warp_taps[group][0][member];
#pragma unroll
        for (int warp = 1; warp < kWarps; ++warp) sum += warp_taps[group][warp][member];
        total += static_cast<double>(sum);
      }
      if (dx != nullptr && active) {
        const Region inside(t, tile, 0);
        const Filter<T> filter(of_channel1);
        for_patches<kGroup>(t, inside, [&](int row, int column) {
          const Window<T> window(t, hidden, row, column, inside.end_row);
#pragma unroll
          for (int i = 0; i < kPatch; ++i) {
            if (row + i >= inside.end_row) break;
            const int at = (tile.row + row + i) * t.width + tile.column + column;
            const T through = window.convolve_back(i, filter);
            dx[p * positions + at] = to_storage<S>(direct[offset_of(t, row + i, column)] + through);
          }
        });
      }
    }
    if (dweights != nullptr && active && member < 2 * kTaps) dweights[p * 2 * kTaps + member] = static_cast<T>(total);
  }
}

// A thread for each weight.
template <class T>
__global__ void weight_gradient_kernel(const T* __restrict__ dweights, int64_t samples, int64_t channels,
                                       T* __restrict__ dweight1, T* __restrict__ dweight2) {
  const int64_t weights = channels * 2 * kTaps;
  for (int64_t i = blockIdx.x * int64_t{kBlockThreads} + threadIdx.x; i < weights;
       i += gridDim.x * int64_t{kBlockThreads}) {
    double sum = 0;
    for (int64_t n = 0; n < samples; ++n) sum += static_cast<double>(dweights[n * weights + i]);
    const int64_t channel = i / (2 * kTaps), k = i % (2 * kTaps);
    T* out = k < kTaps ? dweight1 + channel * kTaps + k : dweight2 + channel * kTaps + k - kTaps;
    *out = static_cast<T>(sum);
  }
}

// Whether a warp each is enough for planes of this size
template <class T>
bool is_small(const Tiling& t, int buffers) {
  return t.whole() && int64_t{t.height} * t.width <= kLargestWarpPlane &&
         kWarpPlanes * buffers * t.size * static_cast<int64_t>(sizeof(T)) <= kSharedBytes;
}

// Whether rows move in packs: those of narrow planes would meet in the same banks.
template <class S, class T>
bool rows_in_packs(const S* x, int64_t width) {
  return width >= kWarpSize && width <= kWidestTile<T> && fits_packs(x, width);
}

}  // namespace

template <class S, class T>
void spatial_gate(const S* x, const T* weight1, const T* weight2, int64_t samples, int64_t channels, int64_t height,
                  int64_t width, T slope, S* local, S* avg, S* max, int64_t* argmax, cudaStream_t stream) {
  const int64_t planes = samples * channels;
  if (planes == 0) return;
  const bool packed = rows_in_packs<S, T>(x, width);
  const Tiling t = make_tiling<T>(height, width, kForwardHalo, kForwardBuffers, packed);
  const size_t bytes = kForwardBuffers * t.size * sizeof(T);
  if (is_small<T>(t, kForwardBuffers)) {
    PYREID_LAUNCH((gate_kernel<S, T, kWarpSize, kWarpPlanes, false>), grid_for(planes, kWarpPlanes),
                  kWarpSize * kWarpPlanes, kWarpPlanes * bytes, stream, x, weight1, weight2, planes, channels, t, slope,
                  local, avg, max, argmax);
  } else if (packed) {
    PYREID_LAUNCH((gate_kernel<S, T, kBlockThreads, 1, true>), grid_for(planes, 1), kBlockThreads, bytes, stream, x,
                  weight1, weight2, planes, channels, t, slope, local, avg, max, argmax);
  } else {
    PYREID_LAUNCH((gate_kernel<S, T, kBlockThreads, 1, false>), grid_for(planes, 1), kBlockThreads, bytes, stream, x,
                  weight1, weight2, planes, channels, t, slope, local, avg, max, argmax);
  }
}

template <class S, class T>
void spatial_gate_gradient(const S* dlocal, const S* davg, const S* dmax, const S* x, const T* weight1,
                           const T* weight2, const int64_t* argmax, int64_t samples, int64_t channels, int64_t height,
                           int64_t width, T slope, S* dx, T* dweights, cudaStream_t stream) {
  const int64_t planes = samples * channels;
  if (planes == 0) return;
  const bool packed = rows_in_packs<S, T>(x, width);
  const Tiling t = make_tiling<T>(height, width, kBackwardHalo, kBackwardBuffers, packed);
  const size_t bytes = kBackwardBuffers * t.size * sizeof(T);
  if (is_small<T>(t, kBackwardBuffers)) {
    PYREID_LAUNCH((gate_gradient_kernel<S, T, kWarpSize, kWarpPlanes, false>), grid_for(planes, kWarpPlanes),
                  kWarpSize * kWarpPlanes, kWarpPlanes * bytes, stream, dlocal, davg, dmax, x, weight1, weight2, argmax,
                  planes, channels, t, slope, dx, dweights);
  } else if (packed) {
    PYREID_LAUNCH((gate_gradient_kernel<S, T, kBlockThreads, 1, true>), grid_for(planes, 1), kBlockThreads, bytes,
                  stream, dlocal, davg, dmax, x, weight1, weight2, argmax, planes, channels, t, slope, dx, dweights);
  } else {
    PYREID_LAUNCH((gate_gradient_kernel<S, T, kBlockThreads, 1, false>), grid_for(planes, 1), kBlockThreads, bytes,
                  stream, dlocal, davg, dmax, x, weight1, weight2, argmax, planes, channels, t, slope, dx, dweights);
  }
}

template <class T>
void spatial_gate_weight_gradient(const T* dweights, int64_t samples, int64_t channels, T* dweight1, T* dweight2,
                                  cudaStream_t stream) {
  if (channels == 0) return;
  PYREID_LAUNCH((weight_gradient_kernel<T>), grid_for(channels * 2 * kTaps, kBlockThreads), kBlockThreads, 0, stream,
                dweights, samples, channels, dweight1, dweight2);
}

#define PYREID_INSTANTIATE_PLANES(S, T)                                                                           \
  template void spatial_gate(const S*, const T*, const T*, int64_t, int64_t, int64_t, int64_t, T, S*, S*, S*,     \
                             int64_t*, cudaStream_t);                                                             \
  template void spatial_gate_gradient(const S*, const S*, const S*, const S*, const T*, const T*, const int64_t*, \
                                      int64_t, int64_t, int64_t, int64_t, T, S*, T*, cudaStream_t);
#define PYREID_INSTANTIATE(T) \
  template void spatial_gate_weight_gradient(const T*, int64_t, int64_t, T*, T*, cudaStream_t);
PYREID_INSTANTIATE_PLANES(float, float)
PYREID_INSTANTIATE_PLANES(double, double)
PYREID_INSTANTIATE_PLANES(__half, float)
PYREID_INSTANTIATE_PLANES(__nv_bfloat16, float)
PYREID_INSTANTIATE(float)
PYREID_INSTANTIATE(double)
#undef PYREID_INSTANTIATE
#undef PYREID_INSTANTIATE_PLANES

}  // namespace pyreid::cuda
