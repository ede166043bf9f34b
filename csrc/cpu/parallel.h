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

}  // namespace pyreid::cpu
