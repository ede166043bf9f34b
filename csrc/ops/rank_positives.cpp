// pyreid::rank_positives: where each query's positives stand in its ranking of the gallery.
#ifdef PYREID_CUDA_BACKEND
#include "csrc/cuda/rank_positives.cuh"
#else
#include "csrc/cpu/rank_positives.h"
#endif
#include <optional>

#include "csrc/torch/op.h"

namespace pyreid {
namespace {

constexpr const char* kOp = "rank_positives";

const int64_t* integers(const Tensor& t, const Tensor& like, int64_t size, const char* name) {
  STD_TORCH_CHECK(t.dim() == 1 && t.size(0) == size && t.is_contiguous(), kOp, ": ", name, " must be contiguous with ",
                  size, " elements");
  STD_TORCH_CHECK(t.scalar_type() == ScalarType::Long, kOp, ": ", name, " must be int64");
  STD_TORCH_CHECK(on_device_of(like, t), kOp, ": ", name, " is on another device than values");
  return data<int64_t>(t);
}

template <class T>
const T* column(const std::optional<Tensor>& t, const Tensor& values, const char* name) {
  if (!t) return nullptr;
  STD_TORCH_CHECK(t->dim() == 1 && t->size(0) == values.size(1) && t->is_contiguous(), kOp, ": ", name,
                  " must be contiguous with ", values.size(1), " elements");
  STD_TORCH_CHECK(t->scalar_type() == values.scalar_type(), kOp, ": ", name, " and values differ in dtype");
  STD_TORCH_CHECK(on_device_of(values, t), kOp, ": ", name, " is on another device than values");
  return data<T>(*t);
}

#ifndef PYREID_CUDA_BACKEND
// On CUDA this would cost a synchronisation; pyreid.ops.rank_positives makes the indices.
void check_indices(const int64_t* order, const int64_t* begin, const int64_t* starts, int64_t rows, int64_t columns,
                   int64_t slots) {
  for (int64_t j = 0; j < columns; ++j) {
    STD_TORCH_CHECK(order[j] >= 0 && order[j] < columns, kOp, ": order holds ", order[j], ", the gallery ", columns,
                    " items");
  }
  STD_TORCH_CHECK(starts[0] == 0 && starts[rows] == slots, kOp, ": starts must run from 0 to ", slots);
  for (int64_t q = 0; q < rows; ++q) {
    const int64_t count = starts[q + 1] - starts[q];
    STD_TORCH_CHECK(count >= 0 && begin[q] >= 0 && begin[q] <= columns - count, kOp, ": slots of row ", q,
                    " leave the gallery");
  }
}
#endif

// -> ranks [slots] and the number of NaN among the values of each query [rows]; see csrc/rank_positives.h.
std::tuple<Tensor, Tensor> rank_positives(const Tensor& values_in, const std::optional<Tensor>& offset,
                                          const std::optional<Tensor>& scale, const Tensor& order, const Tensor& begin,
                                          const Tensor& starts, int64_t slots, const std::optional<Tensor>& query_cams,
                                          const std::optional<Tensor>& gallery_cams) {
  STD_TORCH_CHECK(values_in.dim() == 2, kOp, ": values must be 2-D");
  STD_TORCH_CHECK(!offset || !scale, kOp, ": offset and scale exclude each other");
  STD_TORCH_CHECK(query_cams.has_value() == gallery_cams.has_value(), kOp, ": cameras for one side only");
  STD_TORCH_CHECK(slots >= 0, kOp, ": slots must not be negative");
  const Launch launch(values_in);
  const int64_t rows = values_in.size(0), columns = values_in.size(1);
  // A strip of a larger matrix is read in place.
  const bool rows_are_dense = columns <= 1 || (values_in.stride(1) == 1 && values_in.stride(0) >= columns);
  const Tensor values = rows_are_dense ? values_in : torch::stable::contiguous(values_in);
  const int64_t* order_data = integers(order, values, columns, "order");
  const int64_t* begin_data = integers(begin, values, rows, "begin");
  const int64_t* starts_data = integers(starts, values, rows + 1, "starts");
  const int64_t* query_cams_data = query_cams ? integers(*query_cams, values, rows, "query_cams") : nullptr;
  const int64_t* gallery_cams_data = gallery_cams ? integers(*gallery_cams, values, columns, "gallery_cams") : nullptr;
#ifndef PYREID_CUDA_BACKEND
  check_indices(order_data, begin_data, starts_data, rows, columns, slots);
#endif
  const Tensor ranks = empty(values, {slots}, ScalarType::Long), nans = empty(values, {rows}, ScalarType::Long);
  dispatch_floating(values, kOp, [&](auto zero) {
    using T = decltype(zero);
    const RankTask<T> task{data<T>(values),
                           rows,
                           columns,
                           values.stride(0),
                           column<T>(offset, values, "offset"),
                           column<T>(scale, values, "scale"),
                           order_data,
                           begin_data,
                           starts_data,
                           query_cams_data,
                           gallery_cams_data};
    backend::rank_positives(task, mutable_data<int64_t>(ranks), mutable_data<int64_t>(nans), launch.context());
  });
  return {ranks, nans};
}

}  // namespace

#ifndef PYREID_CUDA_BACKEND
STABLE_TORCH_LIBRARY_FRAGMENT(pyreid, m) {
  m.def(
      "rank_positives(Tensor values, Tensor? offset, Tensor? scale, Tensor order, Tensor begin, Tensor starts, "
      "int slots, Tensor? query_cams, Tensor? gallery_cams) -> (Tensor, Tensor)");
}
#endif

STABLE_TORCH_LIBRARY_IMPL(pyreid, PYREID_BACKEND_KEY, m) { m.impl("rank_positives", TORCH_BOX(&rank_positives)); }

}  // namespace pyreid
