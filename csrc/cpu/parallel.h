// How CPU kernels are spread over threads. The kernels know no thread pool: the caller passes torch's (csrc/torch),
// cpp_tests pass a serial one.
#pragma once
#include <cstdint>
#include <functional>

namespace pyreid::cpu {

using Range = std::function<void(int64_t begin, int64_t end)>;

// Calls body on disjoint ranges that cover [begin, end), each of at least `grain` items but the last. The body must not
// throw, and what it computes for an item must not depend on the range that the item falls into.
using ParallelFor = std::function<void(int64_t begin, int64_t end, int64_t grain, const Range& body)>;

// The grain for items of `cost` elements each: a task is then worth the start of a thread.
inline int64_t grain_for(int64_t cost) {
  constexpr int64_t kElementsPerTask = 1 << 15;
  const int64_t items = kElementsPerTask / (cost < 1 ? 1 : cost);
  return items < 1 ? 1 : items;
}

}  // namespace pyreid::cpu
