#include "cpp_tests/shim/shim.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "cpp_tests/shim/context.h"
#include "cpp_tests/shim/include/cuda_runtime_api.h"
#include "cpp_tests/shim/shared_memory.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace pyreid::shim {
namespace {

constexpr unsigned kMaxThreads = 1024;
constexpr unsigned kMaxWarps = kMaxThreads / kWarp;
constexpr size_t kStackBytes = 128 * 1024;
constexpr size_t kPageBytes = 4096;
constexpr size_t kSharedBytes = 46 * 1024;        // what a kernel may have without asking: 48 KiB with its static ones
constexpr size_t kSharedBytesOptin = 227 * 1024;  // and with cudaFuncSetAttribute
constexpr int kMultiprocessors = 4;
constexpr unsigned kMaxCluster = 8;  // what every device with clusters can do
// Behind dynamic shared memory; AddressSanitizer has red zones of its own, which must begin at the last byte.
constexpr size_t kGuardBytes = PYREID_SHIM_ASAN ? 0 : 256;
constexpr unsigned char kGuard = 0xA5;

// SplitMix64
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t operator()() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  template <class T>
  void shuffle(std::vector<T>& items) {
    for (size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[(*this)() % i]);
  }

 private:
  uint64_t state_;
};

enum class State { kReady, kAtBarrier, kAtCollective, kAtClusterBarrier, kReturned };

struct Thread {
  Context context;
  State state = State::kReady;
  uint3 index{};
  unsigned rank = 0;  // its place in the order of running
  const char* what = "";
  Site site{};
  uint32_t mask = 0;
};

struct Free {
  void operator()(unsigned char* p) const { std::free(p); }
};

// A block that runs: one, or all those of a cluster.
struct Block {
  Block() {
    // Guard pages below each stack turn an overflow into a crash at once.
    const size_t slot = kStackBytes + kPageBytes;
    void* memory =
        mmap(nullptr, kMaxThreads * slot, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::runtime_error("shim: no memory for the stacks");
    for (unsigned t = 0; t < kMaxThreads; ++t) {
      char* base = static_cast<char*>(memory) + t * slot;
      mprotect(base, kPageBytes, PROT_NONE);
      stacks[t] = base + kPageBytes;
    }
  }

  uint3 index{};
  std::array<void*, kMaxThreads> stacks{};
  std::array<Thread, kMaxThreads> threads;
  std::array<std::array<detail::Lane, kWarp>, kMaxWarps> lanes;
  std::array<uint32_t, kMaxWarps> arrived{};  // lanes that wait at a collective
  std::array<unsigned, kMaxThreads> thread_at_rank{};
  std::array<uint64_t, kMaxThreads / 64> ready{};  // bit per rank
  unsigned waiting = 0, at_cluster_barrier = 0, returned = 0, phase = 0;
  std::array<int, 2> predicates{};
  std::unique_ptr<unsigned char, Free> dynamic_shared;
  std::vector<unsigned char> static_shared;  // while another block of the cluster runs
};

std::string at(Site site) {
  const char* slash = std::strrchr(site.file, '/');
  return std::string(slash ? slash + 1 : site.file) + ":" + std::to_string(site.line);
}

bool same(Site a, Site b) { return a.line == b.line && (a.file == b.file || !std::strcmp(a.file, b.file)); }

std::string name_of(uint3 index) {
  return "(" + std::to_string(index.x) + ", " + std::to_string(index.y) + ", " + std::to_string(index.z) + ")";
}

// "0-3, 7"
std::string name_lanes(uint32_t lanes) {
  std::string text;
  for (unsigned l = 0; l < kWarp; ++l) {
    if (!(lanes >> l & 1)) continue;
    unsigned last = l;
    while (last + 1 < kWarp && lanes >> (last + 1) & 1) ++last;
    text += (text.empty() ? "" : ", ") + std::to_string(l) + (last > l ? "-" + std::to_string(last) : "");
    l = last;
  }
  return text;
}

std::string hex(uint32_t mask) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%08x", mask);
  return text;
}

