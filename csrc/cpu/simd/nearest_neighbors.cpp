#include "csrc/cpu/simd/nearest_neighbors.h"

#include "csrc/cpu/simd/rank_value.h"
#include "csrc/cpu/simd/vector.h"

namespace pyreid::cpu::PYREID_ISA {
namespace {

// By halves, like the sum of lanes in vector.h.
template <int kBytes>
struct Any {
  typedef int64_t Half __attribute__((vector_size(kBytes / 2)));
  static bool of(const char* mask) {
    Half low, high;
    memcpy(&low, mask, sizeof(low));
    memcpy(&high, mask + sizeof(low), sizeof(high));
    low |= high;
    return Any<kBytes / 2>::of(reinterpret_cast<const char*>(&low));
  }
};
template <>
struct Any<16> {
  static bool of(const char* mask) {
    uint64_t words[2];
    memcpy(words, mask, sizeof(words));
    return (words[0] | words[1]) != 0;
  }
};

// Whether any lane of a comparison is true.
template <class T>
inline bool any(IntVec<T> mask) {
  return Any<PYREID_VECTOR_BYTES>::of(reinterpret_cast<const char*>(&mask));
}

// Few items are below the limit, so several vectors are compared for one branch, and only where one hits are the items
// looked at one by one.
template <Source kSource, bool kOrEqual, class T>
int64_t values_below_impl(const T* products, const T* column, int64_t n, T limit, T* values, int32_t* places) {
  constexpr int64_t kStep = kLanes<T>, kTogether = 4;
  const Vec<T> limits = broadcast(limit);
  int64_t count = 0;
  const auto below = [&](Vec<T> v) { return kOrEqual ? v <= limits : v < limits; };
  const auto take = [&](int64_t j, T v) {
    values[count] = v;
    places[count] = static_cast<int32_t>(j);
    count += kOrEqual ? v <= limit : v < limit;
  };
  int64_t j = 0;
  for (; j + kTogether * kStep <= n; j += kTogether * kStep) {
    Vec<T> v[kTogether];
    IntVec<T> hits{};
    for (int64_t i = 0; i < kTogether; ++i) {
      v[i] = rank_value<kSource>(load(products + j + i * kStep), load(column + j + i * kStep));
      hits |= below(v[i]);
    }
    if (!any<T>(hits)) continue;
    for (int64_t i = 0; i < kTogether; ++i) {
      if (!any<T>(below(v[i]))) continue;
      T lanes[kStep];
      store(lanes, v[i]);
      for (int64_t lane = 0; lane < kStep; ++lane) take(j + i * kStep + lane, lanes[lane]);
    }
  }
  for (; j < n; ++j) take(j, rank_value<kSource>(products[j], column[j]));
  return count;
}

template <Source kSource, class T>
int64_t values_below_from(const T* products, const T* column, int64_t n, T limit, bool or_equal, T* values,
                          int32_t* places) {
  return or_equal ? values_below_impl<kSource, true>(products, column, n, limit, values, places)
                  : values_below_impl<kSource, false>(products, column, n, limit, values, places);
}

}  // namespace

#define PYREID_DEFINE_NEAREST(T)                                                                                 \
  int64_t values_below(const T* products, const T* offset, const T* scale, int64_t n, T limit, bool or_equal,    \
                       T* values, int32_t* places) {                                                             \
    if (offset) return values_below_from<Source::kOffset>(products, offset, n, limit, or_equal, values, places); \
    if (scale) return values_below_from<Source::kScale>(products, scale, n, limit, or_equal, values, places);    \
    return values_below_from<Source::kGiven>(products, products, n, limit, or_equal, values, places);            \
  }

PYREID_DEFINE_NEAREST(float)
PYREID_DEFINE_NEAREST(double)

}  // namespace pyreid::cpu::PYREID_ISA
