// CPU kernels of set_neighbors: the nearest items of each item of one set, and its farthest one, from strips of inner
// products. A pair's product serves both of its items: a strip is read along its rows for the items that it begins
// with, and down its columns for the items that follow.
#pragma once
#include <cstdint>
#include <type_traits>

#include "csrc/cpu/parallel.h"

namespace pyreid::cpu {

template <class T>
using FarthestIndex = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;  // as wide as T, for vectors

// What is known of `count` items; the others were seen in the order of their indices.
template <class T>
struct NeighborLists {
  int64_t count;
  int64_t k;
  T* values;                   // [count, k] ascending, infinite where there is none yet
  int32_t* indices;            // [count, k]
  T* farthest_value;           // [count] -infinite before the first
  FarthestIndex<T>* farthest;  // [count]
};

// The value of a pair is offset[other] - product: half the squared distance, up to a constant of the item. Without
// `offset` the products are values already.
template <class T>
struct ProductStrip {
  const T* products;  // [rows, columns], row_stride apart
  int64_t rows;
  int64_t columns;
  int64_t row_stride;
  const T* offset;  // of the others, or null
  int64_t first;    // index of the first of the others
};

// The items are the strip's rows, the others its columns. Ties are in the order of the indices.
template <class T>
void keep_row_neighbors(const ProductStrip<T>& strip, const NeighborLists<T>& lists, const ParallelFor& parallel_for);

// The items are the strip's columns, the others its rows. Needs `offset`.
template <class T>
void keep_column_neighbors(const ProductStrip<T>& strip, const NeighborLists<T>& lists,
                           const ParallelFor& parallel_for);

}  // namespace pyreid::cpu
