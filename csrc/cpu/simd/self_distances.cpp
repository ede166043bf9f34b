// Squared distances as a product of matrices is computed: a tile of sums in registers, rows against vectors of other
// rows, for which the rows are packed into strips. A pair's sum runs over the columns one after the other in one lane,
// so that it does not depend on where in a tile, or in which tile, the pair is.
#include "csrc/cpu/simd/self_distances.h"

#include "csrc/cpu/simd/transpose.h"
#include "csrc/cpu/simd/vector.h"

namespace pyreid::cpu::PYREID_ISA {
namespace {

// A tile is kTileRows rows, a part of one strip, against kTileStrips strips: 24 sums of the 32 registers of AVX-512, 8
// of the 16 of narrower sets. At least 8 hide the latency of the multiply-add.
template <class T>
inline constexpr int64_t kTileRows = PYREID_VECTOR_BYTES == 64 ? 8
                                     : kLanes<T> < 4           ? kLanes<T>
                                                               : 4;
template <class T>
inline constexpr int64_t kTileStrips = PYREID_VECTOR_BYTES == 64 ? 3 : 8 / kTileRows<T>;
// Tiles with the same strips follow one another for the rows of a block, and walk together along the columns: a chunk
// of the strips stays in the first-level cache, one of the block's rows in the second. The sums of a chunk are added up
// first, which also keeps their rounding errors small.
constexpr int64_t kBlockRows = 64;
constexpr int64_t kChunk = 128;

template <class T>
void pack_strip_impl(const T* x, int64_t b, int64_t d, int64_t strip, int64_t begin, int64_t end, T* packed) {
  constexpr int64_t kStep = kLanes<T>;
  const int64_t first = strip * kStep;
  const int64_t rows = b - first < kStep ? b - first : kStep;
  T* const out = packed + first * d;
  int64_t k = begin;
  if (rows == kStep) {
    for (; k + kStep <= end; k += kStep) {  // whole squares stay in registers
      Vec<T> square[kStep];
#pragma GCC unroll 16
      for (int64_t i = 0; i < kStep; ++i) square[i] = load(x + (first + i) * d + k);
      transpose<T>(square);
#pragma GCC unroll 16
      for (int64_t c = 0; c < kStep; ++c) store(out + (k + c) * kStep, square[c]);
    }
  }
  for (; k < end; k += kStep) {
    const int64_t columns = end - k < kStep ? end - k : kStep;
    Vec<T> square[kStep] = {};
    for (int64_t i = 0; i < rows; ++i) square[i] = load_up_to(x + (first + i) * d + k, columns);
    transpose<T>(square);
    for (int64_t c = 0; c < columns; ++c) store(out + (k + c) * kStep, square[c]);
  }
}

// Adds `columns` columns to the sums of a tile with its first kStrips strips, which are `stride` apart.
template <int64_t kStrips, class T>
void add_columns(const T* rows, const T* strips, int64_t stride, int64_t columns, Vec<T> (*sums)[kTileStrips<T>]) {
  Vec<T> added[kTileRows<T>][kStrips] = {};
  for (int64_t k = 0; k < columns; ++k) {
    Vec<T> right[kStrips];
#pragma GCC unroll 4
    for (int64_t s = 0; s < kStrips; ++s) right[s] = load(strips + s * stride + k * kLanes<T>);
#pragma GCC unroll 8
    for (int64_t i = 0; i < kTileRows<T>; ++i) {
      const T left = rows[k * kLanes<T> + i];
#pragma GCC unroll 4
      for (int64_t s = 0; s < kStrips; ++s) {
        const Vec<T> difference = left - right[s];
        added[i][s] += difference * difference;
      }
    }
  }
#pragma GCC unroll 8
  for (int64_t i = 0; i < kTileRows<T>; ++i) {
#pragma GCC unroll 4
    for (int64_t s = 0; s < kStrips; ++s) sums[i][s] += added[i][s];
  }
}

// The same with `count` strips, at most kStrips.
template <int64_t kStrips, class T>
inline void add_columns_up_to(int64_t count, const T* rows, const T* strips, int64_t stride, int64_t columns,
                              Vec<T> (*sums)[kTileStrips<T>]) {
  if (count >= kStrips) {
    add_columns<kStrips>(rows, strips, stride, columns, sums);
  } else if constexpr (kStrips > 1) {
    add_columns_up_to<kStrips - 1>(count, rows, strips, stride, columns, sums);
  }
}

// Writes the pairs of the rows from i0 and the strip from j0, strip `s` of the sums, that lie on or below the diagonal,
// and those below the tile's own rows once more as columns: no two tiles write the same place.
template <class T>
void write_pairs(const Vec<T> (*sums)[kTileStrips<T>], int64_t s, int64_t i0, int64_t j0, int64_t b, T* squared) {
  constexpr int64_t kStep = kLanes<T>, kRows = kTileRows<T>;
  const int64_t rows = b - i0 < kRows ? b - i0 : kRows;
  const int64_t columns = i0 + rows - j0 < kStep ? i0 + rows - j0 : kStep;
  const int64_t mirrored = i0 - j0 < kStep ? i0 - j0 : kStep;
  Vec<T> square[kStep] = {};
  for (int64_t i = 0; i < rows; ++i) {
    square[i] = sums[i][s];
    store_up_to(squared + (i0 + i) * b + j0, square[i], columns);
  }
  if (mirrored == 0) return;
  transpose<T>(square);
  for (int64_t j = 0; j < mirrored; ++j) {
    T* const out = squared + (j0 + j) * b + i0;
    if (rows == kRows) {
      memcpy(out, &square[j], kRows * sizeof(T));
    } else {
      store_partial(out, square[j], rows);
    }
  }
}

// The tiles of the rows [first, last) of one block with the strips from row j0 on.
template <class T>
void block(const T* packed, int64_t b, int64_t d, int64_t first, int64_t last, int64_t j0, T* squared) {
  constexpr int64_t kStep = kLanes<T>, kRows = kTileRows<T>, kStrips = kTileStrips<T>;
  Vec<T> sums[kBlockRows][kStrips] = {};
  for (int64_t k = 0; k < d; k += kChunk) {
    const int64_t columns = d - k < kChunk ? d - k : kChunk;
    const T* const strips = packed + j0 * d + k * kStep;
    for (int64_t i = first; i < last; i += kRows) {
      const int64_t below = (i + kRows - 1 - j0) / kStep + 1;  // strips; the rest lies above the diagonal
      const T* const rows = packed + i / kStep * kStep * d + k * kStep + i % kStep;
      add_columns_up_to<kStrips>(below, rows, strips, kStep * d, columns, sums + (i - first));
    }
  }
  for (int64_t i = first; i < last; i += kRows) {
    for (int64_t s = 0; s < kStrips && j0 + s * kStep < i + kRows; ++s) {
      write_pairs<T>(sums + (i - first), s, i, j0 + s * kStep, b, squared);
    }
  }
}

// Calls visit(first, last, j0) for the rows and the first strip of the blocks in order.
template <class T, class Visit>
inline void for_each_block(int64_t b, Visit visit) {
  for (int64_t i0 = 0; i0 < b; i0 += kBlockRows) {
    const int64_t last = b - i0 < kBlockRows ? b : i0 + kBlockRows;
    for (int64_t j0 = 0; j0 < last; j0 += kTileStrips<T> * kLanes<T>) visit(i0 < j0 ? j0 : i0, last, j0);
  }
}

template <class T>
int64_t tiles_of(int64_t first, int64_t last) {
  return (last - first + kTileRows<T> - 1) / kTileRows<T>;
}

template <class T>
int64_t count_tiles_impl(int64_t b) {
  int64_t count = 0;
  for_each_block<T>(b, [&](int64_t first, int64_t last, int64_t) { count += tiles_of<T>(first, last); });
  return count;
}

template <class T>
void squared_distances_impl(const T* packed, int64_t b, int64_t d, int64_t begin, int64_t end, T* squared) {
  int64_t before = 0;  // tiles of the blocks that have gone by
  for_each_block<T>(b, [&](int64_t first, int64_t last, int64_t j0) {
    const int64_t tiles = tiles_of<T>(first, last);
    const int64_t from = begin > before ? begin - before : 0, to = end - before < tiles ? end - before : tiles;
    if (from < to) {
      const int64_t stop = first + to * kTileRows<T> < last ? first + to * kTileRows<T> : last;
      block(packed, b, d, first + from * kTileRows<T>, stop, j0, squared);
    }
    before += tiles;
  });
}

}  // namespace

#define PYREID_DEFINE_SELF_DISTANCES(T)                                                                     \
  int64_t strip_rows(T) { return kLanes<T>; }                                                               \
  void pack_strip(const T* x, int64_t b, int64_t d, int64_t strip, int64_t begin, int64_t end, T* packed) { \
    pack_strip_impl(x, b, d, strip, begin, end, packed);                                                    \
  }                                                                                                         \
  int64_t count_tiles(int64_t b, T) { return count_tiles_impl<T>(b); }                                      \
  int64_t tile_pairs(T) { return kTileRows<T> * kTileStrips<T> * kLanes<T>; }                               \
  void squared_distances(const T* packed, int64_t b, int64_t d, int64_t begin, int64_t end, T* squared) {   \
    squared_distances_impl(packed, b, d, begin, end, squared);                                              \
  }

PYREID_DEFINE_SELF_DISTANCES(float)
PYREID_DEFINE_SELF_DISTANCES(double)

}  // namespace pyreid::cpu::PYREID_ISA
