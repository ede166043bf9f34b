// Large outputs that are written once spend more time in page faults than in arithmetic: a fresh 64 MiB tensor takes
// 16384 faults of 4 KiB pages. Huge pages take 32.
#pragma once
#include <cstdint>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace pyreid::cpu {

// Asks for huge pages in the memory of a fresh tensor, before it is written. Advice alone: nothing depends on it, and
// systems without it, or small tensors, stay as they are.
inline void advise_huge_pages([[maybe_unused]] void* memory, [[maybe_unused]] int64_t bytes) {
#ifdef MADV_HUGEPAGE
  constexpr uintptr_t kHugePage = uintptr_t{1} << 21;
  const uintptr_t address = reinterpret_cast<uintptr_t>(memory);
  const uintptr_t begin = (address + kHugePage - 1) / kHugePage * kHugePage;
  const uintptr_t end = (address + static_cast<uintptr_t>(bytes)) / kHugePage * kHugePage;
  if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

}  // namespace pyreid::cpu
