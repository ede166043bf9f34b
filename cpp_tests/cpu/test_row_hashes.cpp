#include "cpp_tests/cpu/splits.h"
#include "cpp_tests/problems/row_hashes.h"
#include "csrc/cpu/row_hashes.h"

namespace {

struct Backend {
  static inline pyreid::cpu::ParallelFor parallel_for = pyreid::test::whole;

  template <class Word>
  static void row_hashes(const Word* x, int64_t n, int64_t d, int64_t* hashes) {
    pyreid::cpu::row_hashes(x, n, d, hashes, parallel_for);
  }
  template <class Run>
  static auto repeat(const Run& run) {
    return pyreid::test::in_every_split([&](const pyreid::cpu::ParallelFor& split) {
      parallel_for = split;
      return run();
    });
  }
};

}  // namespace

PYREID_TEST_ROW_HASHES(Backend)
