#include "cpp_tests/shim/shim.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdio>
#include <cstdlib>
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
constexpr size_t kSharedBytes = 48 * 1024;        // what a kernel may have without asking
constexpr size_t kSharedBytesOptin = 227 * 1024;  // and with cudaFuncSetAttribute
constexpr int kMultiprocessors = 4;
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

enum class State { kReady, kAtBarrier, kAtCollective, kReturned };

struct Thread {
  Context context;
  State state = State::kReady;
  uint3 index{};
  unsigned rank = 0;  // its place in the order of running
  const char* what = "";
  Site site{};
  uint32_t mask = 0;
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
  Machine() : shared_variables_(shared_variables()) {
    // Guard pages below each stack turn an overflow into a crash at once.
    const size_t slot = kStackBytes + kPageBytes;
    void* stacks =
        mmap(nullptr, kMaxThreads * slot, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stacks == MAP_FAILED) throw std::runtime_error("shim: no memory for the stacks");
    for (unsigned t = 0; t < kMaxThreads; ++t) {
      char* base = static_cast<char*>(stacks) + t * slot;
      mprotect(base, kPageBytes, PROT_NONE);
      stacks_[t] = base + kPageBytes;
    }
  }

  void run(const detail::Launch& launch, void (*body)(const void*), const void* context);

  Thread& current() { return threads_[current_]; }
  unsigned current_index() const { return current_; }
  detail::Lane* lanes() { return lanes_[current_ / kWarp].data(); }
  unsigned char* dynamic_shared() { return dynamic_shared_.get(); }
  int& predicates(unsigned parity) { return predicates_[parity]; }
  unsigned phase() const { return phase_; }

