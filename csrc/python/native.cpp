// The pybind11 module `pyreid._native`: what was built, and what this CPU can run. It links nothing from torch, so it
// loads, and `python -m pyreid` reports, also where torch's libraries do not.
#include <pybind11/pybind11.h>

#include "csrc/cpu/isa.h"

namespace py = pybind11;

PYBIND11_MODULE(_native, m) {
  m.doc() = "Build facts and CPU features of pyreid.";
  m.attr("BUILD_TORCH") = PYREID_BUILD_TORCH;
  m.attr("BUILD_CUDA") = PYREID_BUILD_CUDA;
  m.attr("BUILD_CUDA_ARCHS") = PYREID_BUILD_CUDA_ARCHS;
  m.attr("COMPILER") = __VERSION__;
  m.def(
      "cpu_isa", [] { return pyreid::cpu::isa_name(pyreid::cpu::isa()); },
      "Name of the instruction set that the CPU kernels use on this machine: baseline, avx2 or avx512.");
}
