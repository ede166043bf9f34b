// CUDA kernel for all squared distances between the rows of one matrix; arguments as in csrc/cpu/self_distances.h.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

namespace pyreid::cuda {

inline constexpr int kDistanceTile = 64;
inline constexpr int kDistancePiece = 32;

// Into how many parts of the columns the sums are split, so that batches of a few hundred rows too keep many
// multiprocessors busy. It depends on the shape alone, and so do the results.
inline int64_t distance_splits(int64_t b, int64_t d) {
  constexpr int64_t kBlocks = 256, kMostSplits = 16;
  const int64_t tile_rows = (b + kDistanceTile - 1) / kDistanceTile;
  const int64_t tiles = tile_rows * (tile_rows + 1) / 2;
  const int64_t pieces = (d + kDistancePiece - 1) / kDistancePiece;
  int64_t splits = tiles > 0 ? kBlocks / tiles : 1;
  splits = splits < pieces ? splits : pieces;
  splits = splits < kMostSplits ? splits : kMostSplits;
  return splits > 1 ? splits : 1;
}

// squared [splits, B, B]: partial sums; what reads them adds them in order.
template <class T>
void squared_self_distances(const T* x, int64_t b, int64_t d, int64_t splits, T* squared, cudaStream_t stream);

}  // namespace pyreid::cuda
