// Numbers for the tests: inputs that are the same on every machine, the precision of a type, and equality.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace pyreid::test {

// The reference arithmetic: at least as precise as double.
using Real = long double;

// Unit roundoff: the largest relative error of one operation.
template <class T>
inline constexpr double kRoundoff = std::numeric_limits<T>::epsilon() / 2;

// SplitMix64 as numbers between 0 and 1, 24 bits of each, which every floating-point type but the half ones holds.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  double uniform() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return static_cast<double>((z ^ (z >> 31)) >> 40) * 0x1p-24;
  }
  int64_t below(int64_t bound) { return static_cast<int64_t>(uniform() * static_cast<double>(bound)); }
  template <class T>
  std::vector<T> values(int64_t count, double low = -1, double high = 1) {
    std::vector<T> all(static_cast<size_t>(count));
    for (T& value : all) value = static_cast<T>(low + (high - low) * uniform());
    return all;
  }

 private:
  uint64_t state_;
};

// What a kernel has yet to write: NaN, so that a place it forgets fails every comparison.
template <class T>
std::vector<T> unwritten(int64_t count) {
  return std::vector<T>(static_cast<size_t>(count), static_cast<T>(std::numeric_limits<float>::quiet_NaN()));
}

// Outputs of kernels, as a vector or a tuple of vectors.
template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  static_assert(std::is_trivially_copyable_v<T>);
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}
template <class... T>
bool same_bits(const std::tuple<T...>& a, const std::tuple<T...>& b) {
  return [&]<size_t... I>(std::index_sequence<I...>) {
    return (same_bits(std::get<I>(a), std::get<I>(b)) && ...);
  }(std::index_sequence_for<T...>{});
}

}  // namespace pyreid::test
