// The steps of the row hash, shared by both backends; their hashes need not agree.
#pragma once
#include <cstdint>

#include "csrc/host_device.h"

namespace pyreid {

inline constexpr uint64_t kHashPrime = 0x9e3779b97f4a7c15u;  // 2^64 divided by the golden ratio, odd

PYREID_HOST_DEVICE inline uint64_t hash_step(uint64_t hash, uint64_t word) {
  hash = (hash ^ word) * kHashPrime;
  return hash ^ (hash >> 29);  // the product moves bits up only; this brings them down
}

// An element as bits: -0 equals 0, so both have those of 0.
template <class Word>
PYREID_HOST_DEVICE inline uint64_t hashed_word(Word bits) {
  constexpr Word kSign = static_cast<Word>(Word{1} << (8 * sizeof(Word) - 1));
  return bits == kSign ? 0 : bits;
}

}  // namespace pyreid
