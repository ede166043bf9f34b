// Stands in for the toolkit's header of this name: the language of CUDA, mapped onto cpp_tests/shim/shim.h.
#pragma once
#define PYREID_SHIM
#include <math.h>

#include <cmath>
#include <cstdint>
#include <functional>

#include "cpp_tests/shim/include/cuda_runtime_api.h"
#include "cpp_tests/shim/shim.h"

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))

// One block runs at a time, so a static variable is as good as shared memory. The empty variable in front of it is a
// mark in the symbol table: by it the shim finds the shared variables, to fill them before each block.
#define PYREID_SHIM_JOIN2(a, b) a##b
#define PYREID_SHIM_JOIN(a, b) PYREID_SHIM_JOIN2(a, b)
#define __shared__                                                                                \
  __attribute__((used)) static const char PYREID_SHIM_JOIN(pyreid_shared_mark_, __COUNTER__) = 0; \
  static

#define PYREID_DYNAMIC_SHARED(T, name) T* name = reinterpret_cast<T*>(::pyreid::shim::detail::dynamic_shared())

// So few blocks that small inputs run the grid-stride loops (csrc/cuda/launch.cuh).
#define PYREID_GRID_CAP int64_t{5}

#define PYREID_UNPACK(...) __VA_ARGS__
#define PYREID_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  PYREID_LAUNCH_CLUSTERS(kernel, grid, block, 1, shared_bytes, stream, __VA_ARGS__)
#define PYREID_LAUNCH_CLUSTERS(kernel, grid, block, cluster, shared_bytes, stream, ...)                         \
  do {                                                                                                          \
    [[maybe_unused]] const cudaStream_t pyreid_stream = (stream);                                               \
    ::pyreid::shim::launch(                                                                                     \
        #kernel, reinterpret_cast<const void*>(PYREID_UNPACK kernel), ::pyreid::shim::Site{__FILE__, __LINE__}, \
        (grid), (block), (shared_bytes), [&] { PYREID_UNPACK kernel(__VA_ARGS__); }, (cluster));                \
  } while (0)

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
inline constexpr int warpSize = 32;

// Barriers of the block

inline void __syncthreads(pyreid::shim::Site site = pyreid::shim::Site::here()) {
  pyreid::shim::detail::barrier("__syncthreads", site);
}
inline int __syncthreads_count(int predicate, pyreid::shim::Site site = pyreid::shim::Site::here()) {
  return pyreid::shim::detail::count_at_barrier("__syncthreads_count", predicate != 0, site);
}
inline int __syncthreads_or(int predicate, pyreid::shim::Site site = pyreid::shim::Site::here()) {
  return pyreid::shim::detail::count_at_barrier("__syncthreads_or", predicate != 0, site) > 0;
}
inline int __syncthreads_and(int predicate, pyreid::shim::Site site = pyreid::shim::Site::here()) {
  return pyreid::shim::detail::count_at_barrier("__syncthreads_and", predicate == 0, site) == 0;
}

// Clusters (csrc/cuda/cluster.cuh)

namespace pyreid::cuda {
inline void cluster_barrier(shim::Site site = shim::Site::here()) { shim::detail::cluster_barrier(site); }
template <class T>
const T* in_block(const T* p, unsigned rank) {
  return static_cast<const T*>(shim::detail::in_block(p, rank));
}
}  // namespace pyreid::cuda

// Warp collectives

inline void __syncwarp(unsigned mask = 0xffffffffu, pyreid::shim::Site site = pyreid::shim::Site::here()) {
  pyreid::shim::detail::collective("__syncwarp", mask, 0, 0, pyreid::shim::detail::combine_nothing, site);
}

namespace pyreid::shim::detail {
template <class T>
T shuffle(const char* what, unsigned mask, T value, int source, Site site) {
  return from_bits<T>(collective(what, mask, to_bits(value), static_cast<unsigned>(source), combine_shuffle, site));
}
inline void check_width(int width) {
  if (width < 1 || width > 32 || (width & (width - 1))) fail("a shuffle's width must be a power of two up to 32");
}
}  // namespace pyreid::shim::detail

