// What rank_positives counts, shared by both backends; the pointers live where the backend computes.
#pragma once
#include <cstdint>

#include "csrc/rank_value.h"

namespace pyreid {

// A strip of query rows against the whole gallery. The value of gallery item g for query q is
// rank_value(values[q, g], offset, scale, g), see csrc/rank_value.h; offset and scale exclude each other. An item whose
// value is NaN is neither counted nor a positive, so a NaN in offset or scale takes it out of the gallery.
//
// Slot s of query q, for starts[q] <= s < starts[q + 1], is the gallery item order[begin[q] + s - starts[q]] of its
// identity. One that shares the query's camera is junk, the others are the positives.
template <class T>
struct RankTask {
  const T* values;              // [rows, columns], row_stride apart
  int64_t rows;                 //
  int64_t columns;              //
  int64_t row_stride;           //
  const T* offset;              // [columns] or null
  const T* scale;               // [columns] or null
  const int64_t* order;         // [columns], gallery indices by (identity, index)
  const int64_t* begin;         // [rows], into order
  const int64_t* starts;        // [rows + 1], starts[0] = 0
  const int64_t* query_cams;    // [rows] or null: no camera filter
  const int64_t* gallery_cams;  // [columns] or null
};

}  // namespace pyreid
