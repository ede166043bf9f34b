"""Times pyreid's operators against plain PyTorch and the peers that are installed; installed as ``pyreid.benchmarks``.

Every module ``bench_<name>`` has ``measure(device, repeats) -> rows`` and its usual ``REPEATS``, and runs by itself:
``python -m benchmarks.bench_<name>``. ``pyreid bench`` runs them all.
"""

from __future__ import annotations

import pkgutil

NAMES = tuple(
    module.name.removeprefix("bench_")
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name)
    if module.name.startswith("bench_")
)
