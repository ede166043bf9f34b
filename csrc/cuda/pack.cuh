// 128-bit loads and stores: the widest access of a thread, which keeps memory busy with the fewest instructions.
#pragma once
#include <cstdint>

namespace pyreid::cuda {

// How many elements of S one access moves.
template <class S>
inline constexpr int kPackSize = 16 / static_cast<int>(sizeof(S));

template <class S>
struct alignas(16) Pack {
  S values[kPackSize<S>];
  __device__ __forceinline__ S& operator[](int i) { return values[i]; }
  __device__ __forceinline__ const S& operator[](int i) const { return values[i]; }
};

// `p` must be aligned to 16 bytes.
template <class S>
__device__ __forceinline__ Pack<S> load_pack(const S* p) {
  return *reinterpret_cast<const Pack<S>*>(p);
}
template <class S>
__device__ __forceinline__ void store_pack(S* p, const Pack<S>& pack) {
  *reinterpret_cast<Pack<S>*>(p) = pack;
}

// Whether rows of `n` elements that begin at `p`, one after the other, can all be read and written in whole packs. For
// the host: a launcher chooses the kernel by it.
template <class S>
inline bool fits_packs(const S* p, int64_t n) {
  return n % kPackSize<S> == 0 && reinterpret_cast<uintptr_t>(p) % sizeof(Pack<S>) == 0;
}

}  // namespace pyreid::cuda
