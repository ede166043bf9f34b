// The forward of a triplet loss on a small batch (at most kSmallBatch rows) in one launch.
//
// What bounds it is latency: at B = 72, D = 2048, reading the batch takes 0.1 us of an H200's bandwidth and the
// differences 0.7 us of its arithmetic, but each launch costs 2 us and more. So all steps are one kernel, and the work
// is cut small: a group of `parts` blocks (1, 2, 4 or 8) owns kRows anchors, and each of its blocks sums the squared
// differences to all B rows over its part of the columns. That is B / kRows * parts blocks: 144 at B = 72, D = 2048.
// - Distances: a lane holds 8 columns of kRows anchors in registers and walks over the rows that its warp owns, loading
//   each with 128-bit loads straight from the second-level cache: 16 kRows instructions of arithmetic for 2 loads. The
//   lanes' sums are added by a butterfly that halves the number of rows at each step, (kRows - 1) + 5 - log2(kRows)
//   shuffles for kRows results. Each block reads B D / parts elements, all together B^2 D / kRows: 10 MB at B = 72, 67
//   MB at B = 256 (with 8 anchors), 2 and 12 us of second-level bandwidth, beside 1 and 10 us of arithmetic.
// - Exchange of the parts' sums. On Hopper and later the group is a thread-block cluster: after a cluster barrier, each
//   block adds the sums of one row, or of a few, from the shared memory of all blocks. Elsewhere blocks write their
//   sums to global memory, and the last one of the group to arrive adds them for all rows. Where there are no counters
//   left for that, one block does all parts. All three add the parts in order, so all give the same bits.
// - A warp for each anchor does the mining, or the weighted means, from shared memory, and writes the anchor's loss.
// - The last block of all (tickets.cuh) reduces the losses in the order of the anchors.
// Distances are sums of squared differences: near duplicates keep their digits, the distance of i and j is that of j
// and i bit for bit, and equal rows have equal distances to any third one. Which columns a lane holds does not depend
// on the alignment of the rows, so neither do the results: they depend on values and shape alone. No float atomics.
#pragma once
#include <cstdint>
#include <type_traits>

#include "csrc/cuda/cluster.cuh"
#include "csrc/cuda/pack.cuh"
#include "csrc/cuda/small_batch.cuh"
#include "csrc/cuda/tickets.cuh"
#include "csrc/cuda/triplet.cuh"

namespace pyreid::cuda {

inline constexpr int kSmallThreads = 256;
inline constexpr int kSmallWarps = kSmallThreads / kWarpSize;
inline constexpr int kLaneColumns = 8;
inline constexpr int64_t kPieceColumns = kWarpSize * kLaneColumns;
inline constexpr int kMostParts = 8;  // of a cluster, on every device that has them
inline constexpr int kFewestRows = 4;
inline constexpr int kGroups = static_cast<int>(kSmallBatch) / kFewestRows;

// Into how many parts the columns are split.
inline int small_parts(int64_t d) {
  const int64_t pieces = (d + kPieceColumns - 1) / kPieceColumns;
  int parts = 1;
  while (parts < pieces && parts < kMostParts) parts *= 2;
  return parts;
}

template <class T>
struct SmallTriplet {
  const T* x;             // [B, D]
  const int64_t* labels;  // [B]
  int b;                  // above 0
  int64_t d;
  int parts;             // of the columns
  int blocks;            // of a group: parts, or 1 that does all parts
  int64_t part_columns;  // of all parts but the last ones; whole pieces
  T* partial;            // [parts, B, B], where a group is several blocks that are no cluster
  int slot;              // of tickets, or kNoSlot: the losses are reduced by another launch
  Margin margin;
  Reduction reduction;
  T* losses;  // [B]
  T* loss;    // []
  T* slopes;  // [slope_count]
  int64_t slope_count;
};

// Counter 0 is that of the whole launch, the others are those of the groups.
namespace {
__device__ unsigned small_tickets[kTicketSlots][1 + kGroups];
}

// The 8 columns of a lane, 0 past `end`.
template <bool kPacks, class T>
__device__ __forceinline__ void load_columns(const T* __restrict__ row, int64_t begin, int64_t end,
                                             T (&columns)[kLaneColumns]) {
  constexpr int kWidth = kPackSize<T>;
#pragma unroll
  for (int group = 0; group < kLaneColumns / kWidth; ++group) {
    const int64_t k = begin + (group * kWarpSize + threadIdx.x % kWarpSize) * kWidth;
    if constexpr (kPacks) {
      Pack<T> pack = {};
      if (k < end) pack = load_pack(row + k);
#pragma unroll
      for (int c = 0; c < kWidth; ++c) columns[group * kWidth + c] = pack[c];
    } else {
#pragma unroll
      for (int c = 0; c < kWidth; ++c) columns[group * kWidth + c] = k + c < end ? row[k + c] : T(0);
    }
  }
}

// Adds sums[r] over the lanes of the warp; lane l gets that of row l / (32 / kRows). Whatever the row, the same lanes
// are added in the same order.
template <int kRows, class T>
__device__ __forceinline__ T sum_rows(T (&sums)[kRows]) {
  int offset = kWarpSize / 2;
#pragma unroll
  for (int half = kRows / 2; half > 0; half /= 2, offset /= 2) {
    const bool upper = (threadIdx.x & static_cast<unsigned>(offset)) != 0;
#pragma unroll
    for (int r = 0; r < half; ++r) {
      const T sent = upper ? sums[r] : sums[r + half];
      const T kept = upper ? sums[r + half] : sums[r];
      sums[r] = kept + __shfl_xor_sync(kFullMask, sent, offset);
    }
  }
#pragma unroll
  for (; offset > 0; offset /= 2) sums[0] += __shfl_xor_sync(kFullMask, sums[0], offset);
  return sums[0];
}

// Sums of squared differences of anchors [first, first + kRows) and all rows over columns [begin, end) into tile
// [kRows, B]. Each element is written by one lane, always the same.
template <int kRows, bool kPacks, class T>
__device__ __forceinline__ void partial_distances(const T* __restrict__ x, int b, int64_t d, int first, int64_t begin,
                                                  int64_t end, T* tile) {
  constexpr int kLanesPerRow = kWarpSize / kRows;
  const int warp = threadIdx.x / kWarpSize, lane = threadIdx.x % kWarpSize;
  int64_t k = begin;
  do {  // once also without columns: the tile is written
    T anchors[kRows][kLaneColumns];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      load_columns<kPacks>(x + (first + r < b ? first + r : first) * d, k, end, anchors[r]);
    }
    T next[kLaneColumns];
    if (warp < b) load_columns<kPacks>(x + warp * d, k, end, next);
    for (int j = warp; j < b; j += kSmallWarps) {
      T other[kLaneColumns];
#pragma unroll
      for (int c = 0; c < kLaneColumns; ++c) other[c] = next[c];
      if (j + kSmallWarps < b) load_columns<kPacks>(x + (j + kSmallWarps) * d, k, end, next);
      T sums[kRows];
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        sums[r] = 0;
#pragma unroll
        for (int c = 0; c < kLaneColumns; ++c) {
          const T difference = anchors[r][c] - other[c];
          sums[r] += difference * difference;
        }
      }
      const T sum = sum_rows<kRows>(sums);
      if (lane % kLanesPerRow == 0) {
        T* out = tile + lane / kLanesPerRow * b + j;
        *out = k == begin ? sum : *out + sum;
      }
    }
    k += kPieceColumns;
  } while (k < end);
}

