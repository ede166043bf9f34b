#include "csrc/cpu/nearest_neighbors.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "csrc/cpu/simd/nearest_neighbors.h"
#include "csrc/cpu/simd/rows.h"

namespace pyreid::cpu {
namespace {

constexpr int64_t kBlock = 1024;  // items of a row that are compared with one limit
constexpr int64_t kSpare = 64;    // survivors, at least, that are gathered before the k smallest are picked again

// Memory for each range that a loop over rows is split into: ranges of `grain` rows or more begin in different grains.
template <class Item>
class Workspaces {
 public:
  Workspaces(int64_t rows, int64_t grain, int64_t size)
      : grain_(grain), size_(size), items_(new Item[static_cast<size_t>((rows / grain + 1) * size)]) {}
  Item* of_range(int64_t begin) const { return items_.get() + begin / grain_ * size_; }

 private:
  int64_t grain_, size_;
  std::unique_ptr<Item[]> items_;  // unset, so memory that no range asks for is never touched
};

int64_t grain_of_rows(int64_t rows) { return std::max<int64_t>(1, rows / 256); }

// Brings the k smallest of n items to the front and the largest of them to place k - 1, as std::nth_element does. But
// the partition does not branch on comparisons, half of which a processor would guess wrongly.
template <class Item>
void select_smallest(Item* items, int64_t k, int64_t n) {
  int64_t begin = 0, end = n;
  for (int round = 0; end - begin > 16; ++round) {
    if (round == 64) {  // pivots without luck
      std::nth_element(items + begin, items + k - 1, items + end);
      return;
    }
    // The median of three is the pivot and waits at the end.
    Item &first = items[begin], &middle = items[begin + (end - begin) / 2], &last = items[end - 1];
    if (middle < first) std::swap(middle, first);
    if (last < first) std::swap(last, first);
    if (middle < last) std::swap(middle, last);
    const Item pivot = last;
    int64_t below = begin;
    for (int64_t i = begin; i < end - 1; ++i) {
      const Item item = items[i];
      items[i] = items[below];
      items[below] = item;
      below += item < pivot;
    }
    std::swap(items[below], items[end - 1]);
    if (below == k - 1) return;
    if (below < k) {
      begin = below + 1;
    } else {
      end = below;
    }
  }
  std::sort(items + begin, items + end);
}

// The k smallest of a row so far and, behind them, survivors: items below the largest of the k when they came.
template <class T>
class NearestOfRow {
 public:
  NearestOfRow(const NearestTile<T>& tile, int64_t row, int64_t k, Neighbor<T>* items)
      : tile_(tile), products_(tile.products + row * tile.row_stride), k_(k), items_(items) {}

  static int64_t capacity(int64_t k) { return k + std::max(k, kSpare) + kBlock; }

  void fold_into(Neighbor<T>* kept) {
    count_ = std::min(k_, tile_.first);
    std::copy(kept, kept + count_, items_);
    if (count_ == k_) set_limit();
    // Blocks double until they are whole: the limit is worth most, and costs least, while few items have been seen.
    for (int64_t begin = 0; begin < tile_.columns;) {
      const int64_t n = std::min({kBlock, std::max(kSpare, tile_.first + begin), tile_.columns - begin});
      is_full_ ? add_below_limit(begin, n) : add_all(begin, n);
      begin += n;
    }
    if (count_ > k_) keep_smallest();
    std::copy(items_, items_ + count_, kept);
  }

 private:
  void add_all(int64_t begin, int64_t n) {
    for (int64_t j = begin; j < begin + n; ++j) {
      items_[count_++] = make_neighbor(rank_value(products_[j], tile_.offset, tile_.scale, j), tile_.first + j);
    }
    if (count_ >= k_) keep_smallest();
  }

  // An item that ties with the largest of the k comes later in the gallery, so it comes after it.
  void add_below_limit(int64_t begin, int64_t n) {
    const int64_t found =
        PYREID_SIMD(values_below, products_ + begin, tile_.offset ? tile_.offset + begin : nullptr,
                    tile_.scale ? tile_.scale + begin : nullptr, n, limit_, or_equal_, values_, places_);
    for (int64_t i = 0; i < found; ++i) items_[count_++] = make_neighbor(values_[i], tile_.first + begin + places_[i]);
    if (count_ >= k_ + std::max(k_, kSpare)) keep_smallest();
  }

  // Leaves the largest of the k last among them.
  void keep_smallest() {
    select_smallest(items_, k_, count_);
    count_ = k_;
    set_limit();
  }

  // Every number comes before NaN, infinity too.
  void set_limit() {
    is_full_ = true;
    limit_ = value_of(items_[k_ - 1]);
    or_equal_ = std::isnan(limit_);
    if (or_equal_) limit_ = std::numeric_limits<T>::infinity();
  }

