#include "csrc/cpu/isa.h"

#include <cstdlib>
#include <cstring>

namespace pyreid::cpu {
namespace {

Isa detect() {
#if defined(__x86_64__) || defined(_M_X64)
  __builtin_cpu_init();
  Isa best = Isa::kBaseline;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) {
    best = Isa::kAvx2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl")) {
      best = Isa::kAvx512;
    }
  }
  if (const char* limit = std::getenv("PYREID_CPU_ISA")) {
    if (!std::strcmp(limit, "baseline")) return Isa::kBaseline;
    if (!std::strcmp(limit, "avx2") && best == Isa::kAvx512) return Isa::kAvx2;
  }
  return best;
#else
  return Isa::kBaseline;
#endif
}

}  // namespace

Isa isa() {
  static const Isa chosen = detect();
  return chosen;
}

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx2:
      return "avx2";
    default:
      return "baseline";
  }
}

}  // namespace pyreid::cpu