// Runs the blocks of one launch after another. All threads of a block are fibers of the one thread that calls run().
class Machine {
 public:
  Machine() : shared_variables_(shared_variables()) {}

  void run(const detail::Launch& launch, void (*body)(const void*), const void* context);

  Thread& current() { return block_->threads[current_]; }
  unsigned current_index() const { return current_; }
  detail::Lane* lanes() { return block_->lanes[current_ / kWarp].data(); }
  unsigned char* dynamic_shared() { return block_->dynamic_shared.get(); }
  const void* in_block(const void* p, unsigned rank);
  bool is_shared(const void* p) const;
  int& predicates(unsigned parity) { return block_->predicates[parity]; }
  unsigned phase() const { return block_->phase; }

  // Called by the running thread: it stops, does what others need of it, and lets them run.
  void stop(State state, const char* what, Site site) {
    current().state = state;
    current().what = what;
    current().site = site;
    block_->ready[current().rank / 64] &= ~(uint64_t{1} << (current().rank % 64));
    block_->waiting += state == State::kAtBarrier;
    block_->at_cluster_barrier += state == State::kAtClusterBarrier;
    block_->returned += state == State::kReturned;
  }
  void arrive(uint32_t mask, detail::Combine combine);
  void let_others_run() { current().context.switch_to(scheduler_); }

  // An error of the running thread. The two are apart so that nothing on the thread's stack is left to be freed.
  void set_error(const std::string& message) { error_ = message; }
  [[noreturn]] void die() {
    current().context.switch_to(scheduler_, true);
    std::abort();  // not reached
  }
  void require_running(const char* what) {
    if (!running_) throw std::runtime_error(std::string("shim: ") + what + " outside a kernel");
  }

  uint64_t seed = 0;
  uint64_t switches = 0;
  std::map<const void*, size_t> allowed_dynamic_shared;

 private:
  static void entry();
  void check(const detail::Launch& launch) const;
  void run_cluster(uint64_t cluster);
  void start_block();
  void run_block();
  void enter(Block& block);
  void release_cluster_barrier();
  void fill_shared();
  void draw_order();
  void set_ready(unsigned t) {
    block_->threads[t].state = State::kReady;
    block_->ready[block_->threads[t].rank / 64] |= uint64_t{1} << (block_->threads[t].rank % 64);
  }
  bool run_first_ready();
  void release_barrier();
  void forget_stacks();
  std::string where_is(unsigned t) const;
  [[noreturn]] void report_deadlock();
  [[noreturn]] void report(const std::string& message) {
    error_ = message;
    throw std::runtime_error(std::string("kernel ") + launch_->kernel + " launched at " + at(launch_->site) +
                             ", block " + name_of(blockIdx) + ": " + message);
  }
  unsigned pattern() const {
    constexpr unsigned char kPatterns[] = {0xCD, 0xFF, 0x7F, 0x01};  // 0xFF: NaN in every format
    return kPatterns[seed % 4];
  }

  const detail::Launch* launch_ = nullptr;
  void (*body_)(const void*) = nullptr;
  const void* body_context_ = nullptr;
  bool running_ = false;

  std::vector<SharedVariable> shared_variables_;
  std::vector<std::unique_ptr<Block>> blocks_;  // of a cluster
  Block* block_ = nullptr;                      // the one that runs
  Context scheduler_;
  Random random_{0};
  unsigned n_ = 0, current_ = 0;
  std::string error_;
};

Machine& machine() {
  static Machine instance;
  return instance;
}

#if PYREID_SHIM_ASAN
__attribute__((no_sanitize_address))
#endif
void Machine::entry() {
  Machine& m = machine();
  m.current().context.arrived(&m.scheduler_);
  m.body_(m.body_context_);
  m.stop(State::kReturned, "", {});
  m.die();
}