  // Called by the running thread: it stops, does what others need of it, and lets them run.
  void stop(State state, const char* what, Site site) {
    current().state = state;
    current().what = what;
    current().site = site;
    ready_[current().rank / 64] &= ~(uint64_t{1} << (current().rank % 64));
    waiting_ += state == State::kAtBarrier;
    returned_ += state == State::kReturned;
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
  void run_block();
  void fill_shared();
  void draw_order();
  void set_ready(unsigned t) {
    threads_[t].state = State::kReady;
    ready_[threads_[t].rank / 64] |= uint64_t{1} << (threads_[t].rank % 64);
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
  std::array<void*, kMaxThreads> stacks_{};
  std::array<Thread, kMaxThreads> threads_;
  std::array<std::array<detail::Lane, kWarp>, kMaxWarps> lanes_;
  std::array<uint32_t, kMaxWarps> arrived_{};  // lanes that wait at a collective
  std::array<unsigned, kMaxThreads> thread_at_rank_{};
  std::array<uint64_t, kMaxThreads / 64> ready_{};  // bit per rank
  Context scheduler_;
  Random random_{0};
  unsigned n_ = 0, current_ = 0, waiting_ = 0, returned_ = 0, phase_ = 0;
  std::array<int, 2> predicates_{};
  std::string error_;
  struct Free {
    void operator()(unsigned char* p) const { std::free(p); }
  };
  std::unique_ptr<unsigned char, Free> dynamic_shared_;
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
  std::memset(dynamic_shared_.get(), static_cast<int>(pattern()), launch_->shared_bytes);
  std::memset(dynamic_shared_.get() + launch_->shared_bytes, kGuard, kGuardBytes);
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
    thread_at_rank_[rank] = order[rank];
    threads_[order[rank]].rank = rank;
  }
}

// The thread of the lowest rank that can run does so until it waits or returns.
bool Machine::run_first_ready() {
  for (size_t word = 0; word < ready_.size(); ++word) {
    if (ready_[word] == 0) continue;
    current_ = thread_at_rank_[word * 64 + static_cast<size_t>(std::countr_zero(ready_[word]))];
    threadIdx = current().index;
    ++switches;
    scheduler_.switch_to(current().context);
    if (!error_.empty()) report(error_);
    return true;
  }
  return false;
}

void Machine::release_barrier() {
  const Thread& first = threads_[0];
  for (unsigned t = 1; t < n_; ++t) {
    const Thread& other = threads_[t];
    if (other.what != first.what || !same(other.site, first.site)) {
      report("divergent barrier: thread " + name_of(first.index) + " " + where_is(0) + ", thread " +
             name_of(other.index) + " " + where_is(t));
    }
  }
  waiting_ = 0;
  predicates_[++phase_ % 2] = 0;  // the next barrier counts here while threads still read this one's
  draw_order();
  for (unsigned t = 0; t < n_; ++t) set_ready(t);
}

void Machine::run_block() {
  fill_shared();
  waiting_ = returned_ = phase_ = 0;
  predicates_ = {0, 0};
  ready_ = {};
  arrived_ = {};
  draw_order();
  const dim3 block = launch_->block;
  for (unsigned t = 0; t < n_; ++t) {
    threads_[t].index = {t % block.x, t / block.x % block.y, t / (block.x * block.y)};
    threads_[t].context.prepare(entry, stacks_[t], kStackBytes);
    set_ready(t);
  }
  for (;;) {
    while (run_first_ready()) {
    }
    if (returned_ == n_) break;
    if (waiting_ != n_) report_deadlock();
    release_barrier();
  }
  for (size_t byte = 0; byte < kGuardBytes; ++byte) {
    if (dynamic_shared_.get()[launch_->shared_bytes + byte] != kGuard) {
      report("stored at byte " + std::to_string(launch_->shared_bytes + byte) + " of the " +
             std::to_string(launch_->shared_bytes) + " bytes of dynamic shared memory");
    }
  }
}

std::string Machine::where_is(unsigned t) const {
  const Thread& thread = threads_[t];
  return thread.state == State::kReturned ? "has returned"
                                          : std::string("waits at ") + thread.what + " (" + at(thread.site) + ")";
}

void Machine::report_deadlock() {
  for (unsigned t = 0; t < n_; ++t) {
    const Thread& thread = threads_[t];
    if (thread.state != State::kAtCollective) continue;
    const unsigned first = t / kWarp * kWarp;
    uint32_t there = 0;
    std::string elsewhere;
    for (unsigned l = 0; l < kWarp; ++l) {
      const unsigned other = first + l;
      if (!(thread.mask >> l & 1)) continue;
      if (other < n_ && threads_[other].state == State::kAtCollective && threads_[other].what == thread.what &&
          threads_[other].mask == thread.mask && same(threads_[other].site, thread.site)) {
        there |= 1u << l;
      } else if (elsewhere.empty()) {
        elsewhere = "lane " + std::to_string(l) + " " + (other < n_ ? where_is(other) : "does not exist");
      }
    }
    report(std::string(thread.what) + " (" + at(thread.site) + "), warp " + std::to_string(t / kWarp) + ": the mask " +
           hex(thread.mask) + " names lanes that never arrive: " + name_lanes(thread.mask & ~there) + " (" + elsewhere +
           "); there are: " + name_lanes(there));
  }
  unsigned waits = 0, gone = 0;
  while (threads_[waits].state != State::kAtBarrier) ++waits;
  while (threads_[gone].state != State::kReturned) ++gone;
  report("divergent barrier: " + std::to_string(waiting_) + " of " + std::to_string(n_) + " threads, such as " +
         name_of(threads_[waits].index) + ", wait at " + threads_[waits].what + " (" + at(threads_[waits].site) +
         "); the others, such as " + name_of(threads_[gone].index) + ", have returned");
}

// The last lane of the mask to arrive does the work for all of them.
void Machine::arrive(uint32_t mask, detail::Combine combine) {
  uint32_t& arrived = arrived_[current_ / kWarp];
  arrived |= 1u << (current_ % kWarp);
  if ((arrived & mask) != mask) return;
  const unsigned first = current_ / kWarp * kWarp;
  const Thread& self = current();
  for (unsigned l = 0; l < kWarp; ++l) {
    if (!(mask >> l & 1)) continue;
    const Thread& other = threads_[first + l];
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
  for (void* stack : stacks_) __asan_unpoison_memory_region(stack, kStackBytes);
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
  dynamic_shared_.reset(static_cast<unsigned char*>(std::malloc(launch.shared_bytes + kGuardBytes)));
  running_ = true;
  struct Stop {
    bool& running;
    ~Stop() { running = false; }
  } stop{running_};

  const dim3 grid = launch.grid;
  const uint64_t blocks = uint64_t{grid.x} * grid.y * grid.z;
  std::vector<uint64_t> order;
  if (seed >= 2) {
    order.resize(blocks);
    std::iota(order.begin(), order.end(), uint64_t{0});
    random_.shuffle(order);
  }
  for (uint64_t b = 0; b < blocks; ++b) {
    const uint64_t block = seed == 0 ? b : seed == 1 ? blocks - 1 - b : order[b];
    blockIdx = {static_cast<unsigned>(block % grid.x), static_cast<unsigned>(block / grid.x % grid.y),
                static_cast<unsigned>(block / grid.x / grid.y)};
    run_block();
  }
}

}  // namespace

void set_schedule(uint64_t seed) { machine().seed = seed; }

uint64_t switches() { return machine().switches; }

namespace detail {

void run(const Launch& launch, void (*body)(const void*), const void* context) { machine().run(launch, body, context); }

void barrier(const char* what, Site site) {
  Machine& m = machine();
  m.require_running(what);
  m.stop(State::kAtBarrier, what, site);
  m.let_others_run();
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
