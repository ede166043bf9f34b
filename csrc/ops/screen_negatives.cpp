// pyreid::screen_negatives_: counts the negatives before each positive where approximate products suffice.
#ifdef PYREID_CUDA_BACKEND
#include "csrc/cuda/screen_negatives.cuh"
#else
#include "csrc/cpu/screen_negatives.h"
#endif
#include <limits>
#include <tuple>

#include "csrc/torch/op.h"

namespace pyreid {
namespace {

constexpr const char* kOp = "screen_negatives_";

template <class T>
const T* checked(const Tensor& t, const Tensor& products, ScalarType type, int64_t numel, const char* name) {
  STD_TORCH_CHECK(t.is_contiguous() && t.scalar_type() == type && t.numel() == numel, kOp, ": ", name,
                  " must be contiguous with ", numel, " elements of its type");
  STD_TORCH_CHECK(on_device_of(products, t), kOp, ": ", name, " is on another device than products");
  return data<T>(t);
}

#ifndef PYREID_CUDA_BACKEND
// On CUDA this would cost a synchronisation; the caller makes the starts.
void check_starts(const int64_t* starts, int64_t rows, int64_t slots) {
  STD_TORCH_CHECK(starts[0] == 0 && starts[rows] == slots, kOp, ": starts must run from 0 to ", slots);
  for (int64_t q = 0; q < rows; ++q) {
    STD_TORCH_CHECK(starts[q] <= starts[q + 1], kOp, ": starts must not fall, but do after row ", q);
  }
}
#endif

// Adds to entered [P]; -> items int32 [rows, capacity], undecided int64 [rows]. See csrc/screen_negatives.h.
std::tuple<Tensor, Tensor> screen_negatives(const Tensor& products, const std::optional<Tensor>& offset,
                                            const std::optional<Tensor>& scale, const Tensor& query_error,
                                            const Tensor& gallery_error, const Tensor& reach, const Tensor& query_ids,
                                            const Tensor& gallery_ids, const Tensor& below, const Tensor& above,
                                            const Tensor& starts, Tensor entered, int64_t capacity) {
  STD_TORCH_CHECK(products.dim() == 2 && products.scalar_type() == ScalarType::Float, kOp,
                  ": products must be 2-D and float32");
  const int64_t rows = products.size(0), columns = products.size(1), slots = entered.numel();
  STD_TORCH_CHECK(columns <= 1 || products.stride(1) == 1, kOp, ": the rows of products must be dense");
  STD_TORCH_CHECK(!offset || !scale, kOp, ": offset and scale exclude each other");
  STD_TORCH_CHECK(capacity >= 0 && columns <= std::numeric_limits<int32_t>::max(), kOp,
                  ": capacity must not be negative, and the columns must fit 32 bits");
  const Launch launch(products);
  const auto column = [&](const std::optional<Tensor>& t, const char* name) {
    return t ? checked<float>(*t, products, ScalarType::Float, columns, name) : nullptr;
  };
  const ScreenTask task{data<float>(products),
                        rows,
                        columns,
                        products.stride(0),
                        column(offset, "offset"),
                        column(scale, "scale"),
                        checked<float>(query_error, products, ScalarType::Float, 2 * rows, "query_error"),
                        checked<float>(gallery_error, products, ScalarType::Float, 3 * columns, "gallery_error"),
                        checked<float>(reach, products, ScalarType::Float, rows, "reach"),
                        checked<int64_t>(query_ids, products, ScalarType::Long, rows, "query_ids"),
                        checked<int64_t>(gallery_ids, products, ScalarType::Long, columns, "gallery_ids"),
                        checked<float>(below, products, ScalarType::Float, slots, "below"),
                        checked<float>(above, products, ScalarType::Float, slots, "above"),
                        checked<int64_t>(starts, products, ScalarType::Long, rows + 1, "starts"),
                        capacity};
  checked<int64_t>(entered, products, ScalarType::Long, slots, "entered");
#ifndef PYREID_CUDA_BACKEND
  check_starts(task.starts, rows, slots);
#endif
  const Tensor items = empty(products, {rows, capacity}, ScalarType::Int);
  const Tensor undecided = empty(products, {rows}, ScalarType::Long);
  backend::screen_negatives(task, mutable_data<int64_t>(entered), mutable_data<int32_t>(items),
                            mutable_data<int64_t>(undecided), launch.context());
  return {items, undecided};
}

}  // namespace

#ifndef PYREID_CUDA_BACKEND
STABLE_TORCH_LIBRARY_FRAGMENT(pyreid, m) {
  m.def(
      "screen_negatives_(Tensor products, Tensor? offset, Tensor? scale, Tensor query_error, Tensor gallery_error, "
      "Tensor reach, Tensor query_ids, Tensor gallery_ids, Tensor below, Tensor above, Tensor starts, "
      "Tensor(a!) entered, int capacity) -> (Tensor, Tensor)");
}
#endif

STABLE_TORCH_LIBRARY_IMPL(pyreid, PYREID_BACKEND_KEY, m) { m.impl("screen_negatives_", TORCH_BOX(&screen_negatives)); }

}  // namespace pyreid
