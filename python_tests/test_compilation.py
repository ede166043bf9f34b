"""CUDA kernels as ptxas sees them: nothing spills, and every stack frame is known. Needs nvcc and no GPU.

A register that is spilled, or an array that is indexed at run time and so lies in local memory, makes a kernel slow
without making it wrong: no other test would see it. All files are compiled as the build compiles them, for all of its
architectures.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))

pytestmark = pytest.mark.timeout(1200)  # some hundred kernels for four architectures, beside other tests

# Kernels that may have a stack frame, as "file: kernel" without template arguments, and why.
STACK_FRAMES: dict[str, str] = {}


class Kernel(NamedTuple):
    """What ptxas reports of a kernel for one architecture."""

    name: str  # with template arguments where c++filt is installed
    architecture: str
    stack: int
    spilled: int
    registers: int


def nvcc_command() -> list[str]:
    """nvcc with the flags of the build: its architectures are those of cmake/extension.cmake."""
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if nvcc is None:
        pytest.skip("nvcc is not installed")
    cmake = (ROOT / "cmake" / "extension.cmake").read_text()
    found = re.findall(r"set\(CMAKE_CUDA_ARCHITECTURES ([\d a-z-]+)\)", cmake)
    assert len(found) == 1, "cmake/extension.cmake no longer sets the architectures in one line"
    numbers = [entry.removesuffix("-real") for entry in found[0].split()]
    assert len(numbers) > 1
    assert all(number.isdigit() for number in numbers)
    architectures = [f"--generate-code=arch=compute_{number},code=sm_{number}" for number in numbers]
    standard = re.search(r"set\(CMAKE_CUDA_STANDARD (\d+)\)", (ROOT / "CMakeLists.txt").read_text())
    assert standard is not None
    # -O3 -DNDEBUG are CMake's flags of the Release build.
    flags = ["-O3", "-DNDEBUG", f"-std=c++{standard[1]}", "-Xcompiler=-fPIC,-fvisibility=hidden", "-Xptxas=-v"]
    return [nvcc, *flags, *architectures, f"-I{ROOT}"]


def compile_kernels(source: Path, folder: Path) -> list[Kernel]:
    """The kernels of a file, on every architecture; ptxas alone runs, after the front end, and nothing is linked."""
    # nvcc compiles one architecture after the other; --threads would use processors that the other file needs.
    command = [*nvcc_command(), "--compile", "-o", str(folder / f"{source.stem}.o"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    assert done.returncode == 0, done.stderr
    return parse_report(done.stderr)


def parse_report(report: str) -> list[Kernel]:
    """Kernels in the report of ``ptxas -v``."""
    entry = re.compile(
        r"Compiling entry function '(?P<name>\w+)' for '(?P<architecture>\w+)'\n"
        r"(?:.*\n)*?\s*(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
        r"(?P<loads>\d+) bytes spill loads\n"
        r"(?:.*\n)*?.*Used (?P<registers>\d+) registers"
    )
    found = list(entry.finditer(report))
    assert len(found) == report.count("Compiling entry function"), "the report of ptxas has a form that is not known"
    names = demangle([match["name"] for match in found])
    return [
        Kernel(
            name,
            match["architecture"],
            int(match["stack"]),
            int(match["stores"]) + int(match["loads"]),
            int(match["registers"]),
        )
        for name, match in zip(names, found, strict=True)
    ]


def demangle(names: list[str]) -> list[str]:
    """C++ names without namespaces and arguments, or as they are where c++filt is not installed."""
    if shutil.which("c++filt") is None:
        return names
    done = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
    return [re.sub(r"^void (?:[\w:]+::|\(anonymous namespace\)::)*|\(.*", "", n) for n in done.stdout.splitlines()]


def complaints(source: str, kernels: list[Kernel], allowed: dict[str, str]) -> list[str]:
    """What is wrong with the kernels of a file, one line each."""
    found = []
    for kernel in kernels:
        place = f"{source}: {kernel.name} for {kernel.architecture}"
        if kernel.spilled:
            found.append(f"{place} spills {kernel.spilled} bytes with {kernel.registers} registers")
        elif kernel.stack and not any(may_have_frame(entry, source, kernel) for entry in allowed):
            found.append(f"{place} has a stack frame of {kernel.stack} bytes")
    return found


def may_have_frame(entry: str, source: str, kernel: Kernel) -> bool:
    """Whether an entry of STACK_FRAMES speaks of this kernel, by its name in whatever form."""
    file, name = entry.split(": ")
    return file == source and re.search(rf"(?<![a-z_]){name}(?![a-z_])", kernel.name) is not None


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Kernel]]:
    """Kernels of all files, the longest first, two files at a time."""
    nvcc_command()  # skips
    folder = tmp_path_factory.mktemp("kernels")
    longest_first = sorted(SOURCES, key=lambda path: -path.stat().st_size)
    with ThreadPoolExecutor(2) as pool:
        compiled = pool.map(lambda source: compile_kernels(source, folder), longest_first)
        return {source.name: kernels for source, kernels in zip(longest_first, compiled, strict=True)}


def test_no_kernel_spills_or_has_an_unknown_stack_frame(report: dict[str, list[Kernel]]) -> None:
    assert all(report.values()), "a file without kernels"
    found = [line for source, kernels in report.items() for line in complaints(source, kernels, STACK_FRAMES)]
    assert not found, "\n".join(found)


def test_list_of_stack_frames_is_up_to_date(report: dict[str, list[Kernel]]) -> None:
    stale = [
        entry
        for entry in STACK_FRAMES
        if not any(k.stack and may_have_frame(entry, source, k) for source, kernels in report.items() for k in kernels)
    ]
    assert not stale, f"no longer have a stack frame: {stale}"


def test_every_architecture_is_compiled(report: dict[str, list[Kernel]]) -> None:
    expected = {f"sm_{flag.rpartition('_')[2]}" for flag in nvcc_command() if flag.startswith("--generate-code")}
    for source, kernels in report.items():
        assert {kernel.architecture for kernel in kernels} == expected, source


SPILLING = """
// 96 values that live across a barrier, in 32 registers
__global__ void __launch_bounds__(1024, 2) spilling_kernel(float* p) {
  float held[96];
  for (int i = 0; i < 96; ++i) held[i] = p[i * 1024 + threadIdx.x];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 96; ++i) p[i * 1024 + threadIdx.x] = held[i] * held[(i * 7 + 1) % 96];
}
__global__ void framed_kernel(float* p, const int* order) {
  float held[32];
#pragma unroll
  for (int i = 0; i < 32; ++i) held[i] = p[i];
  for (int i = 0; i < 32; ++i) p[i] = held[order[i] & 31];
}
__global__ void plain_kernel(float* p) { p[threadIdx.x] += 1; }
"""


def test_checks_see_spills_and_stack_frames(tmp_path: Path) -> None:
    source = tmp_path / "spilling.cu"
    source.write_text(SPILLING)
    kernels = compile_kernels(source, tmp_path)
    expected = {f"sm_{flag.rpartition('_')[2]}" for flag in nvcc_command() if flag.startswith("--generate-code")}
    found = complaints("spilling.cu", kernels, {})
    assert len([line for line in found if "spilling_kernel" in line and "spills" in line]) == len(expected)
    assert len([line for line in found if "framed_kernel" in line and "has a stack frame" in line]) == len(expected)
    assert len(found) == 2 * len(expected)
    # A list excuses frames, of the kernel that it names, and no spills.
    excused = complaints("spilling.cu", kernels, {"spilling.cu: framed_kernel": "", "spilling.cu: spilling_kernel": ""})
    assert len(excused) == len(expected)
    assert all("spills" in line for line in excused)
    assert complaints("spilling.cu", kernels, {"other.cu: framed_kernel": "", "spilling.cu: kernel": ""}) == found
