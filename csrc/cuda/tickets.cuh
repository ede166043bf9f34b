// The last block to finish does what must come after all blocks, so that it needs no launch of its own.
//
// Blocks draw tickets from a counter that is 0 before the launch and that the last one sets back to 0 by wrapping
// around. No two launches that may run at the same time share counters:
// - A launch outside graphs takes the counters of its stream, whose launches run one after another. Streams are told
//   apart by their identity, which the runtime never gives twice, unlike their address.
// - A launch that is captured into a graph takes counters that nothing else ever takes, since the graph may be replayed
//   on any stream. Replays of one graph run one after another; two executables made of one captured graph must not run
//   at the same time.
// The counters are static, so they are 0 from the loading of the module and need neither memory nor a fill. Where they
// run out, ticket_slot says so, and the caller launches a second kernel instead.
#pragma once
#include <map>
#include <mutex>
#include <utility>

#include "csrc/cuda/check.cuh"

namespace pyreid::cuda {

inline constexpr int kTicketSlots = 1024;
inline constexpr int kNoSlot = -1;

// Which counters a launch on this stream of the current device may use.
inline int ticket_slot(cudaStream_t stream) {
  static std::mutex mutex;
  static std::map<std::pair<int, unsigned long long>, int> slots;
  static int used = 0;
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  PYREID_CUDA_CHECK(cudaStreamIsCapturing(stream, &status));
  if (status != cudaStreamCaptureStatusNone) {
    const std::lock_guard<std::mutex> lock(mutex);
    return used < kTicketSlots ? used++ : kNoSlot;
  }
  int device = 0;
  unsigned long long id = 0;
  PYREID_CUDA_CHECK(cudaGetDevice(&device));
  PYREID_CUDA_CHECK(cudaStreamGetId(stream, &id));
  const std::lock_guard<std::mutex> lock(mutex);
  const auto [entry, is_new] = slots.try_emplace({device, id}, kNoSlot);
  if (is_new && used < kTicketSlots) entry->second = used++;
  return entry->second;
}

// Whether this is the last of `count` blocks to arrive; every thread of the block gets the answer. What the others
// wrote before is then visible, to loads past the first-level cache (__ldcg).
__device__ __forceinline__ bool last_to_arrive(unsigned* ticket, unsigned count) {
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicInc(ticket, count - 1) == count - 1;
  __syncthreads();
  if (last) __threadfence();
  return last;
}

}  // namespace pyreid::cuda
