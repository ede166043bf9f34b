# The Python extension: pyreid_cpu and pyreid_cuda over libtorch's stable ABI, and the torch-free module _native.

find_package(Python 3.10 REQUIRED COMPONENTS Interpreter Development.Module)
find_package(pybind11 CONFIG REQUIRED)

# torch is looked up by path and never imported: pip's build isolation hides it from import. find_package(Torch) would
# demand a CUDA toolkit for every CUDA torch and does not know the stable ABI.
execute_process(
  COMMAND ${Python_EXECUTABLE} -c [[
import os, runpy, sys, sysconfig
roots = [os.environ.get("PYREID_TORCH_ROOT", ""), sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *sys.path]
for root in filter(None, roots):
    torch = os.path.join(root, "torch")
    if os.path.isfile(os.path.join(torch, "include/torch/csrc/stable/library.h")):
        version = runpy.run_path(os.path.join(torch, "version.py"))
        print(torch, version["__version__"].split("+")[0], version.get("cuda") or "none", sep=";")
        break
]]
  OUTPUT_VARIABLE found OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
if(NOT found)
  message(FATAL_ERROR "torch >= 2.11 was not found beside ${Python_EXECUTABLE}. Install torch first, or name the "
                      "folder that holds it: PYREID_TORCH_ROOT=/path/to/site-packages pip install .")
endif()
list(GET found 0 PYREID_TORCH_DIR)
list(GET found 1 PYREID_TORCH_VERSION)
list(GET found 2 PYREID_TORCH_CUDA)
if(PYREID_TORCH_VERSION VERSION_LESS 2.11)
  message(FATAL_ERROR "torch ${PYREID_TORCH_VERSION} in ${PYREID_TORCH_DIR} is too old: pyreid needs 2.11 or later")
endif()
message(STATUS "torch ${PYREID_TORCH_VERSION} (CUDA ${PYREID_TORCH_CUDA}) in ${PYREID_TORCH_DIR}")

add_library(torch_stable INTERFACE)
target_include_directories(torch_stable SYSTEM INTERFACE ${PYREID_TORCH_DIR}/include)
# Hides everything that is not in the stable ABI of torch 2.11.
target_compile_definitions(torch_stable INTERFACE TORCH_TARGET_VERSION=0x020b000000000000ULL)

# A library with nothing but the SONAME stands in for one that this torch does not ship (a CUDA library built beside a
# CPU-only torch); at run time the loader takes the real one that torch has already loaded.
function(torch_library name out)
  if(EXISTS ${PYREID_TORCH_DIR}/lib/lib${name}.so)
    set(${out} ${PYREID_TORCH_DIR}/lib/lib${name}.so PARENT_SCOPE)
  else()
    if(NOT TARGET ${name}_soname)
      file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/soname.cpp "")
      add_library(${name}_soname SHARED ${CMAKE_CURRENT_BINARY_DIR}/soname.cpp)
      set_target_properties(${name}_soname PROPERTIES OUTPUT_NAME ${name})
    endif()
    set(${out} ${name}_soname PARENT_SCOPE)
  endif()
endfunction()

file(GLOB PYREID_OPS CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/csrc/ops/*.cpp)
file(GLOB PYREID_CPU_ONLY_OPS CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/csrc/ops/cpu_only/*.cpp)
file(GLOB PYREID_CUDA_ONLY_OPS CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/csrc/ops/cuda_only/*.cpp)

# csrc/ops is compiled into both libraries: for CPU tensors with the schemas, and for CUDA tensors. csrc/ops/cpu_only
# holds operators without CUDA kernels, or whose CUDA kernels are cut in another way, in csrc/ops/cuda_only.
function(add_ops_library name)
  add_library(${name} MODULE ${PYREID_OPS} ${ARGN})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  # torch loads its libraries RTLD_LOCAL: without a DT_NEEDED entry its symbols are not found.
  torch_library(torch_cpu torch_cpu)
  target_link_libraries(${name} PRIVATE torch_stable -Wl,--no-as-needed ${torch_cpu})
  set_target_properties(${name} PROPERTIES PREFIX "" SKIP_BUILD_RPATH ON)
  if(NOT TARGET torch_cuda_soname) # the stand-in defines none of the symbols that it stands for
    target_link_options(${name} PRIVATE -Wl,--no-undefined)
  endif()
  install(TARGETS ${name} LIBRARY DESTINATION pyreid/lib)
endfunction()

add_cpu_kernels(cpu_kernels)
add_ops_library(pyreid_cpu ${PYREID_CPU_ONLY_OPS})
target_link_libraries(pyreid_cpu PRIVATE cpu_kernels)

if(PYREID_CUDA STREQUAL "AUTO")
  include(CheckLanguage)
  check_language(CUDA)
  set(with_cuda OFF)
  if(CMAKE_CUDA_COMPILER AND NOT PYREID_TORCH_CUDA STREQUAL "none")
    set(with_cuda ON)
  endif()
else()
  set(with_cuda ${PYREID_CUDA})
endif()
if(with_cuda)
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    if(DEFINED ENV{CUDAARCHS})
      set(CMAKE_CUDA_ARCHITECTURES $ENV{CUDAARCHS})
    else()
      set(CMAKE_CUDA_ARCHITECTURES 80-real 90-real 100-real 120)
    endif()
  endif()
  enable_language(CUDA)
  # A static runtime cannot clash with the one that torch ships.
  set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
  file(GLOB PYREID_CUDA_SOURCES CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/csrc/cuda/*.cu)
  torch_library(torch_cuda torch_cuda)
  add_ops_library(pyreid_cuda ${PYREID_CUDA_ONLY_OPS} ${PYREID_CUDA_SOURCES})
  target_include_directories(pyreid_cuda SYSTEM PRIVATE ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
  target_compile_definitions(pyreid_cuda PRIVATE PYREID_CUDA_BACKEND USE_CUDA)
  target_link_libraries(pyreid_cuda PRIVATE ${torch_cuda})
  set(PYREID_CUDA_VERSION ${CMAKE_CUDA_COMPILER_VERSION})
  string(REPLACE ";" " " PYREID_CUDA_ARCHS "${CMAKE_CUDA_ARCHITECTURES}")
endif()
message(STATUS "CUDA library: ${with_cuda} ${PYREID_CUDA_ARCHS}")

pybind11_add_module(_native csrc/python/native.cpp)
target_include_directories(_native PRIVATE ${PROJECT_SOURCE_DIR})
target_link_libraries(_native PRIVATE cpu_kernels)
target_compile_definitions(
  _native PRIVATE "PYREID_BUILD_TORCH=\"${PYREID_TORCH_VERSION}\"" "PYREID_BUILD_CUDA=\"${PYREID_CUDA_VERSION}\""
                  "PYREID_BUILD_CUDA_ARCHS=\"${PYREID_CUDA_ARCHS}\"")
install(TARGETS _native LIBRARY DESTINATION pyreid)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/recipes DESTINATION pyreid)
