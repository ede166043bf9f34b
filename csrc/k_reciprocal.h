// What the kernels of k-reciprocal re-ranking share on both backends.
#pragma once
#include <cstdint>

namespace pyreid {

// A sparse matrix by rows: those of row i lie from starts[i] to starts[i + 1]. By columns, it is the same of columns.
template <class T>
struct SparseRows {
  int64_t rows;
  const int64_t* starts;   // [rows + 1]
  const int32_t* columns;  // [starts[rows]] ascending in each row
  const T* weights;        // [starts[rows]]
};

// The nearest of each item, itself as a rule among them.
struct Neighbors {
  const int32_t* indices;  // [items, k]
  int64_t items;
  int64_t k;
};

template <class T>
struct ReRankedStrip {
  T* values;  // [rows, columns], row_stride apart: inner products, or given distances, on return the re-ranked ones
  int64_t rows;
  int64_t columns;
  int64_t row_stride;
  const T* offset;        // [columns] half the squared norms of the gallery; null if the values are distances already
  const T* query_norms;   // [rows] squared norms, null with offset
  const T* limits;        // [rows] the largest squared distance, to which others are clamped; null with offset
  const T* divisors;      // [rows] what squared distances are divided by; null with offset
  bool squared;           // square the quotients
  SparseRows<T> queries;  // the strip's rows of the sparse matrix
  SparseRows<T> gallery;  // the gallery's rows of it, by columns
  double lambda;          // weight of the distance; of the Jaccard distance 1 - lambda
  bool clip;              // Jaccard distances below 0 are rounding: make them 0
};

}  // namespace pyreid
