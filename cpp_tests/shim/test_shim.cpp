// The shim's own tests: what the language of CUDA means, and that each kind of broken kernel is found and named.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <limits>
#include <numeric>
#include <set>
#include <vector>

#include "cpp_tests/check.h"
#include "cpp_tests/schedule.h"
#include "cpp_tests/shim/context.h"
#include "csrc/cuda/cluster.cuh"
#include "csrc/cuda/launch.cuh"
#include "csrc/cuda/reduce.cuh"

namespace pyreid::cuda {
namespace {

using test::in_every_schedule;

// ---- what works

__global__ void indices_kernel(unsigned* out) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  out[block * blockDim.x * blockDim.y * blockDim.z + thread] += 1 + block * 1000 + thread;
}

TEST(every_thread_of_every_block_runs_once) {
  const auto out = in_every_schedule([] {
    std::vector<unsigned> out(2 * 3 * 2 * 5 * 4 * 3, 0);
    PYREID_LAUNCH((indices_kernel), dim3(2, 3, 2), dim3(5, 4, 3), 0, nullptr, out.data());
    return out;
  });
  for (unsigned i = 0; i < out.size(); ++i) CHECK_EQUAL(out[i], 1 + i / 60 * 1000 + i % 60);
}

template <class T, int kThreads>
__global__ void sum_rows_kernel(const T* x, int64_t rows, int64_t columns, T* out) {
  __shared__ T scratch[kThreads / kWarpSize];
  for (int64_t i = blockIdx.x; i < rows; i += gridDim.x) {
    T sum = 0;
    for (int64_t j = threadIdx.x; j < columns; j += kThreads) sum += x[i * columns + j];
    sum = block_sum<kThreads>(sum, scratch);
    if (threadIdx.x == 0) out[i] = sum;
  }
}

template <class T>
void check_sums() {
  const int64_t rows = 7, columns = 333;
  std::vector<T> x(rows * columns);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<T>(i * 7919 % 1000) - 500;
  const auto out = in_every_schedule([&] {
    std::vector<T> out(rows, -1);
    PYREID_LAUNCH((sum_rows_kernel<T, 128>), 3, 128, 0, nullptr, x.data(), rows, columns, out.data());
    return out;
  });
  for (int64_t i = 0; i < rows; ++i) {
    CHECK_EQUAL(out[i], std::accumulate(x.begin() + i * columns, x.begin() + (i + 1) * columns, T(0)));
  }
}

TEST(static_shared_memory_of_a_template_holds_block_sums) {
  check_sums<float>();
  check_sums<double>();
}

__global__ void reverse_kernel(int* x, int n) {
  PYREID_DYNAMIC_SHARED(int, tile);
  const int i = static_cast<int>(threadIdx.x);
  tile[i] = x[i];
  __syncthreads();
  x[i] = tile[n - 1 - i];
}

TEST(dynamic_shared_memory_holds_a_block) {
  const auto x = in_every_schedule([] {
    std::vector<int> x(1000);
    std::iota(x.begin(), x.end(), 0);
    PYREID_LAUNCH((reverse_kernel), 1, 1000, 1000 * sizeof(int), nullptr, x.data(), 1000);
    return x;
  });
  for (int i = 0; i < 1000; ++i) CHECK_EQUAL(x[i], 999 - i);
}

// Every collective, one result a row of 64 threads.
__global__ void collectives_kernel(long long* out) {
  const int t = static_cast<int>(threadIdx.x), lane = t % 32;
  int row = 0;
  const auto put = [&](long long value) { out[64 * row++ + t] = value; };
  put(__shfl_sync(kFullMask, t, 5));
  put(__shfl_sync(kFullMask, t, 9, 8));
  put(__shfl_up_sync(kFullMask, t, 3));
  put(__shfl_up_sync(kFullMask, t, 3, 16));
  put(__shfl_down_sync(kFullMask, t, 3));
  put(__shfl_down_sync(kFullMask, t, 3, 16));
  put(__shfl_xor_sync(kFullMask, t, 21));
  put(static_cast<long long>(__shfl_xor_sync(kFullMask, 0.5 + t, 1) * 2));
  put(__ballot_sync(kFullMask, lane % 3 == 0));
  put(__any_sync(kFullMask, t == 40));
  put(__all_sync(kFullMask, t >= 32));
  put(__reduce_add_sync(kFullMask, t));
  put(__reduce_max_sync(kFullMask, -t));
  put(__reduce_min_sync(kFullMask, static_cast<unsigned>(t)));
  put(__reduce_xor_sync(kFullMask, 1u << lane));
  put(__match_any_sync(kFullMask, lane / 8));
  put(__syncthreads_count(t % 5 == 0));
  put(__syncthreads_or(t == 63));
  put(__syncthreads_and(t != 63));
  if (lane < 12) {  // a part of the warp, apart from the rest
    put(__shfl_xor_sync(0xfffu, t, 3));
  } else {
    put(__ballot_sync(~0xfffu, lane >= 20));
  }
  __syncwarp();
  put(__activemask() >> lane & 1);
}

TEST(warp_collectives_follow_the_manual) {
  const auto out = in_every_schedule([] {
    std::vector<long long> out(21 * 64, -1);
    PYREID_LAUNCH((collectives_kernel), 1, 64, 0, nullptr, out.data());
    return out;
  });
  for (int t = 0; t < 64; ++t) {
    const int lane = t % 32, warp = t - lane;
    const long long expected[21] = {
        warp + 5,
        t / 8 * 8 + 1,
        lane >= 3 ? t - 3 : t,
        t % 16 >= 3 ? t - 3 : t,
        lane < 29 ? t + 3 : t,
        t % 16 < 13 ? t + 3 : t,
        t ^ 21,
        (t ^ 1) * 2 + 1,
        0x49249249,
        t >= 32,
        t >= 32,
        warp * 32 + 496,
        -warp,
        warp,
        0xffffffff,
        0xffLL << lane / 8 * 8,
        13,
        1,
        0,
        lane < 12 ? t ^ 3 : 0xfff00000,
        1,
    };
    for (int row = 0; row < 21; ++row) {
      if (out[row * 64 + t] != expected[row]) {
        test::fail(__FILE__, __LINE__,
                   "collective " + test::show(row) + " gives thread " + test::show(t) + " " +
                       test::show(out[row * 64 + t]) + ", expected " + test::show(expected[row]));
      }
    }
  }
}

__global__ void atomics_kernel(int* sum, unsigned* high, int* low, unsigned long long* wide, unsigned* turns) {
  __shared__ unsigned count;
  if (threadIdx.x == 0) count = 0;
  __syncthreads();
  atomicAdd(&count, 1u);
  __syncthreads();
  atomicAdd(sum, static_cast<int>(threadIdx.x) - 10);
  atomicMax(high, count + threadIdx.x);
  atomicMin(low, -static_cast<int>(threadIdx.x));
  atomicAdd(wide, 1ull << 33);
  unsigned seen = *turns, old;
  do {
    old = seen;
    seen = atomicCAS(turns, old, old + 2);
  } while (seen != old);
}

TEST(atomics_add_up) {
  for (const uint64_t seed : test::schedules()) {
    shim::set_schedule(seed);
    int sum = 0, low = 0;
    unsigned high = 0, turns = 0;
    unsigned long long wide = 0;
    PYREID_LAUNCH((atomics_kernel), 3, 96, 0, nullptr, &sum, &high, &low, &wide, &turns);
    CHECK_EQUAL(sum, 3 * (96 * 95 / 2 - 960));
    CHECK_EQUAL(high, 96u + 95u);
    CHECK_EQUAL(low, -95);
    CHECK_EQUAL(wide, 3 * 96 * (1ull << 33));
    CHECK_EQUAL(turns, 3 * 96 * 2u);
  }
}

__global__ void order_kernel(unsigned* tickets, unsigned* order) {
  order[atomicAdd(tickets, 1u)] = blockIdx.x * blockDim.x + threadIdx.x;
}

TEST(schedules_differ_and_repeat) {
  std::set<std::vector<unsigned>> orders;
  for (uint64_t seed = 0; seed < 6; ++seed) {
    std::vector<unsigned> first;
    for (int repeat = 0; repeat < 2; ++repeat) {
      shim::set_schedule(seed);
      std::vector<unsigned> order(4 * 64);
      unsigned tickets = 0;
      PYREID_LAUNCH((order_kernel), 4, 64, 0, nullptr, &tickets, order.data());
      if (repeat == 0) first = order;
      CHECK(order == first);
    }
    std::set<unsigned> threads(first.begin(), first.end());
    CHECK_EQUAL(threads.size(), 256u);
    orders.insert(first);
  }
  CHECK_EQUAL(orders.size(), 6u);
}

TEST(the_runtime_answers) {
  int processors = 0;
  PYREID_CUDA_CHECK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0));
  CHECK(processors > 0);
  CHECK_THROWS(PYREID_CUDA_CHECK(cudaErrorInvalidValue), "cudaErrorInvalidValue failed: invalid argument (");
}

