// masked_mix: y = mask local + (1 - mask) relu(x + identity), with one value of the mask for each channel.
//
// Rows layout [N, C, n]: a group of kGroup threads has a row, a warp up to 1024 positions, a block of 256 threads
// above, and reads its mask once. Rows of every length are moved in 128-bit packs (row_packs.cuh). The backward kernel
// writes dlocal = mask g and dx = (1 - mask) g where x + identity > 0, and sums g (local - relu(x + identity)) over the
// row. Channels-last layout [N, n, C]: a block has 64 positions of a tile of channels; a thread keeps the masks of one
// pack of channels in registers and walks down the positions, so that neighbours read neighbouring packs. The sums of
// the threads that share a channel are added through shared memory, and go to partials [N, chunks, C]. A second kernel
// adds the partial sums over chunks, and over samples for a mask (C,), in double; a mask (N, C) in the rows layout does
// not need it. Bytes: forward 3 reads and 1 write, backward 4 reads and 2 writes of a feature map; the partial sums are
// at most 1/32 of one. Arithmetic is in float for half types, else in the type of the maps. A thread adds every 32nd or
// 256th pack of a row, or at most 64 positions, one after the other. No atomics, all orders fixed: results repeat bit
// for bit.
#include "csrc/cuda/masked_mix.cuh"

#include "csrc/cuda/launch.cuh"
#include "csrc/cuda/reduce.cuh"
#include "csrc/cuda/row_packs.cuh"

namespace pyreid::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;
constexpr int64_t kLongestWarpRow = 1024;

template <class T>
__device__ __forceinline__ T relu_or_nan(T x) {
  return x <= T(0) ? T(0) : x;
}

// With a mask of 0 or 1 one product is the value itself and the other 0, in any order of rounding. Which product is
// rounded is said here: kernels for different layouts, left to the compiler, would differ in the last bit.
template <int kWidth, class S, class T>
__device__ __forceinline__ void mix(const S* local, const S* x, const S* identity, const T (&mask)[kWidth], S* out) {
  T l[kWidth], a[kWidth], b[kWidth];
  load_as(local, l);
  load_as(x, a);
  load_as(identity, b);
#pragma unroll
  for (int k = 0; k < kWidth; ++k) l[k] = fma(mask[k], l[k], (T(1) - mask[k]) * relu_or_nan(a[k] + b[k]));
  store_as(out, l);
}

// Gradients of kWidth elements, at offset i; adds the terms of the mask's gradient to `sums` if kSum.
template <bool kSum, int kWidth, class S, class T>
__device__ __forceinline__ void gradients(int64_t i, const S* grad, const S* local, const S* x, const S* identity,
                                          const T (&mask)[kWidth], S* dlocal, S* dx, T (&sums)[kWidth]) {
  T g[kWidth], l[kWidth], a[kWidth], b[kWidth];
  load_as(grad + i, g);
  if (kSum || dx != nullptr) {
    load_as(x + i, a);
    load_as(identity + i, b);
  }
  if constexpr (kSum) load_as(local + i, l);
  if (dlocal != nullptr) {
    T out[kWidth];
#pragma unroll
    for (int k = 0; k < kWidth; ++k) out[k] = mask[k] * g[k];
    store_as(dlocal + i, out);
  }
  if (kSum || dx != nullptr) {
#pragma unroll
    for (int k = 0; k < kWidth; ++k) a[k] += b[k];
  }
  if (dx != nullptr) {
    T out[kWidth];
#pragma unroll
    for (int k = 0; k < kWidth; ++k) out[k] = a[k] <= T(0) ? T(0) : (T(1) - mask[k]) * g[k];
    store_as(dx + i, out);
  }
  if constexpr (kSum) {
#pragma unroll
    for (int k = 0; k < kWidth; ++k) sums[k] += g[k] * (l[k] - relu_or_nan(a[k]));
  }
}

template <class S, class T, int kGroup>
__global__ void mix_rows_kernel(const S* __restrict__ local, const S* __restrict__ x, const S* __restrict__ identity,
                                const T* __restrict__ mask, int64_t rows, int64_t masks, int64_t n, bool aligned,
                                S* __restrict__ out) {
  const int member = threadIdx.x % kGroup;
  const int64_t groups = static_cast<int64_t>(gridDim.x) * (kThreads / kGroup);
  for (int64_t r = blockIdx.x * static_cast<int64_t>(kThreads / kGroup) + threadIdx.x / kGroup; r < rows; r += groups) {
    const T m = mask[r % masks];
    const int64_t begin = r * n;
    each_pack<S, kGroup>(begin, n, aligned, member, [&](int64_t i, auto width) {
      constexpr int kWidth = decltype(width)::value;
      T row_mask[kWidth];
#pragma unroll
      for (int k = 0; k < kWidth; ++k) row_mask[k] = m;
      mix(local + begin + i, x + begin + i, identity + begin + i, row_mask, out + begin + i);
    });
  }
}