void Machine::check(const detail::Launch& launch) const {
  const auto refuse = [&](const std::string& message) {
    throw std::runtime_error(std::string("launch of ") + launch.kernel + " at " + at(launch.site) + ": " + message);
  };
  const dim3 grid = launch.grid, block = launch.block;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) {
    refuse("the grid is " + name_of(grid) + "; expected 1 to 2147483647, 65535 and 65535 blocks");
  }
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || block.x > kMaxThreads || block.y > kMaxThreads || block.z > 64 || threads > kMaxThreads) {
    refuse("the block is " + name_of(block) + "; expected 1 to 1024 threads, 64 along z");
  }
  if (launch.cluster == 0 || launch.cluster > kMaxCluster || grid.x % launch.cluster != 0) {
    refuse("clusters of " + std::to_string(launch.cluster) + " blocks; expected 1 to " + std::to_string(kMaxCluster) +
           " that divide the grid " + name_of(grid));
  }
  const auto allowed = allowed_dynamic_shared.find(launch.address);
  const size_t limit = allowed == allowed_dynamic_shared.end() ? kSharedBytes : std::max(kSharedBytes, allowed->second);
  if (launch.shared_bytes > limit) {
    refuse(std::to_string(launch.shared_bytes) + " bytes of dynamic shared memory; this kernel may have " +
           std::to_string(limit) + (limit == kSharedBytes ? " (cudaFuncSetAttribute raises that)" : ""));
  }
}

void Machine::fill_shared() {
  for (const SharedVariable& variable : shared_variables_) {
    std::memset(variable.address, static_cast<int>(pattern()), variable.bytes);
  }
  std::memset(block_->dynamic_shared.get(), static_cast<int>(pattern()), launch_->shared_bytes);
  std::memset(block_->dynamic_shared.get() + launch_->shared_bytes, kGuard, kGuardBytes);
}

void Machine::draw_order() {
  std::vector<unsigned> order(n_);
  std::iota(order.begin(), order.end(), 0u);
  if (seed == 1) std::reverse(order.begin(), order.end());
  if (seed >= 2 && seed % 2 == 0) random_.shuffle(order);
  if (seed >= 2 && seed % 2 == 1) {
    std::vector<unsigned> warps((n_ + kWarp - 1) / kWarp);
    std::iota(warps.begin(), warps.end(), 0u);
    random_.shuffle(warps);
    order.clear();
    for (const unsigned warp : warps) {
      std::vector<unsigned> lanes;
      for (unsigned t = warp * kWarp; t < std::min(n_, (warp + 1) * kWarp); ++t) lanes.push_back(t);
      random_.shuffle(lanes);
      order.insert(order.end(), lanes.begin(), lanes.end());
    }
  }
  for (unsigned rank = 0; rank < n_; ++rank) {
    block_->thread_at_rank[rank] = order[rank];
    block_->threads[order[rank]].rank = rank;
  }
}

// The thread of the lowest rank that can run does so until it waits or returns.
bool Machine::run_first_ready() {
  for (size_t word = 0; word < block_->ready.size(); ++word) {
    if (block_->ready[word] == 0) continue;
    current_ = block_->thread_at_rank[word * 64 + static_cast<size_t>(std::countr_zero(block_->ready[word]))];
    threadIdx = current().index;
    ++switches;
    scheduler_.switch_to(current().context);
    if (!error_.empty()) report(error_);
    return true;
  }
  return false;
}

void Machine::release_barrier() {
  const Thread& first = block_->threads[0];
  for (unsigned t = 1; t < n_; ++t) {
    const Thread& other = block_->threads[t];
    if (other.what != first.what || !same(other.site, first.site)) {
      report("divergent barrier: thread " + name_of(first.index) + " " + where_is(0) + ", thread " +
             name_of(other.index) + " " + where_is(t));
    }
  }
  block_->waiting = 0;
  block_->predicates[++block_->phase % 2] = 0;  // the next barrier counts here while threads still read this one's
  draw_order();
  for (unsigned t = 0; t < n_; ++t) set_ready(t);
}