// A lane whose source lies outside its segment of `width` lanes keeps its own value.
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32,
              pyreid::shim::Site site = pyreid::shim::Site::here()) {
  pyreid::shim::detail::check_width(width);
  const int segment = static_cast<int>(pyreid::shim::detail::lane()) & ~(width - 1);
  return pyreid::shim::detail::shuffle("__shfl_sync", mask, value, segment + (source & (width - 1)), site);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                 pyreid::shim::Site site = pyreid::shim::Site::here()) {
  pyreid::shim::detail::check_width(width);
  const int lane = static_cast<int>(pyreid::shim::detail::lane()), position = lane & (width - 1);
  const int source = delta <= static_cast<unsigned>(position) ? lane - static_cast<int>(delta) : lane;
  return pyreid::shim::detail::shuffle("__shfl_up_sync", mask, value, source, site);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                   pyreid::shim::Site site = pyreid::shim::Site::here()) {
  pyreid::shim::detail::check_width(width);
  const int lane = static_cast<int>(pyreid::shim::detail::lane()), position = lane & (width - 1);
  const int source = delta < static_cast<unsigned>(width - position) ? lane + static_cast<int>(delta) : lane;
  return pyreid::shim::detail::shuffle("__shfl_down_sync", mask, value, source, site);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32,
                  pyreid::shim::Site site = pyreid::shim::Site::here()) {
  pyreid::shim::detail::check_width(width);
  // Lanes of an earlier segment may be read, lanes of a later one may not.
  const int lane = static_cast<int>(pyreid::shim::detail::lane());
  int source = lane ^ lane_mask;
  if (source < 0 || source > (lane | (width - 1))) source = lane;
  return pyreid::shim::detail::shuffle("__shfl_xor_sync", mask, value, source, site);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, pyreid::shim::Site site = pyreid::shim::Site::here()) {
  return static_cast<unsigned>(pyreid::shim::detail::collective("__ballot_sync", mask, predicate != 0, 0,
                                                                pyreid::shim::detail::combine_ballot, site));
}
inline int __any_sync(unsigned mask, int predicate, pyreid::shim::Site site = pyreid::shim::Site::here()) {
  return pyreid::shim::detail::collective("__any_sync", mask, predicate != 0, 0, pyreid::shim::detail::combine_ballot,
                                          site) != 0;
}
inline int __all_sync(unsigned mask, int predicate, pyreid::shim::Site site = pyreid::shim::Site::here()) {
  return pyreid::shim::detail::collective("__all_sync", mask, predicate == 0, 0, pyreid::shim::detail::combine_ballot,
                                          site) == 0;
}

// Which lanes run together is up to the hardware: it may be this one alone.
inline unsigned __activemask() { return 1u << pyreid::shim::detail::lane(); }

template <class T>
unsigned __match_any_sync(unsigned mask, T value, pyreid::shim::Site site = pyreid::shim::Site::here()) {
  constexpr auto combine = [](pyreid::shim::detail::Lane* lanes, uint32_t in) {
    for (unsigned a = 0; a < 32; ++a) {
      if (!(in >> a & 1)) continue;
      lanes[a].result = 0;
      for (unsigned b = 0; b < 32; ++b) {
        if (in >> b & 1 && lanes[a].value == lanes[b].value) lanes[a].result |= 1u << b;
      }
    }
  };
  return static_cast<unsigned>(pyreid::shim::detail::collective(
      "__match_any_sync", mask, pyreid::shim::detail::to_bits(value), 0, combine, site));
}