  const NearestTile<T>& tile_;
  const T* products_;
  const int64_t k_;
  Neighbor<T>* items_;
  int64_t count_ = 0;
  bool is_full_ = false, or_equal_ = false;
  T limit_ = 0;
  T values_[kBlock];
  int32_t places_[kBlock];
};

template <class T>
T inverse_norm(T squared) {
  return squared > 0 ? T(1) / std::sqrt(squared) : T(0);
}

}  // namespace

template <class T>
void keep_nearest(const NearestTile<T>& tile, int64_t k, Neighbor<T>* kept, const ParallelFor& parallel_for) {
  if (k == 0 || tile.columns == 0) return;
  const int64_t grain = grain_of_rows(tile.rows);
  const Workspaces<Neighbor<T>> items(tile.rows, grain, NearestOfRow<T>::capacity(k));
  parallel_for(0, tile.rows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      NearestOfRow<T>(tile, row, k, items.of_range(begin)).fold_into(kept + row * k);
    }
  });
}

template <class T>
void nearest_distances(const NearestFeatures<T>& f, int64_t k, Metric metric, Neighbor<T>* kept, T* distances,
                       int64_t* indices, const ParallelFor& parallel_for) {
  if (k == 0) return;
  const int64_t grain = grain_of_rows(f.rows);
  const Workspaces<Neighbor<T>> sorted(f.rows, grain, k);
  parallel_for(0, f.rows, grain, [&](int64_t begin, int64_t end) {
    Neighbor<T>* by_distance = sorted.of_range(begin);
    for (int64_t row = begin; row < end; ++row) {
      Neighbor<T>* by_value = kept + row * k;
      std::sort(by_value, by_value + k);
      const T* query = f.query + row * f.d;
      const T norm = f.query_norms[row], inverse = inverse_norm(norm);
      bool in_order = true;
      for (int64_t j = 0; j < k; ++j) {
        const int64_t item = index_of(by_value[j]);
        T distance = distance_from_value(value_of(by_value[j]), norm, f.gallery_norms[item], inverse, metric);
        if (distance < 0) {
          const MultipleOf<T> pair(query, f.gallery + item * f.d, norm, f.gallery_norms[item], metric);
          distance = pair.distance(PYREID_SIMD(squared_distance_to_multiple, pair.a, pair.b, pair.ratio, f.d), metric);
        } else if (metric == Metric::kEuclidean) {
          distance = std::sqrt(distance);
        }
        by_distance[j] = make_neighbor(distance, j);
        in_order = in_order && (j == 0 || by_distance[j - 1] < by_distance[j]);
      }
      if (!in_order) std::sort(by_distance, by_distance + k);
      for (int64_t j = 0; j < k; ++j) {
        distances[row * k + j] = value_of(by_distance[j]);
        indices[row * k + j] = index_of(by_value[index_of(by_distance[j])]);
      }
    }
  });
}

template <class T>
void nearest_gradients(const NearestFeatures<T>& f, int64_t k, Metric metric, const T* grad, const T* distances,
                       const int64_t* indices, const int64_t* order, const int64_t* starts, T* query_grad,
                       T* gallery_grad, const ParallelFor& parallel_for) {
  const auto gradient = [=](int64_t pair, T norm, T other_norm) {
    return pair_gradient(grad[pair], distances[pair], inverse_norm(norm), inverse_norm(other_norm),
                         ratio_of_lengths(other_norm, norm), metric);
  };
  parallel_for(0, f.rows, grain_for(k * f.d), [=](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      T* out = query_grad + row * f.d;
      std::fill(out, out + f.d, T(0));
      for (int64_t pair = row * k; pair < (row + 1) * k; ++pair) {
        const int64_t item = indices[pair];
        const auto [weight, scale] = gradient(pair, f.query_norms[row], f.gallery_norms[item]);
        PYREID_SIMD(add_weighted_difference, out, f.query + row * f.d, f.gallery + item * f.d, weight, scale, f.d);
      }
    }
  });
  const int64_t pairs_per_item = f.columns > 0 ? f.rows * k / f.columns : 0;
  parallel_for(0, f.columns, grain_for((1 + pairs_per_item) * f.d), [=](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      T* out = gallery_grad + item * f.d;
      std::fill(out, out + f.d, T(0));
      for (int64_t at = starts[item]; at < starts[item + 1]; ++at) {
        const int64_t pair = order[at], row = pair / k;
        const auto [weight, scale] = gradient(pair, f.gallery_norms[item], f.query_norms[row]);
        PYREID_SIMD(add_weighted_difference, out, f.gallery + item * f.d, f.query + row * f.d, weight, scale, f.d);
      }
    }
  });
}

#define PYREID_INSTANTIATE(T)                                                                                     \
  template void keep_nearest(const NearestTile<T>&, int64_t, Neighbor<T>*, const ParallelFor&);                   \
  template void nearest_distances(const NearestFeatures<T>&, int64_t, Metric, Neighbor<T>*, T*, int64_t*,         \
                                  const ParallelFor&);                                                            \
  template void nearest_gradients(const NearestFeatures<T>&, int64_t, Metric, const T*, const T*, const int64_t*, \
                                  const int64_t*, const int64_t*, T*, T*, const ParallelFor&);
PYREID_INSTANTIATE(float)
PYREID_INSTANTIATE(double)
#undef PYREID_INSTANTIATE

}  // namespace pyreid::cpu
