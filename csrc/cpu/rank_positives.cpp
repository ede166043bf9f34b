#include "csrc/cpu/rank_positives.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

#include "csrc/cpu/simd/rank_positives.h"

namespace pyreid::cpu {
namespace {

// Values of a row are made, and counted against every threshold, while they lie in the first-level cache.
constexpr int64_t kBlock = 2048;
constexpr int64_t kPadding = 64;  // bytes that a vector load may ask for

// With more positives a binary search per value is cheaper than a comparison per value and threshold.
constexpr int64_t kLinearPositives = 256;

template <class T>
class RowRanker {
 public:
  // Scratch: indices and thresholds have a place for each slot of the row, entered one more and is zero.
  RowRanker(const RankTask<T>& task, int64_t row, int64_t* ranks, int64_t* indices, T* thresholds, int64_t* entered)
      : task_(task),
        values_(task.values + row * task.row_stride),
        items_(task.order + task.begin[row]),
        slots_(task.starts[row + 1] - task.starts[row]),
        camera_(task.query_cams ? task.query_cams[row] : 0),
        ranks_(ranks),
        indices_(indices),
        thresholds_(thresholds),
        entered_(entered) {}

  // Fills the row's ranks; returns the number of NaN among its values.
  int64_t run() {
    for (int64_t s = 0; s < slots_; ++s) {
      const T v = value(items_[s]);
      if (v == v && !is_junk(items_[s])) indices_[positives_++] = items_[s];
    }
    const bool search = positives_ > kLinearPositives;
    if (search) {
      std::sort(indices_, indices_ + positives_, [this](int64_t a, int64_t b) { return before(a, b); });
    }
    for (int64_t p = 0; p < positives_; ++p) {
      thresholds_[p] = value(indices_[p]);
      ranks_[p] = 0;
    }
    int64_t nans = 0;
    for (int64_t begin = 0; begin < task_.columns; begin += kBlock) {
      const int64_t end = std::min(begin + kBlock, task_.columns);
      nans += load_block(begin, end);
      if (positives_ == 0) continue;
      search ? search_block(begin) : compare_block(begin, end);
    }
    if (search) {
      std::partial_sum(entered_, entered_ + positives_, ranks_);
    } else {
      std::sort(ranks_, ranks_ + positives_);
    }
    std::fill(ranks_ + positives_, ranks_ + slots_, int64_t{-1});
    return nans;
  }

 private:
  bool is_junk(int64_t item) const { return task_.gallery_cams && task_.gallery_cams[item] == camera_; }

  T value(int64_t item) const { return rank_value(values_[item], task_.offset, task_.scale, item); }

  bool before(int64_t a, int64_t b) const {
    const T x = value(a), y = value(b);
    return x < y || (x == y && a < b);
  }

  // Values of the gallery items [begin, end), NaN in the place of junk and of the padding: NaN compares false, so
  // neither is ever counted. The items of an identity ascend, so a cursor finds the junk.
  int64_t load_block(int64_t begin, int64_t end) {
    const int64_t n = end - begin;
    const int64_t nans = PYREID_SIMD(rank_values, values_ + begin, task_.offset ? task_.offset + begin : nullptr,
                                     task_.scale ? task_.scale + begin : nullptr, n, block_);
    constexpr int64_t kStep = kPadding / static_cast<int64_t>(sizeof(T));
    padded_ = (n + kStep - 1) / kStep * kStep;
    std::fill(block_ + n, block_ + padded_, std::numeric_limits<T>::quiet_NaN());
    if (task_.gallery_cams) {
      for (; next_slot_ < slots_ && items_[next_slot_] < end; ++next_slot_) {
        const int64_t item = items_[next_slot_];
        if (is_junk(item)) block_[item - begin] = std::numeric_limits<T>::quiet_NaN();
      }
    }
    return nans;
  }

  // Ties count when they lie before the positive. So a block before it counts values <= the threshold, a block after
  // it values <, and its own block values < and the equal ones before it. The positives ascend by index here.
  void compare_block(int64_t begin, int64_t end) {
    int64_t own = next_positive_;
    while (next_positive_ < positives_ && indices_[next_positive_] < end) ++next_positive_;
    const int64_t later = next_positive_;
    PYREID_SIMD(count_below, block_, padded_, thresholds_, later, false, ranks_);
    PYREID_SIMD(count_below, block_, padded_, thresholds_ + later, positives_ - later, true, ranks_ + later);
    for (; own < later; ++own) {
      ranks_[own] += PYREID_SIMD(count_equal, block_, indices_[own] - begin, thresholds_[own]);
    }
  }

  // The positives ascend by (value, index) here. A value counts for all positives from the first that it precedes; it
  // is entered there, and a prefix sum spreads it. What precedes none of them, or is NaN, is entered behind the last.
  void search_block(int64_t begin) {
    PYREID_SIMD(search_thresholds, block_, padded_, thresholds_, positives_, at_);
    for (int64_t j = 0; j < padded_; ++j) {
      int64_t first = at_[j];
      if (first > 0 && thresholds_[first - 1] == block_[j]) {  // ties with positives go by index
        const T* tied = std::lower_bound(thresholds_, thresholds_ + first, block_[j]);
        first = std::upper_bound(indices_ + (tied - thresholds_), indices_ + first, begin + j) - indices_;
      }
      ++entered_[first];
    }
  }

  const RankTask<T>& task_;
  const T* values_;
  const int64_t* items_;  // [slots_], gallery items of the query's identity, ascending
  int64_t slots_;
  int64_t camera_;
  int64_t* ranks_;    // [slots_]
  int64_t* indices_;  // [positives_]
  T* thresholds_;     // [positives_], the values of the positives
  int64_t* entered_;  // [positives_ + 1]
  int64_t positives_ = 0;
  int64_t next_slot_ = 0, next_positive_ = 0;  // the first that lie behind the blocks seen so far
  int64_t padded_ = 0;
  alignas(64) T block_[kBlock + kPadding / sizeof(T)];
  int64_t at_[kBlock + kPadding / sizeof(T)];
};

}  // namespace

template <class T>
void rank_positives(const RankTask<T>& task, int64_t* ranks, int64_t* nans, const ParallelFor& parallel_for) {
  const size_t slots = task.rows > 0 ? static_cast<size_t>(task.starts[task.rows]) : 0;
  std::vector<int64_t> indices(slots), entered(slots + static_cast<size_t>(task.rows));
  std::vector<T> thresholds(slots);
  // Rows differ in their number of positives, so small tasks: the pool evens them out.
  parallel_for(0, task.rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t start = task.starts[row];
      RowRanker<T> ranker(task, row, ranks + start, indices.data() + start, thresholds.data() + start,
                          entered.data() + start + row);
      nans[row] = ranker.run();
    }
  });
}

template void rank_positives(const RankTask<float>&, int64_t*, int64_t*, const ParallelFor&);
template void rank_positives(const RankTask<double>&, int64_t*, int64_t*, const ParallelFor&);

}  // namespace pyreid::cpu