// mine(i, row, labels) is called by the warp of anchor i with its squared distances [B] and all labels, both in shared
// memory, of which it may overwrite the former; it writes the anchor's results.
template <class T, int kRows, bool kClusters, bool kPacks, class Mine>
__device__ __forceinline__ void small_triplet(const SmallTriplet<T>& args, const Mine& mine) {
  static_assert(kRows >= kFewestRows && kRows <= kSmallWarps, "a warp for each anchor");
  const int b = args.b, parts = args.parts, blocks = args.blocks;
  PYREID_DYNAMIC_SHARED(int64_t, labels);  // [B], then tile and rows, [kRows, B] both
  T* tile = reinterpret_cast<T*>(labels + b);
  T* rows = tile + kRows * b;
  const int part = static_cast<int>(blockIdx.x) % blocks, group = static_cast<int>(blockIdx.x) / blocks;
  const int first = group * kRows;
  const int own_rows = b - first < kRows ? b - first : kRows;
  const int pairs = own_rows * b;
  const auto sum_part = [&](int p) {
    const int64_t begin = p * args.part_columns;
    const int64_t end = begin + args.part_columns < args.d ? begin + args.part_columns : args.d;
    partial_distances<kRows, kPacks>(args.x, b, args.d, first, begin, end, tile);
  };
  for (int j = threadIdx.x; j < b; j += kSmallThreads) labels[j] = args.labels[j];
  for (int p = part;; ++p) {
    sum_part(p);
    if (kClusters || blocks > 1) break;
    __syncthreads();
    for (int e = threadIdx.x; e < pairs; e += kSmallThreads) rows[e] = p == 0 ? tile[e] : rows[e] + tile[e];
    if (p + 1 == parts) break;
    __syncthreads();
  }

  // Row `rank + m * ranks` of the group is mined by warp m of this block.
  int rank = 0, ranks = 1;
  if constexpr (kClusters) {
    rank = part;
    ranks = parts;
    cluster_barrier();
    for (int r = rank; r < own_rows; r += ranks) {
      for (int j = threadIdx.x; j < b; j += kSmallThreads) {
        T sums[kMostParts];
#pragma unroll
        for (int p = 0; p < kMostParts; ++p) {
          if (p < parts) sums[p] = in_block(tile, static_cast<unsigned>(p))[r * b + j];
        }
        T sum = sums[0];
#pragma unroll
        for (int p = 1; p < kMostParts; ++p) {
          if (p < parts) sum += sums[p];
        }
        rows[r * b + j] = sum;
      }
    }
  } else if (blocks > 1) {
    __syncthreads();
    T* group_partial = args.partial + static_cast<int64_t>(first) * b;  // a group's anchors are neighbours
    const int64_t stride = static_cast<int64_t>(b) * b;
    for (int e = threadIdx.x; e < pairs; e += kSmallThreads) group_partial[part * stride + e] = tile[e];
    if (!last_to_arrive(&small_tickets[args.slot][1 + group], static_cast<unsigned>(parts))) return;
    for (int e = threadIdx.x; e < pairs; e += kSmallThreads) {
      T sum = __ldcg(group_partial + e);
      for (int p = 1; p < parts; ++p) sum += __ldcg(group_partial + p * stride + e);
      rows[e] = sum;
    }
  }
  __syncthreads();

  const int r = rank + static_cast<int>(threadIdx.x) / kWarpSize * ranks;
  if (r < own_rows) mine(first + r, rows + r * b, labels);

  if (args.reduction != Reduction::kNone && args.slot != kNoSlot) {
    const int miners = ranks < kRows ? ranks : kRows;  // blocks of each group that mine
    const unsigned arrivals = gridDim.x / static_cast<unsigned>(blocks) * static_cast<unsigned>(miners);
    if (rank < miners && last_to_arrive(&small_tickets[args.slot][0], arrivals)) {
      reduce_losses<kSmallThreads>(b, args.slope_count, args.reduction, args.losses, args.loss, args.slopes);
    }
  }
  if constexpr (kClusters) cluster_barrier();  // others may still read this block's tile
}

