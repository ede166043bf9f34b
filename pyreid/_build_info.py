"""What is installed and what was built, for bug reports: ``pyreid.info()``, ``python -m pyreid``, ``pyreid info``."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import torch

from pyreid import _extension
from pyreid.errors import ExtensionError

_OPTIONAL = ("torchvision", "timm", "lightning", "tensorboard", "matplotlib")


@dataclass(frozen=True, slots=True)
class BuildInfo:
    """Versions, compiled libraries and devices, as :func:`info` found them.

    Attributes:
        pyreid: version of pyreid.
        python: version of Python and the machine's architecture.
        torch: version of torch.
        built_with_torch: version of the torch whose headers the libraries were compiled with; "" if not built.
        compiler: the C++ compiler.
        cpu_library: "loaded", or why not.
        cuda_library: "loaded", or why not.
        cuda_compiler: version of nvcc, "" if the CUDA library was not built.
        cuda_architectures: what the CUDA library was compiled for.
        cpu_isa: instruction set that the CPU kernels use here: baseline, avx2 or avx512.
        threads: threads that torch uses on the CPU.
        devices: CUDA devices, with compute capability and memory.
        packages: optional packages and their versions ("not installed").
    """

    pyreid: str
    python: str
    torch: str
    built_with_torch: str
    compiler: str
    cpu_library: str
    cuda_library: str
    cuda_compiler: str
    cuda_architectures: str
    cpu_isa: str
    threads: int
    devices: tuple[str, ...]
    packages: dict[str, str]

    def __str__(self) -> str:
        rows = [
            ("pyreid", self.pyreid),
            ("python", self.python),
            ("torch", self.torch),
            ("built with", f"torch {self.built_with_torch}, {self.compiler}" if self.built_with_torch else "not built"),
            ("CPU library", self.cpu_library),
            ("CPU features", f"{self.cpu_isa}, {self.threads} threads"),
            ("CUDA library", self.cuda_library),
        ]
        if self.cuda_compiler:
            rows.append(("CUDA build", f"nvcc {self.cuda_compiler}, architectures {self.cuda_architectures}"))
        rows += [("device", device) for device in self.devices] or [("device", "no CUDA device")]
        rows += list(self.packages.items())
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _isa_note(limit: str) -> str:
    if not limit:
        return ""
    known = limit in ("baseline", "avx2", "avx512")
    return f" (PYREID_CPU_ISA={limit}" + (")" if known else " is unknown and has no effect)")


def _devices() -> tuple[str, ...]:
    if not torch.cuda.is_available():
        return ()
    found = []
    for index in range(torch.cuda.device_count()):
        p = torch.cuda.get_device_properties(index)
        found.append(f"cuda:{index} {p.name}, sm_{p.major}{p.minor}, {p.total_memory / 2**30:.1f} GiB")
    return tuple(found)


def _package_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def info() -> BuildInfo:
    """Look at this installation; never raises for a missing library, but says what is missing and what to do."""
    cuda_library = cpu_library = "loaded"
    built_with = compiler = cuda_compiler = architectures = isa = ""
    try:
        native = _extension.native()
        built_with, compiler = native.BUILD_TORCH, f"GCC/Clang {native.COMPILER}"
        cuda_compiler, architectures, isa = native.BUILD_CUDA, native.BUILD_CUDA_ARCHS, native.cpu_isa()
        _extension.load_cpu_library()
        cuda_library = _extension.load_cuda_library() or "loaded"
    except ExtensionError as error:
        cpu_library = str(error)
        cuda_library = "not loaded, because the CPU library is not"
    return BuildInfo(
        pyreid=version("pyreid"),
        python=f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        torch=torch.__version__,
        built_with_torch=built_with,
        compiler=compiler,
        cpu_library=cpu_library,
        cuda_library=cuda_library,
        cuda_compiler=cuda_compiler,
        cuda_architectures=architectures,
        cpu_isa=isa + _isa_note(os.environ.get("PYREID_CPU_ISA", "")),
        threads=torch.get_num_threads(),
        devices=_devices(),
        packages={name: _package_version(name) for name in _OPTIONAL},
    )
