#include "csrc/cpu/gem_pool.h"

#include "cpp_tests/cpu/splits.h"
#include "cpp_tests/problems/gem_pool.h"

namespace {

struct Backend {
  using Half = pyreid::cpu::Half;
  using BFloat16 = pyreid::cpu::BFloat16;
  static inline pyreid::cpu::ParallelFor parallel_for = pyreid::test::whole;

  template <class... A>
  static void gem_pool(A... arguments) {
    pyreid::cpu::gem_pool(arguments..., parallel_for);
  }
  template <class... A>
  static void gem_pool_gradient(A... arguments) {
    pyreid::cpu::gem_pool_gradient(arguments..., parallel_for);
  }
  template <class... A>
  static void gem_pool_exponent_gradient(A... arguments) {
    pyreid::cpu::gem_pool_exponent_gradient(arguments..., parallel_for);
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

PYREID_TEST_GEM_POOL(Backend)
