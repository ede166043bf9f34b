// Walks rows of any length in 128-bit packs. Rows that lie one after the other begin wherever the row before ends: such
// a row is cut into single elements up to the first 16-byte boundary, whole packs, and single elements to its end.
#pragma once
#include <cstdint>
#include <type_traits>

#include "csrc/cuda/half.cuh"
#include "csrc/cuda/pack.cuh"

namespace pyreid::cuda {

// kWidth elements as numbers: one access, of an element or of a pack.
template <int kWidth, class S, class T>
__device__ __forceinline__ void load_as(const S* p, T (&values)[kWidth]) {
  if constexpr (kWidth == 1) {
    values[0] = to_compute(*p);
  } else {
    static_assert(kWidth == kPackSize<S>, "one element or one pack");
    const Pack<S> pack = load_pack(p);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) values[k] = to_compute(pack[k]);
  }
}

template <int kWidth, class S, class T>
__device__ __forceinline__ void store_as(S* p, const T (&values)[kWidth]) {
  if constexpr (kWidth == 1) {
    *p = to_storage<S>(values[0]);
  } else {
    static_assert(kWidth == kPackSize<S>, "one element or one pack");
    Pack<S> pack;
#pragma unroll
    for (int k = 0; k < kWidth; ++k) pack[k] = to_storage<S>(values[k]);
    store_pack(p, pack);
  }
}

// Calls body(i, std::integral_constant<int, width>) for the elements of the row that thread `member` of kGroup has: i
// is the place in the row, which grows from call to call. The row begins `begin` elements behind an address that
// `aligned` says is a multiple of 16 bytes; if it is not, every access is of one element.
template <class S, int kGroup, class Body>
__device__ __forceinline__ void each_pack(int64_t begin, int64_t n, bool aligned, int member, Body body) {
  constexpr int kPack = kPackSize<S>;
  int64_t head = aligned ? (-begin) & (kPack - 1) : n;
  if (head > n) head = n;
  const int64_t packed_end = head + ((n - head) & ~static_cast<int64_t>(kPack - 1));
  for (int64_t i = member; i < head; i += kGroup) body(i, std::integral_constant<int, 1>{});
  for (int64_t i = head + static_cast<int64_t>(member) * kPack; i < packed_end; i += kGroup * kPack) {
    body(i, std::integral_constant<int, kPack>{});
  }
  for (int64_t i = packed_end + member; i < n; i += kGroup) body(i, std::integral_constant<int, 1>{});
}

// For the host: whether all of these pointers are multiples of 16 bytes; a null pointer is.
template <class... P>
inline bool all_aligned(const P*... pointers) {
  return ((reinterpret_cast<uintptr_t>(pointers) % 16 == 0) && ...);
}

}  // namespace pyreid::cuda