// `partials` is one sum for each row, or null unless kSum.
template <class S, class T, int kGroup, bool kSum>
__global__ void gradient_rows_kernel(const S* __restrict__ grad, const S* __restrict__ local, const S* __restrict__ x,
                                     const S* __restrict__ identity, const T* __restrict__ mask, int64_t rows,
                                     int64_t masks, int64_t n, bool aligned, S* __restrict__ dlocal, S* __restrict__ dx,
                                     T* __restrict__ partials) {
  __shared__ T scratch[kWarps];
  const int member = threadIdx.x % kGroup;
  const int64_t groups = static_cast<int64_t>(gridDim.x) * (kThreads / kGroup);
  // All threads of a group have the same row, so that all of them reach its shuffles and barriers.
  for (int64_t r = blockIdx.x * static_cast<int64_t>(kThreads / kGroup) + threadIdx.x / kGroup; r < rows; r += groups) {
    const T m = mask[r % masks];
    const int64_t begin = r * n;
    T sum = 0;
    each_pack<S, kGroup>(begin, n, aligned, member, [&](int64_t i, auto width) {
      constexpr int kWidth = decltype(width)::value;
      T row_mask[kWidth], terms[kWidth];
#pragma unroll
      for (int k = 0; k < kWidth; ++k) {
        row_mask[k] = m;
        terms[k] = 0;
      }
      gradients<kSum>(begin + i, grad, local, x, identity, row_mask, dlocal, dx, terms);
      if constexpr (kSum) {
#pragma unroll
        for (int k = 1; k < kWidth; ++k) terms[0] += terms[k];
        sum += terms[0];
      }
    });
    if constexpr (kSum) {
      if constexpr (kGroup == kWarpSize) {
        sum = warp_sum(sum);
      } else {
        sum = block_sum<kGroup>(sum, scratch);
      }
      if (member == 0) partials[r] = sum;
    }
  }
}

// Where a thread works in the channels-last layout. A block's threads stand in `across` columns of kWidth channels; the
// threads of a column take turns at the positions of a chunk.
struct Place {
  int64_t sample, chunk, first, end, channel;
};

template <int kWidth>
__device__ __forceinline__ Place place_of(int64_t task, int across, int64_t channels, int64_t positions,
                                          int64_t chunks) {
  constexpr int64_t kChunk = MixShape::kPositionsPerChunk;
  const int64_t tile_channels = static_cast<int64_t>(across) * kWidth;
  const int64_t tiles = (channels + tile_channels - 1) / tile_channels;
  Place place;
  place.channel = task % tiles * tile_channels + static_cast<int64_t>(threadIdx.x % across) * kWidth;
  place.chunk = task / tiles % chunks;
  place.sample = task / tiles / chunks;
  place.first = place.chunk * kChunk + threadIdx.x / across;
  place.end = (place.chunk + 1) * kChunk;
  if (place.end > positions) place.end = positions;
  if (place.channel >= channels) place.end = 0;  // nothing to do
  return place;
}

template <int kWidth, class T>
__device__ __forceinline__ void load_masks(const T* mask, const Place& place, int64_t channels, bool mask_per_sample,
                                           T (&values)[kWidth]) {
#pragma unroll
  for (int k = 0; k < kWidth; ++k) {
    values[k] =
        place.channel < channels ? mask[(mask_per_sample ? place.sample * channels : 0) + place.channel + k] : T(0);
  }
}

// If kWidth is not 1, the channels are a multiple of it.
template <class S, class T, int kWidth>
__global__ void mix_channels_kernel(const S* __restrict__ local, const S* __restrict__ x,
                                    const S* __restrict__ identity, const T* __restrict__ mask, int64_t channels,
                                    int64_t positions, int64_t chunks, bool mask_per_sample, int across, int64_t tasks,
                                    S* __restrict__ out) {
  const int down = kThreads / across;
  for (int64_t task = blockIdx.x; task < tasks; task += gridDim.x) {
    const Place place = place_of<kWidth>(task, across, channels, positions, chunks);
    T masks[kWidth];
    load_masks(mask, place, channels, mask_per_sample, masks);
    for (int64_t p = place.first; p < place.end; p += down) {
      const int64_t i = (place.sample * positions + p) * channels + place.channel;
      mix(local + i, x + i, identity + i, masks, out + i);
    }
  }
}

