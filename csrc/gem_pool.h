// The exponent of gem_pool, shared by both backends.
#pragma once
#include <cstdint>

namespace pyreid {

template <class T>
struct GemExponent {
  const T* values;  // one for all channels or one for each, or null: then `value` is for all
  int64_t count;    // 1 or the number of channels; 0 without values
  T value;
};

}  // namespace pyreid