// Eight anchors for each group, once there are enough groups of them to fill the device: half the reads of four.
template <class T>
inline int small_rows(int64_t b) {
  return sizeof(T) == 4 && b > kSmallBatch / 2 ? 2 * kFewestRows : kFewestRows;
}

template <class T>
inline size_t small_shared_bytes(int64_t b) {
  return static_cast<size_t>(b) * (sizeof(int64_t) + 2 * static_cast<size_t>(small_rows<T>(b)) * sizeof(T));
}

// Elements of global memory that a forward needs besides its results.
inline int64_t small_scratch(int64_t b, int64_t d, bool clusters) {
  const int64_t parts = small_parts(d);
  return parts > 1 && !clusters ? parts * b * b : 0;
}

// Kernel<kRows, kClusters, kPacks>::kernel is the kernel of the operator.
template <template <int, bool, bool> class Kernel, class T>
bool small_can_cluster() {
  static ClusterSupport support;
  return can_cluster(Kernel<kFewestRows, true, true>::kernel, kMostParts, kSmallThreads,
                     small_shared_bytes<T>(kSmallBatch), support);
}

template <template <int, bool, bool> class Kernel, int kRows, bool kPacks, class T, class... More>
void launch_small_rows(const SmallTriplet<T>& args, bool clusters, cudaStream_t stream, More... more) {
  const unsigned grid = static_cast<unsigned>((args.b + kRows - 1) / kRows * args.blocks);
  const size_t bytes = small_shared_bytes<T>(args.b);
  if (clusters) {
    PYREID_LAUNCH_CLUSTERS((Kernel<kRows, true, kPacks>::kernel), grid, kSmallThreads,
                           static_cast<unsigned>(args.parts), bytes, stream, args, more...);
  } else {
    PYREID_LAUNCH((Kernel<kRows, false, kPacks>::kernel), grid, kSmallThreads, bytes, stream, args, more...);
  }
}

// Fills in how the work is divided. `more` are the operator's own results.
template <template <int, bool, bool> class Kernel, class T, class... More>
void launch_small(SmallTriplet<T> args, bool clusters, cudaStream_t stream, More... more) {
  args.parts = small_parts(args.d);
  const int64_t pieces = (args.d + kPieceColumns - 1) / kPieceColumns;
  args.part_columns = (pieces + args.parts - 1) / args.parts * kPieceColumns;
  args.slot = ticket_slot(stream);
  clusters = clusters && args.parts > 1;
  args.blocks = clusters || args.slot != kNoSlot ? args.parts : 1;
  const auto launch = [&](auto rows) {
    if (fits_packs(args.x, args.d)) {
      launch_small_rows<Kernel, decltype(rows)::value, true>(args, clusters, stream, more...);
    } else {
      launch_small_rows<Kernel, decltype(rows)::value, false>(args, clusters, stream, more...);
    }
  };
  if (small_rows<T>(args.b) == kFewestRows) {
    launch(std::integral_constant<int, kFewestRows>{});
  } else if constexpr (sizeof(T) == 4) {
    launch(std::integral_constant<int, 2 * kFewestRows>{});
  }
  if (args.slot == kNoSlot) {
    launch_reduce_losses(args.b, args.slope_count, args.reduction, args.losses, args.loss, args.slopes, stream);
  }
}

}  // namespace pyreid::cuda
