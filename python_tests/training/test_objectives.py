"""The weighted sum of losses on named outputs."""

from __future__ import annotations

import pytest
import torch

from pyreid import losses
from pyreid.errors import RecipeError
from pyreid.losses import BatchHardTripletLoss, BatchSoftTripletLoss, LabelSmoothingCrossEntropy
from pyreid.models import ModelOutput
from pyreid.training.objectives import Objective, check_names, needs_classifier, pick, term_names
from pyreid.training.settings.losses import (
    AMSoftmaxSettings,
    ArcFaceSettings,
    BatchHardTripletSettings,
    BatchSoftTripletSettings,
    CenterSettings,
    CrossEntropySettings,
    GlobPushSettings,
    LossSettings,
    LossWeighting,
    PushSettings,
    TripletSettings,
)

LABELS = torch.tensor([0, 0, 1, 1, 2, 2])


@pytest.fixture
def output() -> ModelOutput:
    torch.manual_seed(5)
    return ModelOutput({"a": torch.randn(6, 4), "b": torch.randn(6, 3)}, {"id": torch.randn(6, 3)})


def test_the_sum_has_the_weights_and_the_terms_have_not(output: ModelOutput) -> None:
    settings: list[LossSettings] = [
        CrossEntropySettings(type="cross_entropy", smoothing=0.2, weight=0.5),
        BatchHardTripletSettings(type="batch_hard_triplet", embedding="a", margin=0.7, weight=2.0),
        BatchSoftTripletSettings(type="batch_soft_triplet", embedding="b", weight=3.0),
    ]
    total, terms = Objective(settings, num_classes=3)(output, LABELS)
    expected = torch.stack(
        [
            LabelSmoothingCrossEntropy(eps=0.2)(output.logits["id"], LABELS),
            BatchHardTripletLoss(margin=0.7)(output.embeddings["a"], LABELS),
            BatchSoftTripletLoss()(output.embeddings["b"], LABELS),
        ]
    )
    torch.testing.assert_close(terms, expected)
    torch.testing.assert_close(total, 0.5 * expected[0] + 2 * expected[1] + 3 * expected[2])


def test_the_smoothing_mode_is_passed_on(output: ModelOutput) -> None:
    settings = [CrossEntropySettings(type="cross_entropy", mode="sgn")]
    total, _ = Objective(settings, num_classes=3)(output, LABELS)
    expected = LabelSmoothingCrossEntropy(mode="sgn", num_classes=3)(output.logits["id"], LABELS)
    torch.testing.assert_close(total, expected)


def test_names_are_short_and_unique() -> None:
    hard_a = BatchHardTripletSettings(type="batch_hard_triplet", embedding="a")
    hard_b = BatchHardTripletSettings(type="batch_hard_triplet", embedding="b")
    cross = CrossEntropySettings(type="cross_entropy")
    assert term_names([cross, hard_a]) == ("cross_entropy", "batch_hard_triplet")
    assert term_names([hard_a, hard_b]) == ("batch_hard_triplet_a", "batch_hard_triplet_b")
    assert term_names([cross, cross]) == ("cross_entropy_id_1", "cross_entropy_id_2")


def test_half_precision_outputs_reach_the_losses_as_float32() -> None:
    output = ModelOutput({"a": torch.zeros(2, 2, dtype=torch.bfloat16)}, {})
    assert pick(output, BatchHardTripletSettings(type="batch_hard_triplet", embedding="a")).dtype == torch.float32


def test_names_that_the_model_lacks_are_errors(output: ModelOutput) -> None:
    expected = r"'losses\.0\.embedding' is 'c', which the model does not give; expected one of a, b"
    with pytest.raises(RecipeError, match=expected):
        check_names(output, [BatchHardTripletSettings(type="batch_hard_triplet", embedding="c")], num_classes=3)
    cross = CrossEntropySettings(type="cross_entropy")
    with pytest.raises(RecipeError, match=r"'losses\.0\.logits' is 'id' with 3 classes, but the training set has 4"):
        check_names(output, [cross], num_classes=4)
    with pytest.raises(RecipeError, match="it has no logits at all"):
        check_names(ModelOutput(output.embeddings, {}), [cross], num_classes=3)


