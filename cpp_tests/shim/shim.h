// Runs CUDA kernels on the CPU: one fiber per CUDA thread, one block after another, in an order that a seed decides.
//
// The kernels are compiled by g++ from their own text. cpp_tests/shim/include stands in for the toolkit's headers and
// maps the language of CUDA onto this file: barriers and warp collectives are the places where a fiber stops and
// another runs, a kernel launch is a call. What is illegal in CUDA is an error here, which names the kernel, the block
// and the threads: a barrier that not every thread reaches, a collective whose mask names a lane that never comes, a
// launch that the hardware refuses, a store behind the end of dynamic shared memory. Shared memory is filled with a
// pattern before every block, so nothing can rely on what an earlier block left there. A missing barrier shows as a
// result that depends on the seed (cpp_tests/schedule.h compares). Stores out of bounds are AddressSanitizer's
// business.
//
// The blocks of a cluster run by turns, each until it waits for the others; what one reads of another's shared memory
// before a cluster barrier is the pattern, and after the other has returned an error.
//
// Not modelled: the memory model (writes are visible at once), divergence inside a warp as the hardware serialises it,
// asynchronous copies, tensor cores, and time. Kernels of one process run one at a time.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "cpp_tests/shim/vector_types.h"

namespace pyreid::shim {

inline constexpr unsigned kWarp = 32;

// A place in the source; as a default argument it is the caller's.
struct Site {
  const char* file;
  int line;
  static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
};

// The order of threads and blocks, and the pattern in fresh shared memory, for the launches that follow. Seed 0 runs
// threads by index and seed 1 against it; higher seeds draw the order at random: even ones thread by thread, odd ones
// warp by warp, so that whole warps run ahead of others.
void set_schedule(uint64_t seed);

// Whether streams say that they are being captured into a graph; launches run at once all the same.
extern bool capturing;

// Number of switches between threads so far, for tests that want to know that something ran.
uint64_t switches();

namespace detail {

struct Launch {
  const char* kernel;
  const void* address;
  Site site;
  dim3 grid, block;
  size_t shared_bytes;
  unsigned cluster = 1;  // blocks of a cluster, along x
};

// Runs body(context) once for each thread. Throws std::runtime_error with a message that starts with the kernel.
void run(const Launch& launch, void (*body)(const void*), const void* context);

// What one lane brings to a warp collective and takes from it. `source` is the lane that a shuffle reads.
struct Lane {
  uint64_t value;
  uint64_t result;
  unsigned source;
};
using Combine = void (*)(Lane* lanes, uint32_t mask);

void barrier(const char* what, Site site);
void cluster_barrier(Site site);
const void* in_block(const void* p, unsigned rank);
// Ends the kernel if `p` lies in shared memory, where `what` does not work.
void require_global(const char* what, const void* p, Site site);
uint64_t collective(const char* what, uint32_t mask, uint64_t value, unsigned source, Combine combine, Site site);
[[noreturn]] void fail(const char* message);

unsigned lane();
unsigned char* dynamic_shared();
int count_at_barrier(const char* what, bool predicate, Site site);
void allow_dynamic_shared(const void* kernel, size_t bytes);

template <class T>
uint64_t to_bits(T value) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8, "shuffles move values of at most 64 bits");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return bits;
}

template <class T>
T from_bits(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

void combine_shuffle(Lane* lanes, uint32_t mask);
void combine_ballot(Lane* lanes, uint32_t mask);
void combine_nothing(Lane* lanes, uint32_t mask);

template <class T, class Op>
void combine_reduce(Lane* lanes, uint32_t mask) {
  bool first = true;
  T total{};
  for (unsigned l = 0; l < kWarp; ++l) {
    if (!(mask >> l & 1)) continue;
    const T value = from_bits<T>(lanes[l].value);
    total = first ? value : Op{}(total, value);
    first = false;
  }
  for (unsigned l = 0; l < kWarp; ++l) {
    if (mask >> l & 1) lanes[l].result = to_bits(total);
  }
}

}  // namespace detail

template <class Body>
void launch(const char* kernel, const void* address, Site site, dim3 grid, dim3 block, size_t shared_bytes,
            const Body& body, unsigned cluster = 1) {
  detail::run(
      {kernel, address, site, grid, block, shared_bytes, cluster},
      [](const void* context) { (*static_cast<const Body*>(context))(); }, &body);
}

}  // namespace pyreid::shim
