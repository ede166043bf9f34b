// Sparse matrices as tensors: row starts [rows + 1] int64, columns int32 and weights.
#pragma once
#include "csrc/k_reciprocal.h"
#include "csrc/torch/op.h"

namespace pyreid {

inline void check_vector(const char* op, const Tensor& t, const Tensor& like, const char* name, ScalarType type,
                         int64_t size) {
  STD_TORCH_CHECK(t.dim() == 1 && t.size(0) == size && t.is_contiguous(), op, ": ", name, " must be contiguous with ",
                  size, " elements");
  STD_TORCH_CHECK(t.scalar_type() == type, op, ": ", name, " has another dtype than expected");
  check_devices(op, like, t);
}

// starts [rows + 1] may be a part of those of a larger matrix. On CUDA indices are not looked at, which would cost a
// wait for the device: the Python modules make them.
template <class T>
SparseRows<T> sparse_rows(const char* op, const Tensor& like, const Tensor& starts, const Tensor& columns,
                          const Tensor* weights, [[maybe_unused]] int64_t num_columns) {
  STD_TORCH_CHECK(starts.dim() == 1 && starts.size(0) > 0, op, ": starts must be 1-D and not empty");
  check_vector(op, starts, like, "starts", ScalarType::Long, starts.size(0));
  check_vector(op, columns, like, "columns", ScalarType::Int, columns.numel());
  if (weights) check_vector(op, *weights, like, "weights", like.scalar_type(), columns.numel());
  const int64_t rows = starts.size(0) - 1;
  const int64_t* start = data<int64_t>(starts);
  const int32_t* column = data<int32_t>(columns);
#ifndef PYREID_CUDA_BACKEND
  STD_TORCH_CHECK(start[0] >= 0 && start[rows] <= columns.numel(), op, ": starts leave the entries");
  for (int64_t i = 0; i < rows; ++i) STD_TORCH_CHECK(start[i] <= start[i + 1], op, ": starts must ascend");
  for (int64_t e = start[0]; e < start[rows]; ++e) {
    STD_TORCH_CHECK(column[e] >= 0 && column[e] < num_columns, op, ": entry ", e, " is in column ", column[e], " of ",
                    num_columns);
  }
#endif
  return {rows, start, column, weights ? data<T>(*weights) : nullptr};
}

}  // namespace pyreid
