// pyreid::set_neighbors_: folds a strip of inner products into lists of each item's nearest items, and its farthest.
#include "csrc/cpu/set_neighbors.h"

#include <limits>
#include <optional>

#include "csrc/torch/op.h"

namespace pyreid {
namespace {

constexpr const char* kOp = "set_neighbors_";

void check_lists(const Tensor& t, const char* name, ScalarType type, int64_t items, int64_t dims) {
  STD_TORCH_CHECK(t.dim() == dims && t.size(0) == items && t.is_contiguous(), kOp, ": ", name,
                  " must be contiguous, with a row for each of ", items, " items");
  STD_TORCH_CHECK(t.scalar_type() == type, kOp, ": ", name, " has another dtype than products ask for");
}

// products [R, C]; the items are its rows, or with `transposed` its columns, the others its columns or rows, of which
// the first has the index `first`. See csrc/cpu/set_neighbors.h.
void set_neighbors(const Tensor& products, const std::optional<Tensor>& offset, int64_t first, bool transposed,
                   Tensor values, Tensor indices, Tensor farthest_value, Tensor farthest) {
  STD_TORCH_CHECK(products.dim() == 2 && (products.size(1) <= 1 || products.stride(1) == 1), kOp,
                  ": products must be 2-D with dense rows");
  STD_TORCH_CHECK(offset || !transposed, kOp, ": the transposed form needs offset");
  const int64_t rows = products.size(0), columns = products.size(1);
  const int64_t items = transposed ? columns : rows, others = transposed ? rows : columns;
  const ScalarType type = products.scalar_type();
  check_lists(values, "values", type, items, 2);
  check_lists(indices, "indices", ScalarType::Int, items, 2);
  check_lists(farthest_value, "farthest_value", type, items, 1);
  check_lists(farthest, "farthest", type == ScalarType::Double ? ScalarType::Long : ScalarType::Int, items, 1);
  if (offset) check_lists(*offset, "offset", type, others, 1);
  STD_TORCH_CHECK(values.size(1) == indices.size(1) && values.size(1) > 0, kOp, ": lists of different or no length");
  STD_TORCH_CHECK(first >= 0 && first + others <= std::numeric_limits<int32_t>::max(), kOp,
                  ": indices must fit 31 bits");
  const Launch launch(products);
  dispatch_floating(products, kOp, [&](auto zero) {
    using T = decltype(zero);
    const cpu::ProductStrip<T> strip{
        data<T>(products), rows, columns, products.stride(0), offset ? data<T>(*offset) : nullptr, first};
    const cpu::NeighborLists<T> lists{items,
                                      values.size(1),
                                      mutable_data<T>(values),
                                      mutable_data<int32_t>(indices),
                                      mutable_data<T>(farthest_value),
                                      mutable_data<cpu::FarthestIndex<T>>(farthest)};
    transposed ? cpu::keep_column_neighbors(strip, lists, launch.context())
               : cpu::keep_row_neighbors(strip, lists, launch.context());
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pyreid, m) {
  m.def(
      "set_neighbors_(Tensor products, Tensor? offset, int first, bool transposed, Tensor(a!) values, "
      "Tensor(b!) indices, Tensor(c!) farthest_value, Tensor(d!) farthest) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(pyreid, CPU, m) { m.impl("set_neighbors_", TORCH_BOX(&set_neighbors)); }

}  // namespace pyreid
