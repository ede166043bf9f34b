#include "csrc/cpu/simd/self_distances.h"

#include "csrc/cpu/simd/vector.h"

namespace pyreid::cpu::PYREID_ISA {
namespace {

// The sums of a tile stay in registers while a piece of the columns goes by: 16 of the 32 registers of AVX-512, half of
// the 16 of narrower sets.
constexpr int64_t kTileRows = 4;
constexpr int64_t kTileColumns = PYREID_VECTOR_BYTES == 64 ? 4 : 2;
// The tiles of a block go over the same piece of its rows, which they find in the first- and second-level caches.
// Shorter pieces would reuse the first level better, but fill and empty the registers more often: 4 KB measured best.
constexpr int64_t kChunkBytes = 4096;

template <class T>
using Sums = Vec<T>[kTileRows][kTileColumns];

// One step of kLanes columns for all pairs of the tile.
template <class T, class Load>
inline __attribute__((always_inline)) void step(const T* const* a, const T* const* b, Load load_at, Sums<T>& sums) {
  Vec<T> right[kTileColumns];
#pragma GCC unroll 4
  for (int64_t j = 0; j < kTileColumns; ++j) right[j] = load_at(b[j]);
#pragma GCC unroll 4
  for (int64_t i = 0; i < kTileRows; ++i) {
    const Vec<T> left = load_at(a[i]);
#pragma GCC unroll 4
    for (int64_t j = 0; j < kTileColumns; ++j) {
      const Vec<T> difference = left - right[j];
      sums[i][j] += difference * difference;
    }
  }
}

// Adds columns [begin, end) to the sums of a tile.
template <class T>
void tile(const T* const* a, const T* const* b, int64_t begin, int64_t end, Vec<T>* block) {
  Sums<T> sums;
#pragma GCC unroll 4
  for (int64_t i = 0; i < kTileRows; ++i) {
#pragma GCC unroll 4
    for (int64_t j = 0; j < kTileColumns; ++j) sums[i][j] = block[i * kBlockRows + j];
  }
  int64_t k = begin;
  for (; k + kLanes<T> <= end; k += kLanes<T>) {
    step<T>(a, b, [k](const T* row) __attribute__((always_inline)) { return load(row + k); }, sums);
  }
  if (k < end) {
    step<T>(a, b, [k, end](const T* row) { return load_partial(row + k, end - k, T(0)); }, sums);
  }
#pragma GCC unroll 4
  for (int64_t i = 0; i < kTileRows; ++i) {
#pragma GCC unroll 4
    for (int64_t j = 0; j < kTileColumns; ++j) block[i * kBlockRows + j] = sums[i][j];
  }
}

template <class T>
void block_impl(const T* a, int64_t rows_a, const T* b, int64_t rows_b, int64_t d, T* squared) {
  // Rows that are missing are stood in for by the last one, so that every pair is summed by the same code.
  const T* a_rows[kBlockRows];
  const T* b_rows[kBlockRows];
  for (int64_t i = 0; i < kBlockRows; ++i) {
    a_rows[i] = a + (i < rows_a ? i : rows_a - 1) * d;
    b_rows[i] = b + (i < rows_b ? i : rows_b - 1) * d;
  }
  Vec<T> sums[kBlockRows * kBlockRows] = {};
  constexpr int64_t kChunk = kChunkBytes / static_cast<int64_t>(sizeof(T));
  for (int64_t begin = 0; begin < d; begin += kChunk) {
    const int64_t end = begin + kChunk < d ? begin + kChunk : d;
    for (int64_t i = 0; i < rows_a; i += kTileRows) {
      // On the diagonal of the matrix the tiles above it are left out.
      const int64_t columns = a == b && i + kTileRows < rows_b ? i + kTileRows : rows_b;
      for (int64_t j = 0; j < columns; j += kTileColumns) {
        tile(a_rows + i, b_rows + j, begin, end, sums + i * kBlockRows + j);
      }
    }
  }
  for (int64_t i = 0; i < rows_a; ++i) {
    for (int64_t j = 0; j < rows_b; ++j) squared[i * kBlockRows + j] = sum_lanes<T>(sums[i * kBlockRows + j]);
  }
  if (a == b) {
    for (int64_t i = 0; i < rows_a; ++i) {
      for (int64_t j = i + 1; j < rows_b; ++j) squared[i * kBlockRows + j] = squared[j * kBlockRows + i];
    }
  }
}

}  // namespace

#define PYREID_DEFINE_SELF_DISTANCES(T)                                                                         \
  void block_squared_distances(const T* a, int64_t rows_a, const T* b, int64_t rows_b, int64_t d, T* squared) { \
    block_impl(a, rows_a, b, rows_b, d, squared);                                                               \
  }

PYREID_DEFINE_SELF_DISTANCES(float)
PYREID_DEFINE_SELF_DISTANCES(double)

}  // namespace pyreid::cpu::PYREID_ISA