void Machine::start_block() {
  fill_shared();
  block_->waiting = block_->at_cluster_barrier = block_->returned = block_->phase = 0;
  block_->predicates = {0, 0};
  block_->ready = {};
  block_->arrived = {};
  draw_order();
  const dim3 block = launch_->block;
  for (unsigned t = 0; t < n_; ++t) {
    block_->threads[t].index = {t % block.x, t / block.x % block.y, t / (block.x * block.y)};
    block_->threads[t].context.prepare(entry, block_->stacks[t], kStackBytes);
    set_ready(t);
  }
}

// Until all threads have returned or all wait for the rest of the cluster.
void Machine::run_block() {
  for (;;) {
    while (run_first_ready()) {
    }
    if (block_->returned == n_) break;
    if (block_->at_cluster_barrier == n_) return;
    if (block_->waiting != n_) report_deadlock();
    release_barrier();
  }
  for (size_t byte = 0; byte < kGuardBytes; ++byte) {
    if (block_->dynamic_shared.get()[launch_->shared_bytes + byte] != kGuard) {
      report("stored at byte " + std::to_string(launch_->shared_bytes + byte) + " of the " +
             std::to_string(launch_->shared_bytes) + " bytes of dynamic shared memory");
    }
  }
}

// Makes a block the one that runs. Blocks of a cluster share the static variables that stand in for shared memory.
void Machine::enter(Block& block) {
  if (launch_->cluster > 1 && block_ != nullptr && block_ != &block) {
    block_->static_shared.clear();
    for (const SharedVariable& variable : shared_variables_) {
      block_->static_shared.insert(block_->static_shared.end(), variable.address, variable.address + variable.bytes);
    }
    const unsigned char* from = block.static_shared.data();
    for (const SharedVariable& variable : shared_variables_) {
      if (block.static_shared.empty()) break;  // it has not started
      std::memcpy(variable.address, from, variable.bytes);
      from += variable.bytes;
    }
  }
  block_ = &block;
  blockIdx = block.index;
}

// Each block runs until it waits for the others, in an order that the seed decides.
void Machine::run_cluster(uint64_t cluster) {
  const dim3 grid = launch_->grid;
  std::vector<unsigned> order(launch_->cluster);
  std::iota(order.begin(), order.end(), 0u);
  block_ = nullptr;
  for (const unsigned rank : order) {
    const uint64_t block = cluster * launch_->cluster + rank;
    blocks_[rank]->index = {static_cast<unsigned>(block % grid.x), static_cast<unsigned>(block / grid.x % grid.y),
                            static_cast<unsigned>(block / grid.x / grid.y)};
    blocks_[rank]->static_shared.clear();
    enter(*blocks_[rank]);
    start_block();
  }
  for (;;) {
    if (seed == 1) std::reverse(order.begin(), order.end());
    if (seed >= 2) random_.shuffle(order);
    unsigned waiting = 0;
    for (const unsigned rank : order) {
      enter(*blocks_[rank]);
      run_block();
      waiting += block_->returned < n_;
    }
    if (waiting == 0) return;
    if (waiting < order.size()) {
      for (const unsigned rank : order) {
        if (blocks_[rank]->returned == n_) enter(*blocks_[rank]);
      }
      report("has returned, but others of the cluster wait at cluster_barrier");
    }
    release_cluster_barrier();
  }
}

void Machine::release_cluster_barrier() {
  const Thread& first = blocks_[0]->threads[0];
  for (unsigned rank = 0; rank < launch_->cluster; ++rank) {
    enter(*blocks_[rank]);
    for (unsigned t = 0; t < n_; ++t) {
      if (!same(block_->threads[t].site, first.site)) {
        report("divergent barrier: thread " + name_of(block_->threads[t].index) + " " + where_is(t) +
               ", another of the cluster at " + at(first.site));
      }
    }
    block_->at_cluster_barrier = 0;
    draw_order();
    for (unsigned t = 0; t < n_; ++t) set_ready(t);
  }
}

