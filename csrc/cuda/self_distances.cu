// All squared distances between the rows of one matrix, by differences: near duplicates keep their digits.
//
// A block computes a 32 x 32 tile of the lower triangle over one part of the columns: 256 threads with 2 x 2 pairs
// each, features in pieces of 32 columns through shared memory. Tiles below the diagonal are also written transposed,
// so the matrix is exactly symmetric. Reads B^2 D / 32 elements, mostly from the second-level cache; writes splits B^2.
// Every pair is summed column by column in the same order, so equal rows have equal distances to any third one, and
// results repeat bit for bit. Arithmetic is in T (float or double).
#include "csrc/cuda/self_distances.cuh"

#include "csrc/cuda/launch.cuh"

namespace pyreid::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kSide = 16;  // threads along each side of a tile

// Tiles of the lower triangle are numbered row by row: tile (i, j) is i (i + 1) / 2 + j.
__device__ inline int64_t triangle_row(int64_t tile) {
  int64_t row = static_cast<int64_t>((sqrt(8.0 * static_cast<double>(tile) + 1.0) - 1.0) / 2.0);
  while (row * (row + 1) / 2 > tile) --row;
  while ((row + 1) * (row + 2) / 2 <= tile) ++row;
  return row;
}

// Columns [k, k + 32) of 32 rows into shared memory, 0 past the last row and past `end`.
template <class T>
__device__ inline void load_piece(const T* x, int64_t b, int64_t d, int64_t row, int64_t k, int64_t end,
                                  T (*piece)[kDistanceTile + 1]) {
  for (int e = threadIdx.x; e < kDistanceTile * kDistanceTile; e += kThreads) {
    const int r = e / kDistanceTile, c = e % kDistanceTile;
    piece[r][c] = row + r < b && k + c < end ? x[(row + r) * d + k + c] : T(0);
  }
}

template <class T>
__global__ void squared_self_distances_kernel(const T* __restrict__ x, int64_t b, int64_t d, int64_t splits,
                                              int64_t items, T* __restrict__ squared) {
  __shared__ T left[kDistanceTile][kDistanceTile + 1];
  __shared__ T right[kDistanceTile][kDistanceTile + 1];
  const int column = threadIdx.x % kSide, row = threadIdx.x / kSide;
  const int64_t pieces = (d + kDistanceTile - 1) / kDistanceTile;
  const int64_t split_columns = (pieces + splits - 1) / splits * kDistanceTile;
  for (int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const int64_t split = item % splits, tile = item / splits;
    const int64_t tile_i = triangle_row(tile), tile_j = tile - tile_i * (tile_i + 1) / 2;
    const int64_t i0 = tile_i * kDistanceTile, j0 = tile_j * kDistanceTile;
    const int64_t begin = split * split_columns;
    const int64_t end = begin + split_columns < d ? begin + split_columns : d;
    T sums[2][2] = {{T(0), T(0)}, {T(0), T(0)}};
    for (int64_t k = begin; k < end; k += kDistanceTile) {
      __syncthreads();  // the last piece has been read
      load_piece(x, b, d, i0, k, end, left);
      load_piece(x, b, d, j0, k, end, right);
      __syncthreads();
#pragma unroll 8
      for (int c = 0; c < kDistanceTile; ++c) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
#pragma unroll
          for (int s = 0; s < 2; ++s) {
            const T difference = left[row + r * kSide][c] - right[column + s * kSide][c];
            sums[r][s] += difference * difference;
          }
        }
      }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
#pragma unroll
      for (int s = 0; s < 2; ++s) {
        const int64_t i = i0 + row + r * kSide, j = j0 + column + s * kSide;
        if (i < b && j < b) {
          squared[(split * b + i) * b + j] = sums[r][s];
          if (tile_i != tile_j) squared[(split * b + j) * b + i] = sums[r][s];
        }
      }
    }
  }
}

}  // namespace

template <class T>
void squared_self_distances(const T* x, int64_t b, int64_t d, int64_t splits, T* squared, cudaStream_t stream) {
  if (b == 0) return;
  const int64_t tile_rows = (b + kDistanceTile - 1) / kDistanceTile;
  const int64_t items = tile_rows * (tile_rows + 1) / 2 * splits;
  PYREID_LAUNCH((squared_self_distances_kernel<T>), grid_for(items, 1), kThreads, 0, stream, x, b, d, splits, items,
                squared);
}

template void squared_self_distances(const float*, int64_t, int64_t, int64_t, float*, cudaStream_t);
template void squared_self_distances(const double*, int64_t, int64_t, int64_t, double*, cudaStream_t);

}  // namespace pyreid::cuda