template <class S, class T, int kWidth, bool kSum>
__global__ void gradient_channels_kernel(const S* __restrict__ grad, const S* __restrict__ local,
                                         const S* __restrict__ x, const S* __restrict__ identity,
                                         const T* __restrict__ mask, int64_t channels, int64_t positions,
                                         int64_t chunks, bool mask_per_sample, int across, int64_t tasks,
                                         S* __restrict__ dlocal, S* __restrict__ dx, T* __restrict__ partials) {
  __shared__ T scratch[kSum ? kWidth * kThreads : 1];
  const int down = kThreads / across, thread = threadIdx.x;
  for (int64_t task = blockIdx.x; task < tasks; task += gridDim.x) {
    const Place place = place_of<kWidth>(task, across, channels, positions, chunks);
    T masks[kWidth], sums[kWidth];
    load_masks(mask, place, channels, mask_per_sample, masks);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) sums[k] = 0;
    for (int64_t p = place.first; p < place.end; p += down) {
      const int64_t i = (place.sample * positions + p) * channels + place.channel;
      gradients<kSum>(i, grad, local, x, identity, masks, dlocal, dx, sums);
    }
    if constexpr (kSum) {
      __syncthreads();  // the sums of the task before have been read
#pragma unroll
      for (int k = 0; k < kWidth; ++k) scratch[k * kThreads + thread] = sums[k];
      __syncthreads();
      if (thread < across && place.channel < channels) {
#pragma unroll
        for (int k = 0; k < kWidth; ++k) {
          for (int other = 1; other < down; ++other) sums[k] += scratch[k * kThreads + other * across + thread];
          partials[(place.sample * chunks + place.chunk) * channels + place.channel + k] = sums[k];
        }
      }
    }
  }
}

// dmask[group, c] = sum of `count` rows of partials [groups, count, C]: a block for 32 channels of a group, each of its
// warps for every eighth row.
template <class T>
__global__ void mask_gradient_kernel(const T* __restrict__ partials, int64_t groups, int64_t count, int64_t channels,
                                     T* __restrict__ dmask) {
  __shared__ double scratch[kThreads];
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  const int64_t tiles = (channels + kWarpSize - 1) / kWarpSize;
  for (int64_t task = blockIdx.x; task < groups * tiles; task += gridDim.x) {
    const int64_t group = task / tiles, c = task % tiles * kWarpSize + lane;
    double sum = 0;
    if (c < channels) {
      for (int64_t i = warp; i < count; i += kWarps) {
        sum += static_cast<double>(partials[(group * count + i) * channels + c]);
      }
    }
    __syncthreads();  // the sums of the task before have been read
    scratch[threadIdx.x] = sum;
    __syncthreads();
    if (warp == 0 && c < channels) {
      for (int other = 1; other < kWarps; ++other) sum += scratch[other * kWarpSize + lane];
      dmask[group * channels + c] = static_cast<T>(sum);
    }
  }
}

int64_t masks_of(const MixShape& shape) {
  return shape.mask_per_sample ? shape.samples * shape.channels : shape.channels;
}

// Columns of kWidth channels in a block: a power of two, so that they divide the threads.
int columns_for(int64_t channels, int width) {
  int across = 1;
  while (across < kThreads && static_cast<int64_t>(across) * width < channels) across *= 2;
  return across;
}

int64_t tasks_for(const MixShape& shape, int width, int across) {
  const int64_t tile_channels = static_cast<int64_t>(across) * width;
  return shape.samples * shape.chunks() * ((shape.channels + tile_channels - 1) / tile_channels);
}

template <class S, class T, int kWidth>
void mix_channels(const S* local, const S* x, const S* identity, const T* mask, MixShape shape, S* out,
                  cudaStream_t stream) {
  const int across = columns_for(shape.channels, kWidth);
  const int64_t tasks = tasks_for(shape, kWidth, across);
  PYREID_LAUNCH((mix_channels_kernel<S, T, kWidth>), grid_for(tasks, 1), kThreads, 0, stream, local, x, identity, mask,
                shape.channels, shape.positions, shape.chunks(), shape.mask_per_sample, across, tasks, out);
}

template <class S, class T, int kWidth, bool kSum>
void gradient_channels(const S* grad, const S* local, const S* x, const S* identity, const T* mask, MixShape shape,
                       S* dlocal, S* dx, T* partials, cudaStream_t stream) {
  const int across = columns_for(shape.channels, kWidth);
  const int64_t tasks = tasks_for(shape, kWidth, across);
  PYREID_LAUNCH((gradient_channels_kernel<S, T, kWidth, kSum>), grid_for(tasks, 1), kThreads, 0, stream, grad, local, x,
                identity, mask, shape.channels, shape.positions, shape.chunks(), shape.mask_per_sample, across, tasks,
                dlocal, dx, partials);
}