// ---- float16 and bfloat16

TEST(halves_round_to_nearest_even) {
  for (unsigned bits = 0; bits < 0x10000u; ++bits) {  // there and back
    const __half h = __ushort_as_half(static_cast<unsigned short>(bits));
    if (!__hisnan(h)) CHECK_EQUAL(__half_as_ushort(__float2half(__half2float(h))), bits);
    const __nv_bfloat16 b = __ushort_as_bfloat16(static_cast<unsigned short>(bits));
    if (!__hisnan(b)) CHECK_EQUAL(__bfloat16_as_ushort(__float2bfloat16(__bfloat162float(b))), bits);
  }
  for (unsigned bits = 0; bits < 0x7c00u; ++bits) {  // between neighbours, the half above the largest being infinity
    const float below = __half2float(__ushort_as_half(static_cast<unsigned short>(bits)));
    const float above =
        bits + 1 < 0x7c00u ? __half2float(__ushort_as_half(static_cast<unsigned short>(bits + 1))) : 65536.0f;
    const float middle = (below + above) / 2;
    CHECK_EQUAL(__half_as_ushort(__float2half(middle)), bits + bits % 2);
    CHECK_EQUAL(__half_as_ushort(__float2half(std::nextafter(middle, 0.0f))), bits);
    CHECK_EQUAL(__half_as_ushort(__float2half(std::nextafter(middle, 1e9f))), bits + 1);
    CHECK_EQUAL(__half_as_ushort(__float2half(-middle)), 0x8000u + bits + bits % 2);
    const double nearly = std::nextafter(static_cast<double>(middle), 1e9);  // rounds to `middle` as a float
    CHECK_EQUAL(__half_as_ushort(__double2half(nearly)), bits + 1);
  }
  CHECK_EQUAL(__half2float(__float2half(65504.0f)), 65504.0f);
  CHECK_EQUAL(__half2float(__float2half(0x1p-24f)), 0x1p-24f);
  CHECK(std::isinf(__half2float(__float2half(std::numeric_limits<float>::infinity()))));
  CHECK(std::isnan(__half2float(__float2half(std::numeric_limits<float>::quiet_NaN()))));
  CHECK_EQUAL(__bfloat162float(__float2bfloat16(1.0f + 0x1p-8f)), 1.0f);
  CHECK_EQUAL(__bfloat162float(__float2bfloat16(1.0f + 3 * 0x1p-8f)), 1.0f + 0x1p-6f);
  CHECK_EQUAL(__bfloat162float(__float2bfloat16(1.0f + 0x1p-8f + 0x1p-20f)), 1.0f + 0x1p-7f);
  CHECK(std::isinf(__bfloat162float(__float2bfloat16(std::numeric_limits<float>::max()))));
  CHECK(std::isnan(__bfloat162float(__float2bfloat16(std::numeric_limits<float>::quiet_NaN()))));
}

