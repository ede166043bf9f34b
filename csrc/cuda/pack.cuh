// 128-bit loads and stores: the widest access of a thread, which keeps memory busy with the fewest instructions.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>

namespace pyreid::cuda {

// How many elements of S one access moves.
template <class S>
inline constexpr int kPackSize = 16 / static_cast<int>(sizeof(S));

// A pack of one element is for rows that are not whole packs: the same kernel, with a template argument of 1.
template <class S, int kWidth = kPackSize<S>>
struct alignas(kWidth * sizeof(S)) Pack {
  S values[kWidth];
  __device__ __forceinline__ S& operator[](int i) { return values[i]; }
  __device__ __forceinline__ const S& operator[](int i) const { return values[i]; }
};

// `p` must be aligned to the pack: 16 bytes, unless kWidth is given.
template <int kWidth, class S>
__device__ __forceinline__ Pack<S, kWidth> load_pack(const S* p) {
  return *reinterpret_cast<const Pack<S, kWidth>*>(p);
}
template <class S>
__device__ __forceinline__ Pack<S> load_pack(const S* p) {
  return load_pack<kPackSize<S>>(p);
}
template <class S, int kWidth>
__device__ __forceinline__ void store_pack(S* p, const Pack<S, kWidth>& pack) {
  if constexpr (sizeof(pack) == 16) {
    // The compiler may write a pack element by element; this is one instruction. A plain store, since `p` may be shared
    // memory, where the intrinsics with cache hints do not work.
    uint4 word;
    memcpy(&word, &pack, sizeof(word));
    *reinterpret_cast<uint4*>(p) = word;
  } else {
    *reinterpret_cast<Pack<S, kWidth>*>(p) = pack;
  }
}

// Whether rows of `n` elements that begin at `p`, one after the other, can all be read and written in whole packs. For
// the host: a launcher chooses the kernel by it.
template <class S>
inline bool fits_packs(const S* p, int64_t n) {
  return n % kPackSize<S> == 0 && reinterpret_cast<uintptr_t>(p) % sizeof(Pack<S>) == 0;
}

}  // namespace pyreid::cuda