// Of this block, or dynamic memory of another one of its cluster.
bool Machine::is_shared(const void* p) const {
  const auto lies_in = [byte = static_cast<const unsigned char*>(p)](const unsigned char* begin, size_t bytes) {
    return std::less_equal<>()(begin, byte) && std::less<>()(byte, begin + bytes);
  };
  return std::any_of(blocks_.begin(), blocks_.end(),
                     [&](const auto& block) {
                       return block->dynamic_shared && lies_in(block->dynamic_shared.get(), launch_->shared_bytes);
                     }) ||
         std::any_of(shared_variables_.begin(), shared_variables_.end(),
                     [&](const SharedVariable& variable) { return lies_in(variable.address, variable.bytes); });
}

const void* Machine::in_block(const void* p, unsigned rank) {
  const unsigned char* base = block_->dynamic_shared.get();
  const auto offset = static_cast<size_t>(static_cast<const unsigned char*>(p) - base);
  if (rank >= launch_->cluster) {
    set_error("in_block: block " + std::to_string(rank) + " of a cluster of " + std::to_string(launch_->cluster));
  } else if (offset > launch_->shared_bytes) {
    set_error("in_block: the address lies outside dynamic shared memory");
  } else if (blocks_[rank]->returned == n_) {
    set_error("in_block: block " + std::to_string(rank) + " of the cluster has returned");
  } else {
    return blocks_[rank]->dynamic_shared.get() + offset;
  }
  die();
}

std::string Machine::where_is(unsigned t) const {
  const Thread& thread = block_->threads[t];
  return thread.state == State::kReturned ? "has returned"
                                          : std::string("waits at ") + thread.what + " (" + at(thread.site) + ")";
}

void Machine::report_deadlock() {
  for (unsigned t = 0; t < n_; ++t) {
    const Thread& thread = block_->threads[t];
    if (thread.state != State::kAtCollective) continue;
    const unsigned first = t / kWarp * kWarp;
    uint32_t there = 0;
    std::string elsewhere;
    for (unsigned l = 0; l < kWarp; ++l) {
      const unsigned other = first + l;
      if (!(thread.mask >> l & 1)) continue;
      if (other < n_ && block_->threads[other].state == State::kAtCollective &&
          block_->threads[other].what == thread.what && block_->threads[other].mask == thread.mask &&
          same(block_->threads[other].site, thread.site)) {
        there |= 1u << l;
      } else if (elsewhere.empty()) {
        elsewhere = "lane " + std::to_string(l) + " " + (other < n_ ? where_is(other) : "does not exist");
      }
    }
    report(std::string(thread.what) + " (" + at(thread.site) + "), warp " + std::to_string(t / kWarp) + ": the mask " +
           hex(thread.mask) + " names lanes that never arrive: " + name_lanes(thread.mask & ~there) + " (" + elsewhere +
           "); there are: " + name_lanes(there));
  }
  if (block_->at_cluster_barrier > 0) {
    unsigned waits = 0, other = 0;
    while (block_->threads[waits].state != State::kAtClusterBarrier) ++waits;
    while (block_->threads[other].state == State::kAtClusterBarrier) ++other;
    report("divergent barrier: thread " + name_of(block_->threads[waits].index) + " " + where_is(waits) + ", thread " +
           name_of(block_->threads[other].index) + " " + where_is(other));
  }
  unsigned waits = 0, gone = 0;
  while (block_->threads[waits].state != State::kAtBarrier) ++waits;
  while (block_->threads[gone].state != State::kReturned) ++gone;
  report("divergent barrier: " + std::to_string(block_->waiting) + " of " + std::to_string(n_) + " threads, such as " +
         name_of(block_->threads[waits].index) + ", wait at " + block_->threads[waits].what + " (" +
         at(block_->threads[waits].site) + "); the others, such as " + name_of(block_->threads[gone].index) +
         ", have returned");
}