// ---- what is broken, and found

// Correct but for one barrier: before the sum is written (read after write) or after it is read (write after read).
template <bool kBarrierBefore, bool kBarrierAfter>
__global__ void barriers_kernel(const float* x, float* out, int rounds) {
  __shared__ float slots[128];
  float total = 0;
  for (int round = 0; round < rounds; ++round) {
    slots[threadIdx.x] = x[threadIdx.x] * (round + 1);
    if (kBarrierBefore) __syncthreads();
    total += slots[(threadIdx.x + 37) % 128];
    if (kBarrierAfter) __syncthreads();
  }
  out[threadIdx.x] = total;
}

template <bool kBefore, bool kAfter>
std::vector<float> shift_and_sum() {
  std::vector<float> x(128), out(128);
  std::iota(x.begin(), x.end(), 1.0f);
  PYREID_LAUNCH((barriers_kernel<kBefore, kAfter>), 1, 128, 0, nullptr, x.data(), out.data(), 3);
  return out;
}

TEST(a_missing_barrier_changes_the_result) {
  const auto right = in_every_schedule(shift_and_sum<true, true>);
  for (int i = 0; i < 128; ++i) CHECK_EQUAL(right[i], 6.0f * ((i + 37) % 128 + 1));
  CHECK_THROWS(in_every_schedule(shift_and_sum<false, true>), "the result depends on the order of threads");
  CHECK_THROWS(in_every_schedule(shift_and_sum<true, false>), "the result depends on the order of threads");
}

