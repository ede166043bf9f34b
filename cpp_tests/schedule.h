// Runs a kernel test in several orders of threads and blocks (cpp_tests/shim) and demands the same bits each time: a
// missing barrier, a read of shared memory that nobody wrote, or a sum whose order is left to chance shows here.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "cpp_tests/check.h"
#include "cpp_tests/numbers.h"
#include "cpp_tests/shim/shim.h"

namespace pyreid::test {

// PYREID_SHIM_SCHEDULES=n tries the orders 0 to n - 1, PYREID_SHIM_SEED=s that one alone.
inline std::vector<uint64_t> schedules() {
  if (const char* seed = std::getenv("PYREID_SHIM_SEED")) return {std::strtoull(seed, nullptr, 10)};
  const char* count = std::getenv("PYREID_SHIM_SCHEDULES");
  std::vector<uint64_t> seeds;
  for (uint64_t seed = 0; seed < (count ? std::strtoull(count, nullptr, 10) : 4); ++seed) seeds.push_back(seed);
  if (seeds.empty()) throw Failure("PYREID_SHIM_SCHEDULES: expected a number above 0, got " + std::string(count));
  return seeds;
}

// run() launches the kernels and returns what they wrote: a vector, or a tuple of vectors.
template <class Run>
auto in_every_schedule(const Run& run) {
  const std::vector<uint64_t> seeds = schedules();
  shim::set_schedule(seeds[0]);
  const auto first = run();
  for (size_t s = 1; s < seeds.size(); ++s) {
    shim::set_schedule(seeds[s]);
    if (!same_bits(first, run())) {
      throw Failure("the result depends on the order of threads: schedules " + std::to_string(seeds[0]) + " and " +
                    std::to_string(seeds[s]) + " differ");
    }
  }
  return first;
}

}  // namespace pyreid::test
