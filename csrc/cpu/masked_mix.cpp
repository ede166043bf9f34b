#include "csrc/cpu/masked_mix.h"

#include <algorithm>

#include "csrc/cpu/huge_pages.h"
#include "csrc/cpu/simd/masked_mix.h"

namespace pyreid::cpu {
namespace {

constexpr int64_t kChannelsPerTask = 64;

template <class S>
S* at(S* p, int64_t offset) {
  return p == nullptr ? nullptr : p + offset;
}

}  // namespace

template <class S, class T>
void masked_mix(const S* local, const S* x, const S* identity, const T* mask, MixShape shape, S* out,
                const ParallelFor& parallel_for) {
  const int64_t channels = shape.channels, positions = shape.positions;
  advise_huge_pages(out, shape.elements() * static_cast<int64_t>(sizeof(S)));
  if (shape.channels_last) {
    parallel_for(0, shape.samples * positions, grain_for(channels), [=](int64_t begin, int64_t end) {
      while (begin < end) {
        const int64_t sample = begin / positions, stop = std::min(end, (sample + 1) * positions);
        const int64_t offset = begin * channels;
        const T* channel_mask = mask + (shape.mask_per_sample ? sample * channels : 0);
        PYREID_SIMD(mix_channels, local + offset, x + offset, identity + offset, channel_mask, stop - begin, channels,
                    out + offset);
        begin = stop;
      }
    });
  } else {
    parallel_for(0, shape.samples * channels, grain_for(positions), [=](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const int64_t offset = r * positions;
        PYREID_SIMD(mix_row, local + offset, x + offset, identity + offset, positions,
                    mask[shape.mask_per_sample ? r : r % channels], out + offset);
      }
    });
  }
}

template <class S, class T>
void masked_mix_gradient(const S* grad, const S* local, const S* x, const S* identity, const T* mask, MixShape shape,
                         S* dlocal, S* dx, T* partials, const ParallelFor& parallel_for) {
  const int64_t channels = shape.channels, positions = shape.positions;
  const int64_t bytes = shape.elements() * static_cast<int64_t>(sizeof(S));
  if (dlocal != nullptr) advise_huge_pages(dlocal, bytes);
  if (dx != nullptr) advise_huge_pages(dx, bytes);
  if (shape.channels_last) {
    constexpr int64_t kChunk = MixShape::kPositionsPerChunk;
    const int64_t chunks = shape.chunks();
    parallel_for(0, shape.samples * chunks, grain_for(kChunk * channels), [=](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t sample = task / chunks, first = task % chunks * kChunk;
        const int64_t offset = (sample * positions + first) * channels;
        const T* channel_mask = mask + (shape.mask_per_sample ? sample * channels : 0);
        PYREID_SIMD(mix_gradient_channels, grad + offset, local + offset, x + offset, identity + offset, channel_mask,
                    std::min(kChunk, positions - first), channels, at(dlocal, offset), at(dx, offset),
                    at(partials, task * channels));
      }
    });
  } else {
    parallel_for(0, shape.samples * channels, grain_for(positions), [=](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const int64_t offset = r * positions;
        PYREID_SIMD(mix_gradient_row, grad + offset, local + offset, x + offset, identity + offset, positions,
                    mask[shape.mask_per_sample ? r : r % channels], at(dlocal, offset), at(dx, offset),
                    at(partials, r));
      }
    });
  }
}

template <class T>
void masked_mix_mask_gradient(const T* partials, MixShape shape, T* dmask, const ParallelFor& parallel_for) {
  const int64_t channels = shape.channels, chunks = shape.chunks();
  const int64_t masks = shape.mask_per_sample ? shape.samples : 1;
  const int64_t count = shape.mask_per_sample ? chunks : shape.samples * chunks;
  const int64_t tiles = (channels + kChannelsPerTask - 1) / kChannelsPerTask;
  parallel_for(0, masks * tiles, grain_for(count * kChannelsPerTask), [=](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t group = task / tiles, first = task % tiles * kChannelsPerTask;
      const int64_t width = std::min(kChannelsPerTask, channels - first);
      double totals[kChannelsPerTask] = {};
      for (int64_t i = 0; i < count; ++i) {
        const T* row = partials + (group * count + i) * channels + first;
        for (int64_t c = 0; c < width; ++c) totals[c] += static_cast<double>(row[c]);
      }
      for (int64_t c = 0; c < width; ++c) dmask[group * channels + first + c] = static_cast<T>(totals[c]);
    }
  });
}

#define PYREID_INSTANTIATE_MAPS(S, T)                                                                       \
  template void masked_mix(const S*, const S*, const S*, const T*, MixShape, S*, const ParallelFor&);       \
  template void masked_mix_gradient(const S*, const S*, const S*, const S*, const T*, MixShape, S*, S*, T*, \
                                    const ParallelFor&);
#define PYREID_INSTANTIATE(T) template void masked_mix_mask_gradient(const T*, MixShape, T*, const ParallelFor&);
PYREID_INSTANTIATE_MAPS(float, float)
PYREID_INSTANTIATE_MAPS(double, double)
PYREID_INSTANTIATE_MAPS(Half, float)
PYREID_INSTANTIATE_MAPS(BFloat16, float)
PYREID_INSTANTIATE(float)
PYREID_INSTANTIATE(double)
#undef PYREID_INSTANTIATE
#undef PYREID_INSTANTIATE_MAPS

}  // namespace pyreid::cpu