__global__ void no_syncwarp_kernel(int* out, bool sync) {
  __shared__ int slots[32];
  slots[threadIdx.x] = static_cast<int>(threadIdx.x);
  if (sync) __syncwarp();
  out[threadIdx.x] = slots[threadIdx.x ^ 1];
}

std::vector<int> exchange_neighbours(bool sync) {
  std::vector<int> out(32);
  PYREID_LAUNCH((no_syncwarp_kernel), 1, 32, 0, nullptr, out.data(), sync);
  return out;
}

TEST(a_missing_syncwarp_changes_the_result) {
  CHECK_EQUAL(in_every_schedule([] { return exchange_neighbours(true); })[6], 7);
  CHECK_THROWS(in_every_schedule([] { return exchange_neighbours(false); }), "the result depends on the order");
}

// Counters that nobody set to zero: right by chance where shared memory starts as zeros.
template <class T>
__global__ void unset_kernel(unsigned* out) {
  __shared__ T counter;
  PYREID_DYNAMIC_SHARED(unsigned, dynamic);
  if (out[2] != 0) counter = dynamic[0] = 0;
  __syncthreads();
  atomicAdd(&counter, 1u);
  __syncthreads();
  if (threadIdx.x == 0) {
    out[0] = counter;
    out[1] = dynamic[0];
  }
}

std::vector<unsigned> count_threads(bool set) {
  std::vector<unsigned> out{0, 0, set};
  PYREID_LAUNCH((unset_kernel<unsigned>), 2, 32, 4, nullptr, out.data());
  return out;
}

TEST(shared_memory_that_nobody_wrote_is_not_zero) {
  const auto right = in_every_schedule([] { return count_threads(true); });
  CHECK_EQUAL(right[0], 32u);
  CHECK_THROWS(in_every_schedule([] { return count_threads(false); }), "the result depends on the order");
  shim::set_schedule(0);
  CHECK_EQUAL(count_threads(false)[0], 0xCDCDCDCDu + 32);  // in each block afresh
  CHECK_EQUAL(count_threads(false)[1], 0xCDCDCDCDu);
}

__global__ void returned_before_barrier_kernel() {
  if (threadIdx.x >= 40) return;
  __syncthreads();
}