#define PYREID_SHIM_REDUCE(name, T, Op)                                                                            \
  inline T name(unsigned mask, T value, pyreid::shim::Site site = pyreid::shim::Site::here()) {                    \
    return pyreid::shim::detail::from_bits<T>(pyreid::shim::detail::collective(                                    \
        #name, mask, pyreid::shim::detail::to_bits(value), 0, pyreid::shim::detail::combine_reduce<T, Op>, site)); \
  }
namespace pyreid::shim::detail {
struct Min {
  template <class T>
  T operator()(T a, T b) const {
    return b < a ? b : a;
  }
};
struct Max {
  template <class T>
  T operator()(T a, T b) const {
    return a < b ? b : a;
  }
};
}  // namespace pyreid::shim::detail
PYREID_SHIM_REDUCE(__reduce_add_sync, unsigned, std::plus<unsigned>)
PYREID_SHIM_REDUCE(__reduce_min_sync, unsigned, pyreid::shim::detail::Min)
PYREID_SHIM_REDUCE(__reduce_max_sync, unsigned, pyreid::shim::detail::Max)
PYREID_SHIM_REDUCE(__reduce_min_sync, int, pyreid::shim::detail::Min)
PYREID_SHIM_REDUCE(__reduce_max_sync, int, pyreid::shim::detail::Max)
PYREID_SHIM_REDUCE(__reduce_and_sync, unsigned, std::bit_and<unsigned>)
PYREID_SHIM_REDUCE(__reduce_or_sync, unsigned, std::bit_or<unsigned>)
PYREID_SHIM_REDUCE(__reduce_xor_sync, unsigned, std::bit_xor<unsigned>)
#undef PYREID_SHIM_REDUCE
inline int __reduce_add_sync(unsigned mask, int value, pyreid::shim::Site site = pyreid::shim::Site::here()) {
  return static_cast<int>(__reduce_add_sync(mask, static_cast<unsigned>(value), site));
}

inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}

// Atomics, for the integer types that CUDA has them for. Those on floating-point numbers are left out on purpose: the
// order of their additions differs from run to run.

#define PYREID_SHIM_ATOMIC(name, T, expression) \
  inline T name(T* address, T value) {          \
    const T old = *address;                     \
    *address = static_cast<T>(expression);      \
    return old;                                 \
  }
#define PYREID_SHIM_ATOMIC_32_64(name, expression) \
  PYREID_SHIM_ATOMIC(name, int, expression)        \
  PYREID_SHIM_ATOMIC(name, unsigned, expression)   \
  PYREID_SHIM_ATOMIC(name, unsigned long long, expression)
PYREID_SHIM_ATOMIC(atomicAdd, int, static_cast<unsigned>(old) + static_cast<unsigned>(value))
PYREID_SHIM_ATOMIC(atomicAdd, unsigned, old + value)
PYREID_SHIM_ATOMIC(atomicAdd, unsigned long long, old + value)
PYREID_SHIM_ATOMIC(atomicSub, int, static_cast<unsigned>(old) - static_cast<unsigned>(value))
PYREID_SHIM_ATOMIC(atomicSub, unsigned, old - value)
PYREID_SHIM_ATOMIC_32_64(atomicMax, old < value ? value : old)
PYREID_SHIM_ATOMIC(atomicMax, long long, old < value ? value : old)
PYREID_SHIM_ATOMIC_32_64(atomicMin, value < old ? value : old)
PYREID_SHIM_ATOMIC(atomicMin, long long, value < old ? value : old)
PYREID_SHIM_ATOMIC_32_64(atomicAnd, old& value)
PYREID_SHIM_ATOMIC_32_64(atomicOr, old | value)
PYREID_SHIM_ATOMIC_32_64(atomicXor, old ^ value)
PYREID_SHIM_ATOMIC_32_64(atomicExch, value)
PYREID_SHIM_ATOMIC(atomicExch, float, value)
PYREID_SHIM_ATOMIC(atomicInc, unsigned, old >= value ? 0 : old + 1)
PYREID_SHIM_ATOMIC(atomicDec, unsigned, old == 0 || old > value ? value : old - 1)
#undef PYREID_SHIM_ATOMIC_32_64
#undef PYREID_SHIM_ATOMIC

#define PYREID_SHIM_CAS(T)                             \
  inline T atomicCAS(T* address, T compare, T value) { \
    const T old = *address;                            \
    if (old == compare) *address = value;              \
    return old;                                        \
  }
PYREID_SHIM_CAS(int)
PYREID_SHIM_CAS(unsigned)
PYREID_SHIM_CAS(unsigned short)
PYREID_SHIM_CAS(unsigned long long)
#undef PYREID_SHIM_CAS

// Loads and stores with cache hints, which are for global memory alone

#define PYREID_SHIM_LOAD(name)                                                     \
  template <class T>                                                               \
  T name(const T* address, pyreid::shim::Site site = pyreid::shim::Site::here()) { \
    pyreid::shim::detail::require_global(#name, address, site);                    \
    return *address;                                                               \
  }
PYREID_SHIM_LOAD(__ldg)
PYREID_SHIM_LOAD(__ldcg)
PYREID_SHIM_LOAD(__ldca)
PYREID_SHIM_LOAD(__ldcs)
PYREID_SHIM_LOAD(__ldlu)
#undef PYREID_SHIM_LOAD
#define PYREID_SHIM_STORE(name)                                                          \
  template <class T>                                                                     \
  void name(T* address, T value, pyreid::shim::Site site = pyreid::shim::Site::here()) { \
    pyreid::shim::detail::require_global(#name, address, site);                          \
    *address = value;                                                                    \
  }
PYREID_SHIM_STORE(__stcs)
PYREID_SHIM_STORE(__stcg)
PYREID_SHIM_STORE(__stwb)
PYREID_SHIM_STORE(__stwt)
#undef PYREID_SHIM_STORE

// Integer intrinsics

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(x)); }
inline unsigned __brev(unsigned x) {
  unsigned reversed = 0;
  for (int bit = 0; bit < 32; ++bit) reversed |= (x >> bit & 1u) << (31 - bit);
  return reversed;
}
inline int __float_as_int(float x) { return pyreid::shim::detail::from_bits<int>(pyreid::shim::detail::to_bits(x)); }
inline unsigned __float_as_uint(float x) {
  return pyreid::shim::detail::from_bits<unsigned>(pyreid::shim::detail::to_bits(x));
}
inline float __int_as_float(int x) { return pyreid::shim::detail::from_bits<float>(pyreid::shim::detail::to_bits(x)); }
inline float __uint_as_float(unsigned x) {
  return pyreid::shim::detail::from_bits<float>(pyreid::shim::detail::to_bits(x));
}
inline long long __double_as_longlong(double x) {
  return pyreid::shim::detail::from_bits<long long>(pyreid::shim::detail::to_bits(x));
}
inline double __longlong_as_double(long long x) {
  return pyreid::shim::detail::from_bits<double>(pyreid::shim::detail::to_bits(x));
}

// Mathematics that <math.h> lacks. The fast variants are computed exactly here: their error is the device's.

inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
inline float rsqrt(float x) { return rsqrtf(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __log2f(float x) { return std::log2(x); }
inline float __powf(float x, float y) { return std::pow(x, y); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline double __dsqrt_rn(double x) { return std::sqrt(x); }
inline float __fmaf_rn(float x, float y, float z) { return std::fma(x, y, z); }
inline double __fma_rn(double x, double y, double z) { return std::fma(x, y, z); }
// The compiler may not contract these into fused multiply-adds; the shim is built with -ffp-contract=off.
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fsub_rn(float x, float y) { return x - y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline double __dadd_rn(double x, double y) { return x + y; }
inline double __dsub_rn(double x, double y) { return x - y; }
inline double __dmul_rn(double x, double y) { return x * y; }
inline float __fdiv_rn(float x, float y) { return x / y; }

#define PYREID_SHIM_MIN_MAX(T)                     \
  inline T min(T a, T b) { return b < a ? b : a; } \
  inline T max(T a, T b) { return a < b ? b : a; }
PYREID_SHIM_MIN_MAX(int)
PYREID_SHIM_MIN_MAX(unsigned)
PYREID_SHIM_MIN_MAX(long)
PYREID_SHIM_MIN_MAX(unsigned long)
PYREID_SHIM_MIN_MAX(long long)
PYREID_SHIM_MIN_MAX(unsigned long long)
#undef PYREID_SHIM_MIN_MAX
inline float min(float a, float b) { return std::fmin(a, b); }
inline float max(float a, float b) { return std::fmax(a, b); }
inline double min(double a, double b) { return std::fmin(a, b); }
inline double max(double a, double b) { return std::fmax(a, b); }

[[noreturn]] inline void __trap() { pyreid::shim::detail::fail("the kernel called __trap"); }
