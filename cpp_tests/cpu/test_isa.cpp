#include <cstdlib>
#include <string>

#include "cpp_tests/check.h"
#include "csrc/cpu/isa.h"

namespace pyreid::cpu {
namespace {

TEST(names_are_those_of_the_environment_variable) {
  CHECK_EQUAL(std::string(isa_name(Isa::kBaseline)), "baseline");
  CHECK_EQUAL(std::string(isa_name(Isa::kAvx2)), "avx2");
  CHECK_EQUAL(std::string(isa_name(Isa::kAvx512)), "avx512");
}

// CTest runs this once with each value.
TEST(the_environment_variable_lowers_the_choice) {
  const char* limit = std::getenv("PYREID_CPU_ISA");
  const std::string limit_name = limit ? limit : "avx512";
  const Isa highest = limit_name == "baseline" ? Isa::kBaseline : limit_name == "avx2" ? Isa::kAvx2 : Isa::kAvx512;
  CHECK(isa() <= highest);
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && highest >= Isa::kAvx2) {
    CHECK(isa() >= Isa::kAvx2);
  }
#endif
}

TEST(the_choice_is_made_once) {
  const Isa first = isa();
  setenv("PYREID_CPU_ISA", first == Isa::kBaseline ? "avx512" : "baseline", 1);
  CHECK_EQUAL(isa(), first);
}

}  // namespace
}  // namespace pyreid::cpu
