// Storage types of a backend, Backend::Half and Backend::BFloat16 with their member `bits`, as numbers.
#pragma once
#include <limits>
#include <type_traits>

#include "cpp_tests/numbers.h"
#include "cpp_tests/shim/half.h"

namespace pyreid::test {

template <class S, class Backend>
inline constexpr bool kIsHalf = std::is_same_v<S, typename Backend::Half>;
template <class S, class Backend>
inline constexpr bool kIsBFloat16 = std::is_same_v<S, typename Backend::BFloat16>;

template <class S, class Backend>
S store(double value) {
  if constexpr (kIsHalf<S, Backend> || kIsBFloat16<S, Backend>) {
    S stored;
    const float rounded = shim::float_to_odd(value);
    stored.bits = kIsHalf<S, Backend> ? shim::half_from_float(rounded) : shim::bfloat16_from_float(rounded);
    return stored;
  } else {
    return static_cast<S>(value);
  }
}

template <class Backend, class S>
double load(S value) {
  if constexpr (kIsHalf<S, Backend>) {
    return shim::float_from_half(value.bits);
  } else if constexpr (kIsBFloat16<S, Backend>) {
    return shim::float_from_bfloat16(value.bits);
  } else {
    return value;
  }
}

template <class S, class Backend>
constexpr double storage_roundoff() {
  if constexpr (kIsHalf<S, Backend>) return 0x1p-11;
  if constexpr (kIsBFloat16<S, Backend>) return 0x1p-8;
  return 0;  // computed in this type
}

template <class S, class Backend>
double largest_finite() {
  if constexpr (kIsHalf<S, Backend>) {
    return 65504;
  } else if constexpr (kIsBFloat16<S, Backend>) {
    return 0x1.fep127;
  } else {
    return std::numeric_limits<S>::max();
  }
}

}  // namespace pyreid::test
