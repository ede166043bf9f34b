# The CPU kernels: csrc/cpu/*.cpp is compiled once, csrc/cpu/simd/*.cpp once for each instruction set. Which of the
# latter runs is decided at run time (csrc/cpu/isa.h). Machines other than x86-64 have the baseline alone.

file(GLOB PYREID_CPU_SOURCES CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/csrc/cpu/*.cpp)
file(GLOB PYREID_SIMD_SOURCES CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/csrc/cpu/simd/*.cpp)

set(PYREID_X86 OFF)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set(PYREID_X86 ON)
endif()

# add_cpu_kernels(<name>): an object library for each instruction set, gathered in the interface library <name>.
function(add_cpu_kernels name)
  set(isas baseline)
  if(PYREID_X86)
    list(APPEND isas avx2 avx512)
  endif()
  set(baseline_flags "")
  set(baseline_bytes 16)
  set(avx2_flags -mavx2 -mfma -mf16c)
  set(avx2_bytes 32)
  set(avx512_flags -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c -mprefer-vector-width=512)
  set(avx512_bytes 64)

  add_library(${name} INTERFACE)
  add_library(${name}_scalar OBJECT ${PYREID_CPU_SOURCES})
  target_include_directories(${name}_scalar PRIVATE ${PROJECT_SOURCE_DIR})
  target_sources(${name} INTERFACE $<TARGET_OBJECTS:${name}_scalar>)
  foreach(isa IN LISTS isas)
    add_library(${name}_${isa} OBJECT ${PYREID_SIMD_SOURCES})
    target_include_directories(${name}_${isa} PRIVATE ${PROJECT_SOURCE_DIR})
    target_compile_definitions(${name}_${isa} PRIVATE PYREID_ISA=${isa} PYREID_VECTOR_BYTES=${${isa}_bytes})
    # -fno-trapping-math and -fno-math-errno let loops with comparisons and square roots become vector code; neither
    # changes a result. Contraction to fused multiply-add is wanted: it rounds once instead of twice. A wide vector
    # passed between inlined functions has no ABI to differ in, hence -Wno-psabi.
    target_compile_options(${name}_${isa} PRIVATE ${${isa}_flags} -O3 -ffp-contract=fast -fno-math-errno
                                                  -fno-trapping-math -Wno-psabi -Wno-unknown-warning-option)
    target_sources(${name} INTERFACE $<TARGET_OBJECTS:${name}_${isa}>)
  endforeach()
endfunction()