// The last lane of the mask to arrive does the work for all of them.
void Machine::arrive(uint32_t mask, detail::Combine combine) {
  uint32_t& arrived = block_->arrived[current_ / kWarp];
  arrived |= 1u << (current_ % kWarp);
  if ((arrived & mask) != mask) return;
  const unsigned first = current_ / kWarp * kWarp;
  const Thread& self = current();
  for (unsigned l = 0; l < kWarp; ++l) {
    if (!(mask >> l & 1)) continue;
    const Thread& other = block_->threads[first + l];
    if (other.what != self.what || other.mask != mask || !same(other.site, self.site)) {
      set_error("lanes of warp " + std::to_string(current_ / kWarp) + " meet at different collectives: lane " +
                std::to_string(current_ % kWarp) + " " + where_is(current_) + " with mask " + hex(mask) + ", lane " +
                std::to_string(l) + " " + where_is(first + l) + " with mask " + hex(other.mask));
      die();
    }
  }
  combine(lanes(), mask);
  arrived &= ~mask;
  for (unsigned l = 0; l < kWarp; ++l) {
    if (mask >> l & 1) set_ready(first + l);
  }
}

// After an error, threads have stopped in the middle of their functions: AddressSanitizer has their frames still.
void Machine::forget_stacks() {
#if PYREID_SHIM_ASAN
  for (const auto& block : blocks_) {
    for (void* stack : block->stacks) __asan_unpoison_memory_region(stack, kStackBytes);
  }
#endif
}

void Machine::run(const detail::Launch& launch, void (*body)(const void*), const void* context) {
  if (running_) throw std::runtime_error("shim: a kernel launches a kernel");
  check(launch);
  launch_ = &launch;
  body_ = body;
  body_context_ = context;
  n_ = launch.block.x * launch.block.y * launch.block.z;
  gridDim = launch.grid;
  blockDim = launch.block;
  if (!error_.empty()) forget_stacks();
  error_.clear();
  random_ = Random(seed);
  while (blocks_.size() < launch.cluster) blocks_.push_back(std::make_unique<Block>());
  for (const auto& block : blocks_) {
    block->dynamic_shared.reset(static_cast<unsigned char*>(std::malloc(launch.shared_bytes + kGuardBytes)));
  }
  running_ = true;
  struct Stop {
    bool& running;
    ~Stop() { running = false; }
  } stop{running_};

  const dim3 grid = launch.grid;
  const uint64_t clusters = uint64_t{grid.x} * grid.y * grid.z / launch.cluster;
  std::vector<uint64_t> order;
  if (seed >= 2) {
    order.resize(clusters);
    std::iota(order.begin(), order.end(), uint64_t{0});
    random_.shuffle(order);
  }
  for (uint64_t c = 0; c < clusters; ++c) run_cluster(seed == 0 ? c : seed == 1 ? clusters - 1 - c : order[c]);
}

}  // namespace

void set_schedule(uint64_t seed) { machine().seed = seed; }

bool capturing = false;

uint64_t switches() { return machine().switches; }

