// Switching between stacks. On x86-64 that is a dozen instructions of our own; elsewhere (or with PYREID_SHIM_UCONTEXT)
// swapcontext, which makes two system calls each time. AddressSanitizer is told which stack it is on.
#pragma once
#include <cstddef>
#include <cstdint>

// Whether kernels are compiled with AddressSanitizer; this file itself need not be.
#ifndef PYREID_SHIM_ASAN
#if defined(__SANITIZE_ADDRESS__)
#define PYREID_SHIM_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define PYREID_SHIM_ASAN 1
#endif
#endif
#endif
#ifndef PYREID_SHIM_ASAN
#define PYREID_SHIM_ASAN 0
#endif
#if PYREID_SHIM_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(__x86_64__) && !defined(PYREID_SHIM_UCONTEXT)
#define PYREID_SHIM_UCONTEXT
#endif

#ifdef PYREID_SHIM_UCONTEXT
#include <ucontext.h>
#else
// Saves the registers that a call preserves and the stack pointer in *from, and goes on where `to` was saved.
extern "C" void pyreid_shim_switch(void** from, void* to);
asm(R"(
.pushsection .text
.type pyreid_shim_switch, @function
pyreid_shim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size pyreid_shim_switch, . - pyreid_shim_switch
.popsection
)");
#endif

namespace pyreid::shim {

class Context {
 public:
  // The next switch to this context calls entry(), which must not return, on [stack, stack + bytes).
  void prepare(void (*entry)(), void* stack, size_t bytes) {
    stack_ = stack;
    bytes_ = bytes;
#ifdef PYREID_SHIM_UCONTEXT
    getcontext(&saved_);
    saved_.uc_stack.ss_sp = stack;
    saved_.uc_stack.ss_size = bytes;
    saved_.uc_link = nullptr;
    makecontext(&saved_, entry, 0);
#else
    void** top = reinterpret_cast<void**>(static_cast<char*>(stack) + bytes - 16);
    *--top = nullptr;  // no caller: entry() starts with the stack aligned as after a call
    *--top = reinterpret_cast<void*>(entry);
    for (int preserved = 0; preserved < 6; ++preserved) *--top = nullptr;
    saved_ = top;
#endif
  }

  // Leaves this context, which is the running one, for another. `dying`: never to come back.
  void switch_to(Context& other, [[maybe_unused]] bool dying = false) {
#if PYREID_SHIM_ASAN
    __sanitizer_start_switch_fiber(dying ? nullptr : &fake_stack_, other.stack_, other.bytes_);
#endif
#ifdef PYREID_SHIM_UCONTEXT
    swapcontext(&saved_, &other.saved_);
#else
    pyreid_shim_switch(&saved_, other.saved_);
#endif
    arrived(nullptr);
  }

  // Every entry() calls this first; `from` learns the stack it was left on (the program's own, at its first switch).
  void arrived([[maybe_unused]] Context* from) {
#if PYREID_SHIM_ASAN
    const void* stack = nullptr;
    size_t bytes = 0;
    __sanitizer_finish_switch_fiber(fake_stack_, &stack, &bytes);
    fake_stack_ = nullptr;
    if (from) {
      from->stack_ = stack;
      from->bytes_ = bytes;
    }
#endif
  }

 private:
#ifdef PYREID_SHIM_UCONTEXT
  ucontext_t saved_{};
#else
  void* saved_ = nullptr;
#endif
  const void* stack_ = nullptr;
  size_t bytes_ = 0;
  [[maybe_unused]] void* fake_stack_ = nullptr;
};

}  // namespace pyreid::shim