__global__ void two_barriers_kernel() {
  if (threadIdx.x % 2 == 0) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

TEST(divergent_barriers_are_named) {
  for (const uint64_t seed : test::schedules()) {
    shim::set_schedule(seed);
    CHECK_THROWS(PYREID_LAUNCH((returned_before_barrier_kernel), 1, 64, 0, nullptr),
                 "block (0, 0, 0): divergent barrier: 40 of 64 threads, such as (0, 0, 0), wait at __syncthreads "
                 "(test_shim.cpp:");
    CHECK_THROWS(PYREID_LAUNCH((two_barriers_kernel), 1, 64, 0, nullptr),
                 "divergent barrier: thread (0, 0, 0) waits at __syncthreads (test_shim.cpp:");
  }
}

enum class Mistake { kHalfWarp, kShortBlock, kOwnLane, kOutsideMask, kTwoKinds, kBarrierInside, kWidth };

__global__ void wrong_collective_kernel(Mistake mistake) {
  const unsigned lane = threadIdx.x % 32;
  switch (mistake) {
    case Mistake::kHalfWarp:
      if (lane < 16) __shfl_xor_sync(kFullMask, 1, 1);
      break;
    case Mistake::kShortBlock:
      __ballot_sync(kFullMask, 1);
      break;
    case Mistake::kOwnLane:
      __shfl_xor_sync(0xffffu, 1, 1);
      break;
    case Mistake::kOutsideMask:
      if (lane < 16) __shfl_sync(0xffffu, 1, 20);
      break;
    case Mistake::kTwoKinds:
      if (lane < 16) {
        __shfl_xor_sync(kFullMask, 1, 1);
      } else {
        __ballot_sync(kFullMask, 1);
      }
      break;
    case Mistake::kBarrierInside:
      if (lane < 31) __syncwarp();
      __syncthreads();
      break;
    case Mistake::kWidth:
      __shfl_sync(kFullMask, 1, 0, 12);
      break;
  }
}

void make(Mistake mistake, unsigned threads = 64) {
  PYREID_LAUNCH((wrong_collective_kernel), 1, threads, 0, nullptr, mistake);
}

TEST(wrong_masks_name_the_absent_lanes) {
  for (const uint64_t seed : test::schedules()) {
    shim::set_schedule(seed);
    CHECK_THROWS(make(Mistake::kHalfWarp),
                 "warp 0: the mask 0xffffffff names lanes that never arrive: 16-31 (lane 16 has returned); there are: "
                 "0-15");
    CHECK_THROWS(make(Mistake::kShortBlock, 40),
                 "warp 1: the mask 0xffffffff names lanes that never arrive: 8-31 (lane 8 does not exist)");
    CHECK_THROWS(make(Mistake::kOwnLane), "which does not name it");
    CHECK_THROWS(make(Mistake::kOutsideMask), "reads lane 20, which the mask 0x0000ffff does not name");
    CHECK_THROWS(make(Mistake::kTwoKinds), "meet at different collectives");
    CHECK_THROWS(make(Mistake::kBarrierInside),
                 "names lanes that never arrive: 31 (lane 31 waits at __syncthreads (test_shim.cpp:");
    CHECK_THROWS(make(Mistake::kWidth), "width must be a power of two");
    CHECK_EQUAL(exchange_neighbours(true)[0], 1);  // after an error the next launch is a fresh one
  }
}

__global__ void empty_kernel() {}

TEST(impossible_launches_are_refused) {
  CHECK_THROWS(PYREID_LAUNCH((empty_kernel), 0, 32, 0, nullptr), "launch of (empty_kernel) at test_shim.cpp:");
  CHECK_THROWS(PYREID_LAUNCH((empty_kernel), 0, 32, 0, nullptr), "the grid is (0, 1, 1)");
  CHECK_THROWS(PYREID_LAUNCH((empty_kernel), dim3(1, 65536), 32, 0, nullptr), "the grid is (1, 65536, 1)");
  CHECK_THROWS(PYREID_LAUNCH((empty_kernel), 1, 1025, 0, nullptr), "the block is (1025, 1, 1)");
  CHECK_THROWS(PYREID_LAUNCH((empty_kernel), 1, dim3(64, 32), 0, nullptr), "the block is (64, 32, 1)");
  CHECK_THROWS(PYREID_LAUNCH((empty_kernel), 1, 0, 0, nullptr), "the block is (0, 1, 1)");
  CHECK_THROWS(PYREID_LAUNCH((empty_kernel), 1, 32, 49153, nullptr), "49153 bytes of dynamic shared memory");
  PYREID_CUDA_CHECK(cudaFuncSetAttribute(empty_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 65536));
  PYREID_LAUNCH((empty_kernel), 1, 32, 65536, nullptr);
  CHECK_THROWS(PYREID_CUDA_CHECK(
                   cudaFuncSetAttribute(empty_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 227 * 1024 + 1)),
               "invalid argument");
  CHECK_THROWS(__syncthreads(), "__syncthreads outside a kernel");
  CHECK_THROWS(PYREID_LAUNCH_CLUSTERS((empty_kernel), 4, 32, 3, 0, nullptr, ), "clusters of 3 blocks");
  CHECK_THROWS(PYREID_LAUNCH_CLUSTERS((empty_kernel), 9, 32, 9, 0, nullptr, ), "clusters of 9 blocks");
}

enum class ClusterMistake { kNone, kNoBarrier, kNoLastBarrier, kBlockGone, kHalfBlock, kTwoBarriers, kRank, kStatic };

// Each thread gets what its neighbour's block has at its place, by way of dynamic and of static shared memory.
__global__ void neighbours_kernel(ClusterMistake mistake, unsigned blocks, unsigned* out) {
  PYREID_DYNAMIC_SHARED(unsigned, values);
  __shared__ unsigned own[64];
  const unsigned rank = blockIdx.x % blocks, t = threadIdx.x;
  own[t] = 1000 * blockIdx.x;
  values[t] = 1000 * blockIdx.x + t;
  if (mistake == ClusterMistake::kBlockGone && rank == 1) return;
  if (mistake == ClusterMistake::kHalfBlock && t < 32) {
    __syncthreads();
  } else if (mistake == ClusterMistake::kTwoBarriers && rank == 0) {
    cluster_barrier();
  } else if (mistake != ClusterMistake::kNoBarrier) {
    cluster_barrier();
  }
  const unsigned neighbour = (rank + 1) % blocks + (mistake == ClusterMistake::kRank ? blocks : 0);
  const unsigned* from = in_block(mistake == ClusterMistake::kStatic ? own : values, neighbour);
  out[blockIdx.x * blockDim.x + t] = from[t] + (own[63 - t] - 1000 * blockIdx.x);
  if (mistake != ClusterMistake::kNoLastBarrier) cluster_barrier();
}

std::vector<unsigned> ask_neighbours(ClusterMistake mistake) {
  std::vector<unsigned> out(6 * 64);
  PYREID_LAUNCH_CLUSTERS((neighbours_kernel), 6, 64, 3, 64 * sizeof(unsigned), nullptr, mistake, 3u, out.data());
  return out;
}

TEST(blocks_of_a_cluster_read_each_other) {
  const auto out = in_every_schedule([] { return ask_neighbours(ClusterMistake::kNone); });
  for (unsigned i = 0; i < out.size(); ++i) {
    const unsigned block = i / 64;
    CHECK_EQUAL(out[i], 1000 * (block / 3 * 3 + (block + 1) % 3) + i % 64);
  }
}

TEST(mistakes_in_clusters_are_found) {
  CHECK_THROWS(in_every_schedule([] { return ask_neighbours(ClusterMistake::kNoBarrier); }), "");
  for (const uint64_t seed : test::schedules()) {
    shim::set_schedule(seed);
    CHECK_THROWS(ask_neighbours(ClusterMistake::kNoLastBarrier), "of the cluster has returned");
    CHECK_THROWS(ask_neighbours(ClusterMistake::kBlockGone),
                 "has returned, but others of the cluster wait at cluster_barrier");
    CHECK_THROWS(ask_neighbours(ClusterMistake::kHalfBlock), "divergent barrier: thread (32, 0, 0) waits at");
    CHECK_THROWS(ask_neighbours(ClusterMistake::kTwoBarriers), "another of the cluster at test_shim.cpp:");
    CHECK_THROWS(ask_neighbours(ClusterMistake::kRank), "of a cluster of 3");
    CHECK_THROWS(ask_neighbours(ClusterMistake::kStatic), "outside dynamic shared memory");
  }
}

// What a device answers with "operation not supported on global/shared address space".
__global__ void hinted_store_kernel(int* out, bool dynamic, bool load) {
  __shared__ int fixed[2];
  PYREID_DYNAMIC_SHARED(int, slots);
  int* const wrong = dynamic ? slots : fixed;
  wrong[1] = 2;
  __stwb(out, 1);
  out[1] = __ldcg(out);
  if (load) {
    out[2] = __ldg(wrong + 1);
  } else {
    __stwb(wrong + 1, 3);
  }
}

TEST(cache_hints_are_for_global_memory) {
  for (const bool dynamic : {false, true}) {
    for (const bool load : {false, true}) {
      std::vector<int> out(3);
      const auto launch = [&] {
        PYREID_LAUNCH((hinted_store_kernel), 1, 1, 2 * sizeof(int), nullptr, out.data(), dynamic, load);
      };
      CHECK_THROWS(launch(), "of shared memory: it is for global memory alone");
      CHECK_EQUAL(out[1], 1);
    }
  }
}

__global__ void store_kernel(int* out, int64_t index, bool misaligned) {
  if (misaligned) {
    *reinterpret_cast<float4*>(out + index) = float4{1, 2, 3, 4};
  } else {
    out[index] = 1;
  }
}

template <class T>
__global__ void store_static_shared_kernel(T* out, int64_t index) {
  __shared__ T slots[8];
  T* volatile p = slots;  // so that only the store itself can tell
  p[threadIdx.x] = static_cast<T>(threadIdx.x);
  p[index] = 1;
  __syncthreads();
  out[threadIdx.x] = p[threadIdx.x];
}

__global__ void store_dynamic_shared_kernel(int* out, int64_t index) {
  PYREID_DYNAMIC_SHARED(int, slots);
  slots[index] = 1;
  out[0] = slots[0];
}

// Runs body in a child process and returns what it wrote to standard error; the child must not end well.
template <class Body>
std::string last_words(const Body& body) {
  int ends[2];
  if (pipe(ends) != 0) test::fail(__FILE__, __LINE__, "no pipe");
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], STDERR_FILENO);
    close(ends[0]);
    close(ends[1]);
    body();
    _exit(0);
  }
  close(ends[1]);
  std::string words;
  char buffer[4096];
  for (ssize_t n; (n = read(ends[0], buffer, sizeof buffer)) > 0;) words.append(buffer, static_cast<size_t>(n));
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return "ended well";
  return words;
}