template <class S, class T, bool kSum>
void gradient(const S* grad, const S* local, const S* x, const S* identity, const T* mask, MixShape shape, S* dlocal,
              S* dx, T* partials, cudaStream_t stream) {
  const bool aligned = all_aligned(grad, local, x, identity, dlocal, dx);
  const int64_t rows = shape.samples * shape.channels, n = shape.positions;
  if (shape.channels_last) {
    if (aligned && shape.channels % kPackSize<S> == 0) {
      gradient_channels<S, T, kPackSize<S>, kSum>(grad, local, x, identity, mask, shape, dlocal, dx, partials, stream);
    } else {
      gradient_channels<S, T, 1, kSum>(grad, local, x, identity, mask, shape, dlocal, dx, partials, stream);
    }
  } else if (n <= kLongestWarpRow) {
    PYREID_LAUNCH((gradient_rows_kernel<S, T, kWarpSize, kSum>), grid_for(rows, kWarps), kThreads, 0, stream, grad,
                  local, x, identity, mask, rows, masks_of(shape), n, aligned, dlocal, dx, partials);
  } else {
    PYREID_LAUNCH((gradient_rows_kernel<S, T, kThreads, kSum>), grid_for(rows, 1), kThreads, 0, stream, grad, local, x,
                  identity, mask, rows, masks_of(shape), n, aligned, dlocal, dx, partials);
  }
}

}  // namespace

template <class S, class T>
void masked_mix(const S* local, const S* x, const S* identity, const T* mask, MixShape shape, S* out,
                cudaStream_t stream) {
  const bool aligned = all_aligned(local, x, identity, out);
  const int64_t rows = shape.samples * shape.channels, n = shape.positions;
  if (shape.elements() == 0) return;
  if (shape.channels_last) {
    if (aligned && shape.channels % kPackSize<S> == 0) {
      mix_channels<S, T, kPackSize<S>>(local, x, identity, mask, shape, out, stream);
    } else {
      mix_channels<S, T, 1>(local, x, identity, mask, shape, out, stream);
    }
  } else if (n <= kLongestWarpRow) {
    PYREID_LAUNCH((mix_rows_kernel<S, T, kWarpSize>), grid_for(rows, kWarps), kThreads, 0, stream, local, x, identity,
                  mask, rows, masks_of(shape), n, aligned, out);
  } else {
    PYREID_LAUNCH((mix_rows_kernel<S, T, kThreads>), grid_for(rows, 1), kThreads, 0, stream, local, x, identity, mask,
                  rows, masks_of(shape), n, aligned, out);
  }
}

template <class S, class T>
void masked_mix_gradient(const S* grad, const S* local, const S* x, const S* identity, const T* mask, MixShape shape,
                         S* dlocal, S* dx, T* partials, cudaStream_t stream) {
  if (shape.samples * shape.channels * shape.chunks() == 0) return;
  if (partials != nullptr) {
    gradient<S, T, true>(grad, local, x, identity, mask, shape, dlocal, dx, partials, stream);
  } else if (shape.elements() > 0) {
    gradient<S, T, false>(grad, local, x, identity, mask, shape, dlocal, dx, partials, stream);
  }
}

template <class T>
void masked_mix_mask_gradient(const T* partials, MixShape shape, T* dmask, cudaStream_t stream) {
  const int64_t groups = shape.mask_per_sample ? shape.samples : 1;
  const int64_t count = shape.mask_per_sample ? shape.chunks() : shape.samples * shape.chunks();
  const int64_t tiles = (shape.channels + kWarpSize - 1) / kWarpSize;
  if (groups * tiles == 0) return;
  PYREID_LAUNCH((mask_gradient_kernel<T>), grid_for(groups * tiles, 1), kThreads, 0, stream, partials, groups, count,
                shape.channels, dmask);
}

#define PYREID_INSTANTIATE_MAPS(S, T)                                                                       \
  template void masked_mix(const S*, const S*, const S*, const T*, MixShape, S*, cudaStream_t);             \
  template void masked_mix_gradient(const S*, const S*, const S*, const S*, const T*, MixShape, S*, S*, T*, \
                                    cudaStream_t);
#define PYREID_INSTANTIATE(T) template void masked_mix_mask_gradient(const T*, MixShape, T*, cudaStream_t);
PYREID_INSTANTIATE_MAPS(float, float)
PYREID_INSTANTIATE_MAPS(double, double)
PYREID_INSTANTIATE_MAPS(__half, float)
PYREID_INSTANTIATE_MAPS(__nv_bfloat16, float)
PYREID_INSTANTIATE(float)
PYREID_INSTANTIATE(double)
#undef PYREID_INSTANTIATE
#undef PYREID_INSTANTIATE_MAPS

}  // namespace pyreid::cuda
