// What screen_negatives decides, shared by both backends; the pointers live where the backend computes.
#pragma once
#include <cstdint>

#include "csrc/host_device.h"
#include "csrc/rank_value.h"

namespace pyreid {

// A tile of approximate inner products of query rows with gallery items, and each row's positives as thresholds. The
// value of an item is rank_value(product, offset, scale, item) (csrc/rank_value.h). It is off by no more than
//   query_error[2 q] gallery_error[g] + query_error[2 q + 1] gallery_error[columns + g] + gallery_error[2 columns + g]
// from the exact one, and reach[q] is no less than that for any item. A threshold is known as the next number below and
// above it, or as itself twice. An item of the query's own identity is no negative and passed over, as is one whose
// value is NaN.
struct ScreenTask {
  const float* products;       // [rows, columns], row_stride apart
  int64_t rows;                //
  int64_t columns;             //
  int64_t row_stride;          //
  const float* offset;         // [columns] or null
  const float* scale;          // [columns] or null
  const float* query_error;    // [rows, 2]
  const float* gallery_error;  // [3, columns]
  const float* reach;          // [rows]
  const int64_t* query_ids;    // [rows]
  const int64_t* gallery_ids;  // [columns]
  const float* below;          // [starts[rows]] ascending in each row
  const float* above;          // [starts[rows]] ascending in each row
  const int64_t* starts;       // [rows + 1]
  int64_t capacity;            // of each row's list of undecided items
};

struct Screened {
  int64_t first;  // of the thresholds, the first that the item precedes; their number if it precedes none
  bool decided;   // otherwise the exact value may lie on either side of `first` and of some after it
};

// Where item g of row q stands to the row's n > 0 thresholds.
PYREID_HOST_DEVICE inline Screened screen(const ScreenTask& task, int64_t q, int64_t g, const float* below,
                                          const float* above, int64_t n) {
  const float value = rank_value(task.products[q * task.row_stride + g], task.offset, task.scale, g);
  // Nearly all items lie behind all positives, and this tells without their own errors.
  if (!(value - task.reach[q] <= above[n - 1]) || task.gallery_ids[g] == task.query_ids[q]) return {n, true};
  const float error = task.query_error[2 * q] * task.gallery_error[g] +
                      task.query_error[2 * q + 1] * task.gallery_error[task.columns + g] +
                      task.gallery_error[2 * task.columns + g];
  const float low = value - error;
  int64_t first = 0;
  for (int64_t count = n; count > 0;) {
    const int64_t half = count / 2;
    if (above[first + half] < low) {
      first += half + 1;
      count -= half + 1;
    } else {
      count = half;
    }
  }
  return {first, first == n || below[first] > value + error};
}

}  // namespace pyreid
