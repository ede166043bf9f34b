// The kernels of pyreid::nearest_neighbors, which pyreid/ops/nearest_neighbors.py puts together: keep_nearest for each
// tile of inner products, then nearest_distances; nearest_gradients for the way back.
#ifdef PYREID_CUDA_BACKEND
#include "csrc/cuda/nearest_neighbors.cuh"
#else
#include "csrc/cpu/nearest_neighbors.h"
#endif
#include <optional>

#include "csrc/torch/metric.h"
#include "csrc/torch/op.h"

namespace pyreid {
namespace {

constexpr const char* kOp = "nearest_neighbors";

void check_device(const Tensor& t, const Tensor& like, const char* name) {
  STD_TORCH_CHECK(on_device_of(like, t), kOp, ": ", name, " is on another device");
}

template <class T>
const T* column(const std::optional<Tensor>& t, const Tensor& products, const char* name) {
  if (!t) return nullptr;
  STD_TORCH_CHECK(t->dim() == 1 && t->size(0) == products.size(1) && t->is_contiguous(), kOp, ": ", name,
                  " must be contiguous with ", products.size(1), " elements");
  STD_TORCH_CHECK(t->scalar_type() == products.scalar_type(), kOp, ": ", name, " and products differ in dtype");
  check_device(*t, products, name);
  return data<T>(*t);
}

// kept [rows, words]: int64 words, as many as k neighbors have. Returns k.
template <class T>
int64_t kept_per_row(const Tensor& kept, int64_t rows) {
  constexpr int64_t kWords = sizeof(Neighbor<T>) / sizeof(int64_t);
  STD_TORCH_CHECK(kept.dim() == 2 && kept.size(0) == rows && kept.size(1) % kWords == 0 && kept.is_contiguous() &&
                      kept.scalar_type() == ScalarType::Long,
                  kOp, ": kept must be contiguous int64 with ", rows, " rows of ", kWords, " words a neighbor");
  const int64_t k = kept.size(1) / kWords;
#ifdef PYREID_CUDA_BACKEND
  STD_TORCH_CHECK(k <= cuda::kMostNeighbors, kOp, ": k must be at most ", cuda::kMostNeighbors, " on CUDA, got ", k);
#endif
  return k;
}

// Folds the products [rows, columns] with the gallery items from `first` on into kept; see csrc/nearest_neighbors.h.
void keep_nearest(const Tensor& kept, const Tensor& products, const std::optional<Tensor>& offset,
                  const std::optional<Tensor>& scale, int64_t first) {
  STD_TORCH_CHECK(products.dim() == 2 && (products.size(1) <= 1 || products.stride(1) == 1), kOp,
                  ": products must be 2-D with dense rows");
  STD_TORCH_CHECK(!offset || !scale, kOp, ": offset and scale exclude each other");
  STD_TORCH_CHECK(first >= 0, kOp, ": first must not be negative");
  check_device(kept, products, "kept");
  const Launch launch(products);
  dispatch_floating(products, kOp, [&](auto zero) {
    using T = decltype(zero);
    STD_TORCH_CHECK(sizeof(T) > sizeof(float) || first + products.size(1) <= kMostFloatNeighbors, kOp,
                    ": the gallery must have fewer than 2^32 rows in float32");
    const NearestTile<T> tile{data<T>(products),
                              products.size(0),
                              products.size(1),
                              products.stride(0),
                              column<T>(offset, products, "offset"),
                              column<T>(scale, products, "scale"),
                              first};
    const int64_t k = kept_per_row<T>(kept, products.size(0));
    backend::keep_nearest(tile, k, mutable_data<Neighbor<T>>(kept), launch.context());
  });
}

void check_matrix(const Tensor& t, const Tensor& like, int64_t rows, int64_t columns, const char* name) {
  STD_TORCH_CHECK(t.dim() == 2 && t.size(0) == rows && t.size(1) == columns && t.is_contiguous(), kOp, ": ", name,
                  " must be contiguous with shape (", rows, ", ", columns, ")");
  check_device(t, like, name);
}

template <class T>
NearestFeatures<T> features_of(const Tensor& query, const Tensor& gallery, const Tensor& query_norms,
                               const Tensor& gallery_norms) {
  STD_TORCH_CHECK(query.dim() == 2 && gallery.dim() == 2, kOp, ": query and gallery must be 2-D");
  const NearestFeatures<T> features{data<T>(query), data<T>(gallery), data<T>(query_norms), data<T>(gallery_norms),
                                    query.size(0),  gallery.size(0),  query.size(1)};
  check_matrix(query, query, features.rows, features.d, "query");
  check_matrix(gallery, query, features.columns, features.d, "gallery");
  for (const Tensor* norms : {&query_norms, &gallery_norms}) {
    STD_TORCH_CHECK(norms->dim() == 1 && norms->is_contiguous(), kOp, ": norms must be 1-D and contiguous");
    check_device(*norms, query, "norms");
  }
  STD_TORCH_CHECK(query_norms.size(0) == features.rows && gallery_norms.size(0) == features.columns, kOp,
                  ": a norm is needed for each row");
  for (const Tensor* t : {&gallery, &query_norms, &gallery_norms}) {
    STD_TORCH_CHECK(t->scalar_type() == query.scalar_type(), kOp, ": features and norms differ in dtype");
  }
  return features;
}

// -> distances [rows, k], indices [rows, k]; sorts kept.
std::tuple<Tensor, Tensor> nearest_distances(const Tensor& kept, const Tensor& query, const Tensor& gallery,
                                             const Tensor& query_norms, const Tensor& gallery_norms,
                                             const std::string& metric_name) {
  const Metric metric = parse_metric(metric_name);
  check_device(kept, query, "kept");
  const Launch launch(query);
  Tensor distances = query, indices = query;
  dispatch_floating(query, kOp, [&](auto zero) {
    using T = decltype(zero);
    const NearestFeatures<T> features = features_of<T>(query, gallery, query_norms, gallery_norms);
    const int64_t k = kept_per_row<T>(kept, features.rows);
    distances = empty(query, {features.rows, k});
    indices = empty(query, {features.rows, k}, ScalarType::Long);
    backend::nearest_distances(features, k, metric, mutable_data<Neighbor<T>>(kept), mutable_data<T>(distances),
                               mutable_data<int64_t>(indices), launch.context());
  });
  return {distances, indices};
}

#ifndef PYREID_CUDA_BACKEND
// On CUDA this would cost a synchronisation; pyreid.ops.nearest_neighbors makes the indices.
void check_indices(const Tensor& indices, const Tensor& order, const Tensor& starts, int64_t columns) {
  const int64_t pairs = order.numel();
  for (int64_t p = 0; p < pairs; ++p) {
    const int64_t item = data<int64_t>(indices)[p], pair = data<int64_t>(order)[p];
    STD_TORCH_CHECK(item >= 0 && item < columns, kOp, ": indices holds ", item, ", the gallery ", columns, " rows");
    STD_TORCH_CHECK(pair >= 0 && pair < pairs, kOp, ": order holds ", pair, " of ", pairs, " pairs");
  }
  const int64_t* start = data<int64_t>(starts);
  bool ascend = start[0] == 0 && start[columns] == pairs;
  for (int64_t g = 0; g < columns; ++g) ascend = ascend && start[g] <= start[g + 1];
  STD_TORCH_CHECK(ascend, kOp, ": starts must ascend from 0 to ", pairs);
}
#endif

// grad, distances, indices [rows, k], order [rows k], starts [columns + 1] -> gradients of query and gallery
std::tuple<Tensor, Tensor> nearest_gradients(const Tensor& grad, const Tensor& distances, const Tensor& indices,
                                             const Tensor& order, const Tensor& starts, const Tensor& query,
                                             const Tensor& gallery, const Tensor& query_norms,
                                             const Tensor& gallery_norms, const std::string& metric_name) {
  const Metric metric = parse_metric(metric_name);
  const Launch launch(query);
  const int64_t rows = query.size(0), k = indices.dim() == 2 ? indices.size(1) : 0;
  check_matrix(grad, query, rows, k, "grad");
  check_matrix(distances, query, rows, k, "distances");
  check_matrix(indices, query, rows, k, "indices");
  STD_TORCH_CHECK(grad.scalar_type() == query.scalar_type() && distances.scalar_type() == query.scalar_type(), kOp,
                  ": grad, distances and query differ in dtype");
  for (const Tensor* t : {&indices, &order, &starts}) {
    STD_TORCH_CHECK(t->scalar_type() == ScalarType::Long && t->is_contiguous(), kOp,
                    ": indices, order and starts must be contiguous int64");
    check_device(*t, query, "indices, order or starts");
  }
  STD_TORCH_CHECK(order.numel() == rows * k && starts.numel() == gallery.size(0) + 1, kOp,
                  ": order and starts do not fit the pairs");
#ifndef PYREID_CUDA_BACKEND
  check_indices(indices, order, starts, gallery.size(0));
#endif
  const Tensor query_grad = empty(query, {rows, query.size(1)});
  const Tensor gallery_grad = empty(gallery, {gallery.size(0), gallery.size(1)});
  dispatch_floating(query, kOp, [&](auto zero) {
    using T = decltype(zero);
    backend::nearest_gradients(features_of<T>(query, gallery, query_norms, gallery_norms), k, metric, data<T>(grad),
                               data<T>(distances), data<int64_t>(indices), data<int64_t>(order), data<int64_t>(starts),
                               mutable_data<T>(query_grad), mutable_data<T>(gallery_grad), launch.context());
  });
  return {query_grad, gallery_grad};
}

}  // namespace

#ifndef PYREID_CUDA_BACKEND
STABLE_TORCH_LIBRARY_FRAGMENT(pyreid, m) {
  m.def("keep_nearest(Tensor(a!) kept, Tensor products, Tensor? offset, Tensor? scale, int first) -> ()");
  m.def(
      "nearest_distances(Tensor(a!) kept, Tensor query, Tensor gallery, Tensor query_norms, Tensor gallery_norms, "
      "str metric) -> (Tensor, Tensor)");
  m.def(
      "nearest_gradients(Tensor grad, Tensor distances, Tensor indices, Tensor order, Tensor starts, Tensor query, "
      "Tensor gallery, Tensor query_norms, Tensor gallery_norms, str metric) -> (Tensor, Tensor)");
}
#endif

STABLE_TORCH_LIBRARY_IMPL(pyreid, PYREID_BACKEND_KEY, m) {
  m.impl("keep_nearest", TORCH_BOX(&keep_nearest));
  m.impl("nearest_distances", TORCH_BOX(&nearest_distances));
  m.impl("nearest_gradients", TORCH_BOX(&nearest_gradients));
}

}  // namespace pyreid
