"""batch_hard_triplet and batch_soft_triplet on a GPU: every path, CUDA graphs, streams, launches and memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from pyreid.ops import reference
from python_tests.ops.checks import assert_close
from python_tests.ops.triplets import KINDS, triplet

pytestmark = pytest.mark.gpu

SMALL, LARGE = 72, 300  # rows of a batch in one launch, and of one on a matrix product


def identities(b: int) -> Tensor:
    """Labels of which the last occurs once."""
    labels = torch.arange(b) // 4
    labels[-1] = -1
    return labels


def grid(b: int, d: int) -> Tensor:
    """Embeddings of small whole numbers: squared distances are exact, so that no rounding decides what is mined."""
    return torch.randint(-8, 9, (b, d)).float()


def step(kind: str, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The soft-margin loss of ``x`` and its gradient."""
    x = x.detach().requires_grad_()
    loss = triplet(kind)(x, labels, margin=None)
    return loss.detach(), torch.autograd.grad(loss, x)[0]


def same(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(s, t) for s, t in zip(a, b, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("b", "d"), [(2, 1), (33, 5), (72, 2048), (255, 256), (256, 257), (257, 33), (600, 130), (1025, 512), (4096, 64)]
)
def test_equals_float64_on_the_cpu(kind: str, b: int, d: int) -> None:
    x, labels = grid(b, d), identities(b)
    loss, grad = step(kind, x.cuda(), labels.cuda())
    exact = x.double().requires_grad_()
    expected = triplet(kind, reference)(exact, labels, margin=None)
    (expected_grad,) = torch.autograd.grad(expected, exact)
    # two distances of at most 16 sqrt(d); a softmax weight has the absolute error of a distance as its relative one
    scale = 1 + 32 * d**0.5
    assert_close(loss, expected, torch.float32, scale=scale)
    assert_close(grad, expected_grad, torch.float32, scale=scale)
    # up to 725 * 2^-24 is lost of a distance, a few times that of a weight
    assert (grad.double().cpu() - expected_grad).norm() <= 1e-3 * expected_grad.norm()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("b", [SMALL, LARGE])
def test_near_duplicates_keep_their_digits(kind: str, b: int) -> None:
    # distances of about 0.01 and 10, far from the origin: products alone would have no correct digit of the former
    labels = torch.arange(b) % 3
    x = (torch.randn(b // 3, 64) + 100).repeat_interleave(3, 0) + 1e-3 * torch.randn(b, 64)
    loss, grad = step(kind, x.cuda(), labels.cuda())
    exact = x.double().requires_grad_()
    expected = triplet(kind, reference)(exact, labels, margin=None)
    (expected_grad,) = torch.autograd.grad(expected, exact)
    assert_close(loss, expected, torch.float32, scale=20.0)
    assert_close(grad, expected_grad, torch.float32, scale=10.0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("b", [SMALL, LARGE])
def test_graph_is_replayed_with_other_inputs(kind: str, b: int) -> None:
    x, labels = torch.randn(b, 600, device="cuda"), identities(b).cuda()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step(kind, x, labels)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = (*step(kind, x, labels), *step(kind, x, labels))
    for _ in range(3):
        x.copy_(torch.randn_like(x))
        labels.copy_(identities(b)[torch.randperm(b)])
        expected = step(kind, x, labels)
        for _ in range(2):
            for out in captured:
                out.fill_(torch.nan)
            graph.replay()
            assert same(captured[:2], expected)
            assert same(captured[2:], expected)


@pytest.mark.parametrize("kind", KINDS)
def test_streams_and_a_replayed_graph_do_not_meet(kind: str) -> None:
    inputs = [(torch.randn(SMALL, 2048, device="cuda"), identities(SMALL).cuda()) for _ in range(3)]
    expected = [step(kind, *pair) for pair in inputs]
    streams = [torch.cuda.Stream() for _ in inputs]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=streams[0]):
        captured = step(kind, *inputs[0])
    torch.cuda.synchronize()
    outs: list[list[tuple[Tensor, ...]]] = [[], [], []]
    for _ in range(50):
        with torch.cuda.stream(streams[2]):  # beside launches on the stream it was captured on
            graph.replay()
            outs[0].append(tuple(t.clone() for t in captured))
            outs[2].append(step(kind, *inputs[2]))
        for s in (0, 1):
            with torch.cuda.stream(streams[s]):
                outs[s].append(step(kind, *inputs[s]))
    torch.cuda.synchronize()
    for results, right in zip(outs, expected, strict=True):
        assert all(same(result, right) for result in results)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("b", "d"), [(SMALL, 2048), (256, 300), (LARGE, 100), (4096, 64)])
def test_bits_repeat(kind: str, b: int, d: int) -> None:
    x, labels = torch.randn(b, d, device="cuda"), identities(b).cuda()
    first = step(kind, x, labels)
    assert all(same(step(kind, x, labels), first) for _ in range(3))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("b", [SMALL, LARGE])
def test_alignment_does_not_matter(kind: str, b: int) -> None:
    x, labels = torch.randn(b, 516, device="cuda"), identities(b).cuda()
    shifted = torch.empty(x.numel() + 1, device="cuda")[1:].view_as(x).copy_(x)
    (loss, grad), (shifted_loss, shifted_grad) = step(kind, x, labels), step(kind, shifted, labels)
    if b == SMALL:
        assert torch.equal(loss, shifted_loss)
    # two distances of about sqrt(2 * 516)
    assert_close(shifted_loss, loss, torch.float32, scale=64.0)
    assert_close(shifted_grad, grad, torch.float32, scale=64.0)


@pytest.mark.parametrize("kind", KINDS)
def test_tf32_changes_nothing(kind: str) -> None:
    x, labels = torch.randn(LARGE, 512, device="cuda") + 3, identities(LARGE).cuda()
    expected = step(kind, x, labels)
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "tf32"
    try:
        assert same(step(kind, x, labels), expected)
    finally:
        matmul.fp32_precision = before


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_one_launch_forward_and_one_backward(kind: str, reduction: str) -> None:
    x, labels = torch.randn(SMALL, 2048, device="cuda"), identities(SMALL).cuda()
    forward = getattr(torch.ops.pyreid, f"batch_{kind}_triplet")
    backward = getattr(torch.ops.pyreid, f"batch_{kind}_triplet_backward")
    loss, *saved = forward(x, labels, 0.3, reduction)
    grad = torch.ones_like(loss)
    backward(grad, x, *saved)
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as run:
        _, *saved = forward(x, labels, 0.3, reduction)
        backward(grad, x, *saved)
        torch.cuda.synchronize()
    on_device = [e.name for e in run.events() if e.device_type.name == "CUDA"]
    launched = [name for name in on_device if "kernel" in name or "Mem" in name]
    assert len(launched) == 2, launched
    for kernel in (f"small_{kind}_triplet_kernel", f"{kind}_gradient_kernel"):
        assert any(kernel in name for name in launched), launched


@pytest.mark.parametrize("kind", KINDS)
def test_large_batches_do_not_synchronise(kind: str) -> None:
    x, labels = torch.randn(LARGE, 64, device="cuda"), identities(LARGE).cuda()
    step(kind, x, labels)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(kind, x, labels)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("kind", KINDS)
def test_large_batches_take_one_matrix(kind: str) -> None:
    b = 4096
    x, labels = torch.randn(b, 64, device="cuda"), identities(b).cuda()
    step(kind, x, labels)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step(kind, x, labels)
    torch.cuda.synchronize()
    assert torch.cuda.max_memory_allocated() - before < 1.25 * 4 * b * b


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("b", [SMALL, LARGE])
def test_nan_reaches_the_loss_and_one_identity_costs_nothing(kind: str, b: int) -> None:
    x, labels = torch.randn(b, 40, device="cuda"), identities(b).cuda()
    loss, grad = step(kind, x, torch.zeros_like(labels))
    assert loss.item() == 0
    assert torch.equal(grad, torch.zeros_like(grad))
    x[b // 2, 7] = torch.nan
    loss, grad = step(kind, x, labels)
    assert loss.isnan()
    assert grad.isnan().any()


CHILD = """
import sys, torch
from pyreid import ops
torch.manual_seed(0)
out = []
for dtype in (torch.float32, torch.float64):
    for b, d in ((5, 3), (72, 2048), (150, 700), (256, 257)):
        x, labels = torch.randn(b, d, dtype=dtype).cuda().requires_grad_(), (torch.arange(b) // 4).cuda()
        for loss in (ops.batch_hard_triplet, ops.batch_soft_triplet):
            value = loss(x, labels)
            out += [value.detach().cpu(), torch.autograd.grad(value, x)[0].cpu()]
torch.save(out, sys.argv[1])
"""


def test_clusters_and_single_blocks_give_the_same_bits(tmp_path: Path) -> None:
    runs = []
    for clusters in ("1", "0"):
        path = tmp_path / f"{clusters}.pt"
        environment = {**os.environ, "PYREID_CUDA_CLUSTERS": clusters}
        subprocess.run([sys.executable, "-c", CHILD, str(path)], check=True, env=environment)
        runs.append(torch.load(path))
    assert same(*runs)
