// csrc/rank_value.h for vectors.
#pragma once
#include "csrc/cpu/simd/vector.h"

namespace pyreid::cpu::PYREID_ISA {

enum class Source { kGiven, kOffset, kScale };

// `column` is the offset or the scale of the items.
template <Source kSource, class V>
inline V rank_value(V product, V column) {
  if constexpr (kSource == Source::kOffset) return column - product;
  if constexpr (kSource == Source::kScale) return -(product * column);
  return product;
}

}  // namespace pyreid::cpu::PYREID_ISA
