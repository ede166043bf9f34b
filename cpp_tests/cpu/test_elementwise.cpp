// csrc/cpu/simd/math.h against libm over the whole range, within the bounds that it states. The C library's double
// functions serve float, and its long double functions, where they have more digits, double.
#include "csrc/cpu/simd/elementwise.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

#include "cpp_tests/check.h"

namespace pyreid::cpu {
namespace {

// Distance in units in the last place of the exact result.
template <class T>
double ulps(T actual, long double exact) {
  const long double unit = std::ldexp(1.0L, std::ilogb(exact) - (std::numeric_limits<T>::digits - 1));
  return static_cast<double>(std::fabs(actual - exact) / unit);
}

template <class T>
std::vector<T> log2_of(const std::vector<T>& x) {
  std::vector<T> out(x.size());
  PYREID_SIMD(log2_values, x.data(), static_cast<int64_t>(x.size()), out.data());
  return out;
}

template <class T>
std::vector<T> exp2_of(const std::vector<T>& x) {
  std::vector<T> out(x.size());
  PYREID_SIMD(exp2_values, x.data(), static_cast<int64_t>(x.size()), out.data());
  return out;
}

template <class T>
std::vector<T> exp_of(const std::vector<T>& x) {
  std::vector<T> out(x.size());
  PYREID_SIMD(exp_nonpositive_values, x.data(), static_cast<int64_t>(x.size()), out.data());
  return out;
}

// The bit patterns first, first + step, ... below last: positive values of every size.
template <class T, class Bits>
void append_patterns(std::vector<T>& x, T first, T last, Bits step) {
  for (Bits bits = std::bit_cast<Bits>(first); bits < std::bit_cast<Bits>(last); bits += step) {
    x.push_back(std::bit_cast<T>(bits));
  }
}

template <class T, class Bits>
void check_log2(Bits step, Bits fine_step, double bound) {
  const T smallest = std::numeric_limits<T>::min(), largest = std::numeric_limits<T>::max();
  std::vector<T> x{smallest, largest};
  append_patterns(x, smallest, largest, step);
  append_patterns(x, T(0.5), T(2), fine_step);  // where results are small and the mantissa's range wraps
  const std::vector<T> out = log2_of(x);
  for (size_t i = 0; i < x.size(); ++i) {
    const long double exact =
        std::is_same_v<T, float> ? std::log2(static_cast<double>(x[i])) : std::log2(static_cast<long double>(x[i]));
    if (exact == 0) {
      CHECK_EQUAL(out[i], T(0));
    } else {
      CHECK_CLOSE(ulps(out[i], exact), 0, bound);
    }
  }
}

template <class T>
void check_exp2(double bound) {
  const double lowest = std::numeric_limits<T>::min_exponent - 1, highest = std::numeric_limits<T>::max_exponent - 0.51;
  std::vector<T> x;
  constexpr int kCount = 400000;
  for (int i = 0; i <= kCount; ++i) x.push_back(static_cast<T>(lowest + (highest - lowest) * i / kCount));
  for (int i = 0; i <= kCount; ++i) x.push_back(static_cast<T>(-1 + 2.0 * i / kCount));
  for (double t = 1; t > std::numeric_limits<T>::min(); t /= 1.7)
    x.insert(x.end(), {static_cast<T>(t), static_cast<T>(-t)});
  const std::vector<T> out = exp2_of(x);
  for (size_t i = 0; i < x.size(); ++i) {
    const long double exact =
        std::is_same_v<T, float> ? std::exp2(static_cast<double>(x[i])) : std::exp2(static_cast<long double>(x[i]));
    CHECK_CLOSE(ulps(out[i], exact), 0, bound);
  }
}

template <class T>
void check_exp(double lowest, double bound) {
  std::vector<T> x{T(0), -T(0)};
  constexpr int kCount = 400000;
  for (int i = 0; i <= kCount; ++i) x.push_back(static_cast<T>(lowest * i / kCount));
  for (double t = 1; t > std::numeric_limits<T>::min(); t /= 1.7) x.push_back(static_cast<T>(-t));
  const std::vector<T> out = exp_of(x);
  for (size_t i = 0; i < x.size(); ++i) {
    const long double exact =
        std::is_same_v<T, float> ? std::exp(static_cast<double>(x[i])) : std::exp(static_cast<long double>(x[i]));
    CHECK_CLOSE(ulps(out[i], exact), 0, bound);
  }
  const T inf = std::numeric_limits<T>::infinity(), nan = std::numeric_limits<T>::quiet_NaN();
  const std::vector<T> outside{-inf, -std::numeric_limits<T>::max(), static_cast<T>(2 * lowest), nan, T(0)};
  const std::vector<T> expected{0, 0, 0, nan, 1};
  CHECK_ALL_CLOSE(exp_of(outside), expected, 0);
}

template <class T>
void check_powers_of_two() {
  std::vector<T> exponents, powers;
  for (int e = std::numeric_limits<T>::min_exponent - 1; e < std::numeric_limits<T>::max_exponent; ++e) {
    exponents.push_back(static_cast<T>(e));
    powers.push_back(std::ldexp(T(1), e));
  }
  CHECK_ALL_CLOSE(log2_of(powers), exponents, 0);
  CHECK_ALL_CLOSE(exp2_of(exponents), powers, 0);
}

template <class T>
void check_exp2_outside() {
  const T inf = std::numeric_limits<T>::infinity(), largest = std::numeric_limits<T>::max();
  const T top = static_cast<T>(std::numeric_limits<T>::max_exponent);
  // an odd number of values, so that every vector width has a remainder
  const std::vector<T> x{
      -inf, -largest, -top, 1 - top - T(0.75), 0, -T(0), top, largest, inf, std::numeric_limits<T>::quiet_NaN(),
      1,    2,        3};
  const std::vector<T> expected{0, 0, 0, 0, 1, 1, inf, inf, inf, std::numeric_limits<T>::quiet_NaN(), 2, 4, 8};
  CHECK_ALL_CLOSE(exp2_of(x), expected, 0);
}

TEST(log2_is_within_its_bound) {
  check_log2<float, uint32_t>(8191, 61, 1.8);
  check_log2<double, uint64_t>((uint64_t{1} << 44) - 12345, (uint64_t{1} << 36) - 12345, 3.5);
}

TEST(exp2_is_within_its_bound) {
  check_exp2<float>(1.2);
  check_exp2<double>(1.25);
}

TEST(exp_is_within_its_bound) {
  check_exp<float>(-87, 1.5);
  check_exp<double>(-708, 1.5);
}

TEST(powers_of_two_are_exact) {
  check_powers_of_two<float>();
  check_powers_of_two<double>();
}

TEST(exp2_outside_the_normal_range) {
  check_exp2_outside<float>();
  check_exp2_outside<double>();
}

}  // namespace
}  // namespace pyreid::cpu