def test_every_kind_of_loss_is_made_with_its_settings(output: ModelOutput) -> None:
    cosines = ModelOutput(output.embeddings, {"id": torch.tanh(output.logits["id"])})
    settings: list[LossSettings] = [
        AMSoftmaxSettings(type="am_softmax", scale=8.0, margin=0.2),
        ArcFaceSettings(type="arcface", scale=4.0, margin=0.1),
        TripletSettings(type="triplet", embedding="a", margin=0.4, reduction="mean_nonzero"),
        CenterSettings(type="center", embedding="a", distance="cosine", weight=0.3),
        CenterSettings(type="center", embedding="b", reduction="mean", center_lr=0.1),
        PushSettings(type="push", embedding="a", margin=0.5, final_margin=None),
        PushSettings(type="push", embedding="b", smart=False, detach_centers=False),
        GlobPushSettings(type="glob_push", embedding="a", margin_steps=7),
        BatchHardTripletSettings(type="batch_hard_triplet", embedding="a", margin=0.2, reduction="sum"),
        BatchSoftTripletSettings(type="batch_soft_triplet", embedding="a", reduction="sum"),
    ]
    objective = Objective(settings, num_classes=3, widths={"a": 4, "b": 3})
    total, terms = objective(cosines, LABELS)
    center, other, push, plain, glob, *_ = list(objective.terms)[3:]
    expected = [
        losses.AMSoftmaxLoss(scale=8, margin=0.2)(cosines.logits["id"], LABELS),
        losses.ArcFaceLoss(scale=4, margin=0.1)(cosines.logits["id"], LABELS),
        losses.TripletLoss(0.4, reduction="mean_nonzero")(output.embeddings["a"], LABELS),
    ]
    summed = [
        losses.BatchHardTripletLoss(0.2, reduction="sum")(output.embeddings["a"], LABELS),
        losses.BatchSoftTripletLoss(reduction="sum")(output.embeddings["a"], LABELS),
    ]
    torch.testing.assert_close(terms[:3], torch.stack(expected))
    torch.testing.assert_close(terms[-2:], torch.stack(summed))
    assert terms[-2] > losses.BatchHardTripletLoss(0.2)(output.embeddings["a"], LABELS)
    assert [loss.detach_centers for loss in (push, plain, glob)] == [True, False, True]
    weights = torch.tensor([1, 1, 1, 0.3, 0.0005, 1, 1, 1, 1, 1])
    torch.testing.assert_close(total, (weights * terms).sum())
    assert push.centers is glob.centers is center.centers
    assert plain.centers is None
    assert (other.reduction, other.centers.lr, other.centers.distance) == ("mean", 0.1, "euclidean")
    assert (center.centers.distance, center.centers.lr) == ("cosine", 0.5)


def test_weights_may_follow_the_sizes_of_the_losses(output: ModelOutput) -> None:
    settings = [
        CrossEntropySettings(type="cross_entropy"),
        BatchHardTripletSettings(type="batch_hard_triplet", embedding="a", weight=2.0),
    ]
    objective = Objective(settings, num_classes=3, weighting=LossWeighting(mode="balanced"))
    total, terms = objective(output, LABELS)
    torch.testing.assert_close(total, terms[0] + 2 * terms[0])
    learned = Objective(settings, num_classes=3, weighting=LossWeighting(mode="learned"))
    assert [name for name, _ in learned.named_parameters()] == ["sum.log_variance"]


def test_a_classifier_is_for_losses_on_logits() -> None:
    hard = BatchHardTripletSettings(type="batch_hard_triplet")
    assert not needs_classifier([hard, CenterSettings(type="center")])
    assert needs_classifier([hard, AMSoftmaxSettings(type="am_softmax")])
