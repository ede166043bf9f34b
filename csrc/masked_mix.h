// The shape of masked_mix's feature maps, shared by both backends.
#pragma once
#include <cstdint>

namespace pyreid {

struct MixShape {
  int64_t samples, channels, positions;
  bool channels_last;    // in memory [N, positions, C] instead of [N, C, positions]
  bool mask_per_sample;  // the mask is [N, C] instead of [C]

  // The mask's gradient is summed over chunks of a sample's positions first, each by one task.
  static constexpr int64_t kPositionsPerChunk = 64;
  int64_t chunks() const { return channels_last ? (positions + kPositionsPerChunk - 1) / kPositionsPerChunk : 1; }
  int64_t elements() const { return samples * channels * positions; }
};

}  // namespace pyreid
