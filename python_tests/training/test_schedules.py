"""The learning rate over the epochs against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from pyreid.training.optimizers import make_optimizer, set_beta1
from pyreid.training.schedules import cosine, linear_warmup, make_schedule, multi_step, step
from pyreid.training.settings.optimizer import AdamSettings, AdamWSettings, LateBeta1, RMSpropSettings, SGDSettings
from pyreid.training.settings.schedule import (
    CosineDecay,
    CycleSettings,
    ExponentialDecay,
    MultiStepDecay,
    ScheduleSettings,
    StepDecay,
    WarmupSettings,
)


def test_linear_warmup_goes_from_a_tenth_to_one_over_ten_epochs() -> None:
    # SAFR, Sect. 5.1: 0.1 lr at epoch 0, lr at epoch 10.
    expected = [0.1, 0.19, 0.28, 0.37, 0.46, 0.55, 0.64, 0.73, 0.82, 0.91, 1.0, 1.0]
    assert [linear_warmup(epoch, epochs=10, start=0.1) for epoch in range(12)] == pytest.approx(expected, abs=1e-15)
    assert linear_warmup(0.5, epochs=10, start=0.1) == pytest.approx(0.145)


def test_multi_step_drops_at_each_milestone() -> None:
    values = [multi_step(epoch, milestones=(20, 40), gamma=0.1) for epoch in (0, 19, 20, 39, 40, 60)]
    assert values == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_step_drops_after_every_period() -> None:
    values = [step(epoch, every=15, gamma=0.8) for epoch in (0, 14, 15, 29, 30)]
    assert values == pytest.approx([1, 1, 0.8, 0.8, 0.64])


def test_cosine_ends_at_its_floor() -> None:
    values = [cosine(epoch, epochs=4, floor=0.2) for epoch in (0, 1, 2, 3, 4, 9)]
    half = 0.4 * math.sqrt(2)
    assert values == pytest.approx([1.0, 0.6 + half * 0.5 * 1.0, 0.6, 0.6 - half * 0.5, 0.2, 0.2])


def test_warmup_times_multi_step_keeps_milestones_absolute() -> None:
    settings = ScheduleSettings(
        warmup=WarmupSettings(epochs=10, start=0.1), decay=MultiStepDecay(type="multi_step", milestones=(5, 40))
    )
    factor = make_schedule(settings, lr=1.0, epochs=60)
    assert [factor(e) for e in (0, 4, 5, 10, 39, 40)] == pytest.approx([0.1, 0.46, 0.055, 0.1, 0.1, 0.01])


def test_step_and_cosine_begin_when_the_warmup_ends() -> None:
    warmup = WarmupSettings(epochs=10, start=0.1)
    steps = make_schedule(
        ScheduleSettings(warmup=warmup, decay=StepDecay(type="step", every=15, gamma=0.8)), lr=1e-4, epochs=36
    )
    assert [steps(e) for e in (0, 9, 10, 24, 25)] == pytest.approx([0.1, 0.91, 1.0, 1.0, 0.8])
    curve = make_schedule(
        ScheduleSettings(warmup=warmup, decay=CosineDecay(type="cosine", min_lr=1e-6)), lr=1e-4, epochs=50
    )
    assert [curve(e) for e in (0, 10, 30, 50)] == pytest.approx([0.1, 1.0, 0.505, 0.01])


def test_no_warmup_and_constant_is_one() -> None:
    factor = make_schedule(ScheduleSettings(), lr=0.1, epochs=5)
    assert [factor(e) for e in range(6)] == [1.0] * 6


def test_make_optimizer_passes_every_setting() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    sgd = make_optimizer([parameter], SGDSettings(type="sgd", lr=0.1, momentum=0.8, weight_decay=0.01, nesterov=True))
    group = sgd.param_groups[0]
    assert isinstance(sgd, torch.optim.SGD)
    assert (group["lr"], group["momentum"], group["weight_decay"], group["nesterov"]) == (0.1, 0.8, 0.01, True)
    adamw = make_optimizer([parameter], AdamWSettings(type="adamw", lr=0.2, weight_decay=0.3, betas=(0.5, 0.6)))
    group = adamw.param_groups[0]
    assert isinstance(adamw, torch.optim.AdamW)
    assert (group["lr"], group["weight_decay"], group["betas"]) == (0.2, 0.3, (0.5, 0.6))


def test_adam_and_rmsprop_take_their_settings() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    adam = make_optimizer([parameter], AdamSettings(type="adam", lr=0.2, amsgrad=True))
    assert isinstance(adam, torch.optim.Adam)
    assert adam.param_groups[0]["amsgrad"] is True
    rmsprop = make_optimizer([parameter], RMSpropSettings(type="rmsprop", lr=0.2, alpha=0.9, momentum=0.5))
    assert isinstance(rmsprop, torch.optim.RMSprop)
    assert (rmsprop.param_groups[0]["alpha"], rmsprop.param_groups[0]["momentum"]) == (0.9, 0.5)


def test_beta1_changes_late() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    settings = AdamSettings(type="adam", lr=0.2, late_beta1=LateBeta1(epoch=2.5))
    optimizer = make_optimizer([parameter], settings)
    seen = []
    for epoch in (0, 2.4, 2.5, 7, 1):
        set_beta1(optimizer, settings, epoch)
        seen.append(optimizer.param_groups[0]["betas"])
    assert seen == [(0.9, 0.999)] * 2 + [(0.5, 0.999)] * 2 + [(0.9, 0.999)]
    sgd = SGDSettings(type="sgd", lr=0.1)
    set_beta1(make_optimizer([parameter], sgd), sgd, 9)


def test_learning_rates_of_dare() -> None:
    # 60,000 iterations, here 60 epochs of 1,000 (DaRe, eq. 4)
    settings = ScheduleSettings(decay=ExponentialDecay(type="exponential", start=30, final=0.001), interval="iteration")
    factor = make_schedule(settings, lr=3e-4, epochs=60)
    golden = {0: 3e-4, 30: 3e-4, 45: 9.4868e-6, 60: 3e-7, 70: 3e-7}
    assert {e: 3e-4 * factor(e) for e in golden} == pytest.approx(golden, rel=1e-4)


def test_learning_rates_of_compact_reid() -> None:
    # Compact-ReID, eq. 5, whose epochs count from 1; then 15 cycles of 35 epochs
    cycles = CycleSettings(begin=350, lr=3e-2)
    assert cycles.end == 875
    settings = ScheduleSettings(
        warmup=WarmupSettings(epochs=9, start=0.1),
        decay=MultiStepDecay(type="multi_step", milestones=(150, 225)),
        cycles=cycles,
    )
    factor = make_schedule(settings, lr=3e-2, epochs=875)
    golden = {1: 0.003, 5: 0.015, 10: 0.03, 150: 0.03, 151: 0.003, 225: 0.003, 226: 0.0003, 350: 0.0003}
    assert {t: 3e-2 * factor(t - 1) for t in golden} == pytest.approx(golden, rel=1e-6)
    peaks = {0: 0.03, 1: 0.021, 5: 0.005042, 10: 0.000847, 14: 0.000203}
    assert {c: 3e-2 * factor(350 + 35 * c) for c in peaks} == pytest.approx(peaks, rel=1e-2)
    middle = 350 + 35 * 2 + 17.5
    assert 3e-2 * factor(middle) == pytest.approx(0.5 * 3e-2 * 0.7**2)
    assert factor(875) == 0
