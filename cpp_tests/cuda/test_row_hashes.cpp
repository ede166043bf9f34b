#include "cpp_tests/problems/row_hashes.h"
#include "cpp_tests/schedule.h"
#include "csrc/cuda/row_hashes.cuh"

namespace {

struct Backend {
  template <class Word>
  static void row_hashes(const Word* x, int64_t n, int64_t d, int64_t* hashes) {
    pyreid::cuda::row_hashes(x, n, d, hashes, nullptr);
  }
  template <class Run>
  static auto repeat(const Run& run) {
    return pyreid::test::in_every_schedule(run);
  }
};

}  // namespace

PYREID_TEST_ROW_HASHES(Backend)
