"""Every operator on a CUDA device: against the CPU in float64, repeated, on side streams, in CUDA graphs, compiled."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from python_tests.ops.checks import DEVICES, assert_close, exact_convolutions
from python_tests.ops.device_cases import CASES, Case, Inputs, evaluate, results

gpu = pytest.mark.gpu
ALL = pytest.mark.parametrize("case", CASES, ids=str)
# those whose kernels differ most: compilation takes seconds
COMPILED_NAMES = (
    "batch_hard_triplet 72x256",
    "batch_soft_triplet 72x256",
    "batch_hard_triplet 600x",
    "gem_pool 3x5x16x8 c",
    "masked_mix 2x5x9x7 shared mask",
    "spatial_gate 2x3x16x16",
    "pairwise_distance 40x37x65 euclidean",
)
COMPILED = [case for case in CASES if case.name.startswith(COMPILED_NAMES)]
CAPTURABLE = pytest.mark.parametrize("case", [case for case in CASES if case.capturable], ids=str)


@pytest.fixture(autouse=True)
def _exact_convolutions() -> Iterator[None]:
    with exact_convolutions():
        yield


def same_bits(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("case", "dtype"), [pytest.param(c, t, id=f"{c}-{t}") for c in CASES for t in c.dtypes])
def test_against_the_cpu_in_float64(case: Case, dtype: torch.dtype, device: str) -> None:
    inputs = case.inputs(dtype)
    expected = results(case, tuple(t.double() if t.is_floating_point() else t for t in inputs))
    actual = results(case, tuple(t.to(device) for t in inputs))
    for got, wanted in zip(actual, expected, strict=True):
        if got.is_floating_point():
            assert_close(got, wanted, got.dtype, case.scale)
        else:
            assert torch.equal(got.cpu(), wanted)


@gpu
@ALL
def test_second_call_has_the_same_bits(case: Case) -> None:
    inputs = case.inputs(torch.float32, device="cuda")
    first = results(case, inputs)
    assert all(same_bits(results(case, inputs), first) for _ in range(3))


@gpu
@ALL
def test_side_streams(case: Case) -> None:
    """Two streams at once, with different inputs, while the default stream is busy: nothing is shared between calls."""
    problems = [case.inputs(torch.float32, seed=seed, device="cuda") for seed in (1, 2)]
    expected = [results(case, inputs) for inputs in problems]
    streams = [torch.cuda.Stream() for _ in problems]
    torch.cuda.synchronize()
    busy = torch.ones(2048, 2048, device="cuda")
    actual: list[list[list[Tensor]]] = [[], []]
    for _ in range(5):
        busy = busy @ busy / 2048
        for stream, inputs, collected in zip(streams, problems, actual, strict=True):
            with torch.cuda.stream(stream):
                collected.append(results(case, inputs))
    torch.cuda.synchronize()
    for collected, wanted in zip(actual, expected, strict=True):
        assert all(same_bits(got, wanted) for got in collected)


def _leaves(inputs: Inputs) -> list[Tensor]:
    return [t.clone().requires_grad_(t.is_floating_point()) for t in inputs]


@gpu
@CAPTURABLE
def test_cuda_graph_replays_with_new_inputs(case: Case) -> None:
    static = _leaves(case.inputs(torch.float32, seed=1, device="cuda"))
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # libraries allocate their workspaces outside the capture
        for _ in range(3):
            evaluate(case, static)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = evaluate(case, static)
    for seed in (2, 3, 4):
        fresh = case.inputs(torch.float32, seed=seed, device="cuda")
        with torch.no_grad():
            for held, new in zip(static, fresh, strict=True):
                held.copy_(new)
        graph.replay()
        torch.cuda.synchronize()
        assert same_bits(captured, results(case, fresh))


@gpu
@CAPTURABLE
def test_no_wait_for_the_device(case: Case) -> None:
    leaves = _leaves(case.inputs(torch.float32, device="cuda"))
    evaluate(case, leaves)
    torch.cuda.set_sync_debug_mode("error")
    try:
        evaluate(case, leaves)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@gpu
@pytest.mark.parametrize("case", COMPILED, ids=str)
def test_compiled_with_cuda_graphs(case: Case) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(case.run, fullgraph=True, mode="reduce-overhead")
    compiled_case = Case(case.name, case.make, compiled, case.scale)
    for seed in (1, 2, 3):  # warm-up, recording, replay
        inputs = case.inputs(torch.float32, seed=seed, device="cuda")
        torch.compiler.cudagraph_mark_step_begin()
        got = [t.clone() for t in results(compiled_case, inputs)]
        for a, b in zip(got, results(case, inputs), strict=True):
            if a.is_floating_point():
                assert_close(a, b, torch.float32, case.scale)
            else:
                assert torch.equal(a, b)
