// Ways to spread a range over threads, as parallel_for of a CPU kernel. Its results may not depend on which.
#pragma once
#include <algorithm>
#include <cstdint>

#include "cpp_tests/check.h"
#include "cpp_tests/numbers.h"
#include "csrc/cpu/parallel.h"

namespace pyreid::test {

// All at once.
inline void whole(int64_t begin, int64_t end, int64_t, const cpu::Range& body) {
  if (begin < end) body(begin, end);
}

// In the smallest pieces allowed, the last one first.
inline void backwards(int64_t begin, int64_t end, int64_t grain, const cpu::Range& body) {
  grain = std::max<int64_t>(grain, 1);
  for (int64_t pieces = (end - begin + grain - 1) / grain; pieces > 0; --pieces) {
    const int64_t first = begin + (pieces - 1) * grain;
    body(first, std::min(end, first + grain));
  }
}

// In pieces of unlike sizes.
inline void uneven(int64_t begin, int64_t end, int64_t grain, const cpu::Range& body) {
  int64_t size = std::max<int64_t>(grain, 1);
  while (begin < end) {
    const int64_t next = end - begin < size + grain ? end : begin + size;
    body(begin, next);
    begin = next;
    size += 1 + size / 2;
  }
}

// Calls run(parallel_for) with each and demands the same bits.
template <class Run>
auto in_every_split(const Run& run) {
  const auto first = run(cpu::ParallelFor(whole));
  if (!same_bits(first, run(cpu::ParallelFor(backwards))) || !same_bits(first, run(cpu::ParallelFor(uneven)))) {
    throw Failure("the result depends on how the work is spread over threads");
  }
  return first;
}

}  // namespace pyreid::test
