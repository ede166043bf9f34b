"""Fused operators for training: differentiable, safe for ``torch.compile(fullgraph=True)``, on CPU and CUDA.

Every operator has a plain PyTorch twin of the same name and signature in :mod:`pyreid.ops.reference`.
"""

from __future__ import annotations

from pyreid._extension import load_cpu_library, load_cuda_library

load_cpu_library()
load_cuda_library()

from pyreid.ops import reference  # noqa: E402  (the schemas must be registered before the operators' modules)
from pyreid.ops.batch_hard_triplet import batch_hard_triplet  # noqa: E402
from pyreid.ops.batch_soft_triplet import batch_soft_triplet  # noqa: E402
from pyreid.ops.gem_pool import gem_pool  # noqa: E402
from pyreid.ops.masked_mix import masked_mix  # noqa: E402
from pyreid.ops.nearest_neighbors import nearest_neighbors  # noqa: E402
from pyreid.ops.pairwise_distance import pairwise_distance  # noqa: E402
from pyreid.ops.spatial_gate import spatial_gate  # noqa: E402

__all__ = [
    "batch_hard_triplet",
    "batch_soft_triplet",
    "gem_pool",
    "masked_mix",
    "nearest_neighbors",
    "pairwise_distance",
    "reference",
    "spatial_gate",
]