namespace detail {

void run(const Launch& launch, void (*body)(const void*), const void* context) { machine().run(launch, body, context); }

void barrier(const char* what, Site site) {
  Machine& m = machine();
  m.require_running(what);
  m.stop(State::kAtBarrier, what, site);
  m.let_others_run();
}

void cluster_barrier(Site site) {
  Machine& m = machine();
  m.require_running("cluster_barrier");
  m.stop(State::kAtClusterBarrier, "cluster_barrier", site);
  m.let_others_run();
}

void require_global(const char* what, const void* p, Site site) {
  machine().require_running(what);
  if (!machine().is_shared(p)) return;
  machine().set_error(std::string(what) + " (" + at(site) + ") of shared memory: it is for global memory alone");
  machine().die();
}

const void* in_block(const void* p, unsigned rank) {
  machine().require_running("in_block");
  return machine().in_block(p, rank);
}

int count_at_barrier(const char* what, bool predicate, Site site) {
  Machine& m = machine();
  m.require_running(what);
  int& count = m.predicates(m.phase() % 2);
  count += predicate;
  barrier(what, site);
  return count;
}

uint64_t collective(const char* what, uint32_t mask, uint64_t value, unsigned source, Combine combine, Site site) {
  Machine& m = machine();
  m.require_running(what);
  m.stop(State::kAtCollective, what, site);
  m.current().mask = mask;
  const unsigned l = m.current_index() % kWarp;
  if (!(mask >> l & 1)) {
    m.set_error(std::string(what) + " (" + at(site) + "): lane " + std::to_string(l) + " calls with the mask " +
                hex(mask) + ", which does not name it");
    m.die();
  }
  Lane& lane = m.lanes()[l];
  lane.value = value;
  lane.source = source;
  m.arrive(mask, combine);
  m.let_others_run();
  return lane.result;
}

void combine_shuffle(Lane* lanes, uint32_t mask) {
  for (unsigned l = 0; l < kWarp; ++l) {
    if (!(mask >> l & 1)) continue;
    if (!(mask >> lanes[l].source & 1)) {
      Machine& m = machine();
      m.set_error(std::string(m.current().what) + " (" + at(m.current().site) + "): lane " + std::to_string(l) +
                  " reads lane " + std::to_string(lanes[l].source) + ", which the mask " + hex(mask) +
                  " does not name");
      m.die();
    }
    lanes[l].result = lanes[lanes[l].source].value;
  }
}

void combine_ballot(Lane* lanes, uint32_t mask) {
  uint64_t ballot = 0;
  for (unsigned l = 0; l < kWarp; ++l) {
    if (mask >> l & 1) ballot |= (lanes[l].value & 1) << l;
  }
  for (unsigned l = 0; l < kWarp; ++l) {
    if (mask >> l & 1) lanes[l].result = ballot;
  }
}

void combine_nothing(Lane*, uint32_t) {}

void fail(const char* message) {
  machine().set_error(message);
  machine().die();
}

unsigned lane() { return machine().current_index() % kWarp; }

unsigned char* dynamic_shared() { return machine().dynamic_shared(); }

void allow_dynamic_shared(const void* kernel, size_t bytes) { machine().allowed_dynamic_shared[kernel] = bytes; }

}  // namespace detail
}  // namespace pyreid::shim

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    default:
      return "invalid argument";
  }
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = pyreid::shim::kMultiprocessors;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
      *value = 8;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = 0;
      return cudaSuccess;
    case cudaDevAttrClusterLaunch:
      *value = 0;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *value = static_cast<int>(pyreid::shim::kSharedBytes);
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = static_cast<int>(pyreid::shim::kSharedBytesOptin);
      return cudaSuccess;
  }
  return cudaErrorInvalidValue;
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (value < 0 || static_cast<size_t>(value) > pyreid::shim::kSharedBytesOptin) return cudaErrorInvalidValue;
  pyreid::shim::detail::allow_dynamic_shared(kernel, static_cast<size_t>(value));
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* destination, int value, size_t bytes, cudaStream_t) {
  if (bytes > 0) std::memset(destination, value, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* destination, const void* source, size_t bytes, cudaMemcpyKind, cudaStream_t) {
  if (bytes > 0) std::memcpy(destination, source, bytes);
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }

cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
  *status = pyreid::shim::capturing ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}

cudaError_t cudaStreamGetId(cudaStream_t stream, unsigned long long* id) {
  *id = reinterpret_cast<uintptr_t>(stream);
  return cudaSuccess;
}