#define CHECK_DIES(statement, text)                                                                                 \
  do {                                                                                                              \
    const std::string check_words = last_words([&] { statement; });                                                 \
    if (check_words.find(text) == std::string::npos) {                                                              \
      test::fail(__FILE__, __LINE__, "expected to die with \"" text "\": " #statement "\n    got: " + check_words); \
    }                                                                                                               \
  } while (0)

TEST(stores_out_of_bounds_are_found) {
  std::vector<int> out(8);
  PYREID_LAUNCH((store_kernel), 1, 1, 0, nullptr, out.data(), 7, false);
  PYREID_LAUNCH((store_static_shared_kernel<int>), 1, 8, 0, nullptr, out.data(), 7);
  PYREID_LAUNCH((store_dynamic_shared_kernel), 1, 1, 32, nullptr, out.data(), 7);
#if PYREID_SHIM_ASAN
  CHECK_DIES(PYREID_LAUNCH((store_kernel), 1, 1, 0, nullptr, out.data(), 8, false), "heap-buffer-overflow");
  CHECK_DIES(PYREID_LAUNCH((store_kernel), 1, 1, 0, nullptr, out.data(), -1, false), "heap-buffer-overflow");
  CHECK_DIES(PYREID_LAUNCH((store_kernel), 1, 1, 0, nullptr, out.data(), 1, true), "misaligned address");
  CHECK_DIES(PYREID_LAUNCH((store_static_shared_kernel<int>), 1, 8, 0, nullptr, out.data(), 8),
             "global-buffer-overflow");
  CHECK_DIES(PYREID_LAUNCH((store_dynamic_shared_kernel), 1, 1, 32, nullptr, out.data(), 8), "heap-buffer-overflow");
  CHECK_DIES(PYREID_LAUNCH((store_dynamic_shared_kernel), 1, 1, 0, nullptr, out.data(), 0), "heap-buffer-overflow");
#else
  CHECK_THROWS(PYREID_LAUNCH((store_dynamic_shared_kernel), 1, 1, 32, nullptr, out.data(), 8),
               "stored at byte 32 of the 32 bytes of dynamic shared memory");
#endif
}

__global__ void deep_kernel(int* out, int depth) {
  volatile char frame[4096];
  frame[0] = static_cast<char>(depth);
  if (depth > 0) deep_kernel(out, depth - 1);
  out[0] = frame[0];
}

TEST(a_stack_that_overflows_is_found) {
  std::vector<int> out(1);
  PYREID_LAUNCH((deep_kernel), 1, 1, 0, nullptr, out.data(), 3);
  const std::string words = last_words([&] { PYREID_LAUNCH((deep_kernel), 1, 1, 0, nullptr, out.data(), 1000); });
  CHECK(words != "ended well");
}

}  // namespace
}  // namespace pyreid::cuda
