// All squared distances between the rows of one matrix, by differences: near duplicates keep their digits.
//
// A block computes a 64 x 64 tile of the lower triangle over one part of the columns: 256 threads with 4 x 4 pairs
// each, features in pieces of 32 columns through shared memory, transposed, so that a thread reads 4 rows with one
// 128-bit load: 32 instructions of arithmetic for 2 loads, and the next piece is on its way from global memory
// meanwhile. Tiles below the diagonal are also written transposed, so the matrix is exactly symmetric. Reads B^2 D / 64
// elements, mostly from the second-level cache; writes splits B^2. Every pair is summed column by column in the same
// order, so equal rows have equal distances to any third one, and results repeat bit for bit. Arithmetic is in T (float
// or double).
#include "csrc/cuda/self_distances.cuh"

#include "csrc/cuda/launch.cuh"
#include "csrc/cuda/pack.cuh"

namespace pyreid::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kSide = 16;                                          // threads along each side of a tile
constexpr int kPairs = kDistanceTile / kSide;                      // pairs along each side of a thread
constexpr int kPad = 4;                                            // keeps 4 rows aligned and their banks apart
constexpr int kLoads = kDistanceTile * kDistancePiece / kThreads;  // of a thread, for each side

// Tiles of the lower triangle are numbered row by row: tile (i, j) is i (i + 1) / 2 + j.
__device__ inline int64_t triangle_row(int64_t tile) {
  int64_t row = static_cast<int64_t>((sqrt(8.0 * static_cast<double>(tile) + 1.0) - 1.0) / 2.0);
  while (row * (row + 1) / 2 > tile) --row;
  while ((row + 1) * (row + 2) / 2 <= tile) ++row;
  return row;
}

// Columns [k, k + 32) of 64 rows: a warp reads 32 columns of one row at a time. 0 past the last row and past `end`.
template <class T>
__device__ __forceinline__ void load_piece(const T* __restrict__ x, int64_t b, int64_t d, int64_t row, int64_t k,
                                           int64_t end, T (&values)[kLoads]) {
  const int c = threadIdx.x % kDistancePiece;
#pragma unroll
  for (int l = 0; l < kLoads; ++l) {
    const int64_t r = row + threadIdx.x / kDistancePiece + l * (kThreads / kDistancePiece);
    values[l] = r < b && k + c < end ? x[r * d + k + c] : T(0);
  }
}

template <class T>
__device__ __forceinline__ void store_piece(const T (&values)[kLoads], T (*piece)[kDistanceTile + kPad]) {
#pragma unroll
  for (int l = 0; l < kLoads; ++l) {
    piece[threadIdx.x % kDistancePiece][threadIdx.x / kDistancePiece + l * (kThreads / kDistancePiece)] = values[l];
  }
}

template <class T>
__device__ __forceinline__ void load_rows(const T* rows, T (&out)[kPairs]) {
#pragma unroll
  for (int r = 0; r < kPairs; r += kPackSize<T>) {
    const Pack<T> pack = load_pack(rows + r);
#pragma unroll
    for (int c = 0; c < kPackSize<T>; ++c) out[r + c] = pack[c];
  }
}

template <class T>
__global__ __launch_bounds__(kThreads) void squared_self_distances_kernel(const T* __restrict__ x, int64_t b, int64_t d,
                                                                          int64_t splits, int64_t items,
                                                                          T* __restrict__ squared) {
  __shared__ __align__(16) T left[kDistancePiece][kDistanceTile + kPad];
  __shared__ __align__(16) T right[kDistancePiece][kDistanceTile + kPad];
  const int column = static_cast<int>(threadIdx.x) % kSide * kPairs;
  const int row = static_cast<int>(threadIdx.x) / kSide * kPairs;
  const int64_t pieces = (d + kDistancePiece - 1) / kDistancePiece;
  const int64_t split_columns = (pieces + splits - 1) / splits * kDistancePiece;
  for (int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const int64_t split = item % splits, tile = item / splits;
    const int64_t tile_i = triangle_row(tile), tile_j = tile - tile_i * (tile_i + 1) / 2;
    const int64_t i0 = tile_i * kDistanceTile, j0 = tile_j * kDistanceTile;
    const int64_t begin = split * split_columns;
    const int64_t end = begin + split_columns < d ? begin + split_columns : d;
    T sums[kPairs][kPairs];
#pragma unroll
    for (int r = 0; r < kPairs; ++r) {
#pragma unroll
      for (int s = 0; s < kPairs; ++s) sums[r][s] = 0;
    }
    T next_left[kLoads], next_right[kLoads];
    load_piece(x, b, d, i0, begin, end, next_left);
    load_piece(x, b, d, j0, begin, end, next_right);
    for (int64_t k = begin; k < end; k += kDistancePiece) {
      __syncthreads();  // the last piece has been read
      store_piece(next_left, left);
      store_piece(next_right, right);
      __syncthreads();
      if (k + kDistancePiece < end) {
        load_piece(x, b, d, i0, k + kDistancePiece, end, next_left);
        load_piece(x, b, d, j0, k + kDistancePiece, end, next_right);
      }
#pragma unroll 8
      for (int c = 0; c < kDistancePiece; ++c) {
        T a[kPairs], o[kPairs];
        load_rows(&left[c][row], a);
        load_rows(&right[c][column], o);
#pragma unroll
        for (int r = 0; r < kPairs; ++r) {
#pragma unroll
          for (int s = 0; s < kPairs; ++s) {
            const T difference = a[r] - o[s];
            sums[r][s] += difference * difference;
          }
        }
      }
    }
#pragma unroll
    for (int r = 0; r < kPairs; ++r) {
#pragma unroll
      for (int s = 0; s < kPairs; ++s) {
        const int64_t i = i0 + row + r, j = j0 + column + s;
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
