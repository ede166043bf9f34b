"""Measurements of pyreid against its peers; run one with ``python -m benchmarks.bench_<name>``."""
