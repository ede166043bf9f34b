// Which compiled variant of csrc/cpu/simd runs on this machine.
#pragma once

namespace pyreid::cpu {

enum class Isa { kBaseline, kAvx2, kAvx512 };

// The best instruction set that this CPU has and this build holds; the environment variable PYREID_CPU_ISA
// ("baseline", "avx2", "avx512") lowers it. Decided once per process.
Isa isa();

const char* isa_name(Isa isa);

}  // namespace pyreid::cpu

// PYREID_DECLARE_SIMD(declarations) declares functions of csrc/cpu/simd in each variant's namespace;
// PYREID_SIMD(name, arguments...) calls the variant for this machine.
#if defined(__x86_64__) || defined(_M_X64)
#define PYREID_DECLARE_SIMD(...) \
  namespace baseline {           \
  __VA_ARGS__                    \
  }                              \
  namespace avx2 {               \
  __VA_ARGS__                    \
  }                              \
  namespace avx512 {             \
  __VA_ARGS__                    \
  }
#define PYREID_SIMD(name, ...)                                                     \
  (::pyreid::cpu::isa() == ::pyreid::cpu::Isa::kAvx512 ? avx512::name(__VA_ARGS__) \
   : ::pyreid::cpu::isa() == ::pyreid::cpu::Isa::kAvx2 ? avx2::name(__VA_ARGS__)   \
                                                       : baseline::name(__VA_ARGS__))
#else
#define PYREID_DECLARE_SIMD(...) \
  namespace baseline {           \
  __VA_ARGS__                    \
  }
#define PYREID_SIMD(name, ...) baseline::name(__VA_ARGS__)
#endif
