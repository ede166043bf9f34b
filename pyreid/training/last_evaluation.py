"""What only the last evaluation of a run reports: re-ranked metrics, and those of every exit of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pyreid.errors import RecipeError
from pyreid.inference.embedding import Flip, join_mirrored
from pyreid.training.features import OnBatch, TestFeatures, choose_protocol
from pyreid.training.protocols import can_rerank
from pyreid.training.scores import scores
from pyreid.training.sharing import evaluate_own_features, extract_own_features

if TYPE_CHECKING:
    from pyreid.data import ReIDDataset
    from pyreid.evaluation import EvaluationResult, RepeatedResult
    from pyreid.inference.images import ImageInput
    from pyreid.models.base import ReIDModel
    from pyreid.retrieval import KReciprocal
    from pyreid.training.settings.trainer import EvaluationSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class FurtherResults:
    """What the last evaluation gave besides the metrics of the embedding.

    Attributes:
        reranked: of re-ranked distances; None unless ``evaluation.rerank`` asks for it.
        stages: of every exit of the model, by name; empty unless ``evaluation.stages`` asks for it.
    """

    reranked: EvaluationResult | RepeatedResult | None = None
    stages: Mapping[str, EvaluationResult | RepeatedResult] = field(default_factory=dict)

    def row(self) -> dict[str, float]:
        """The scores for a row of the history: ``reranked.mAP``, ``stages.stage1.mAP`` and so on."""
        found = {} if self.reranked is None else dotted("reranked", scores(self.reranked))
        for name, result in self.stages.items():
            found |= dotted(f"stages.{name}", scores(result))
        return found


def dotted(prefix: str, values: Mapping[str, float]) -> dict[str, float]:
    """``values`` under ``prefix.name``."""
    return {f"{prefix}.{name}": value for name, value in values.items()}


def check_further(settings: EvaluationSettings, dataset: ReIDDataset, model: ReIDModel) -> None:
    """Whether the last evaluation will be able to do what the recipe asks for.

    Raises:
        RecipeError: re-ranking with a protocol that has none, or exits of a model that has none.
    """
    protocol = choose_protocol(dataset, settings)
    if settings.rerank is not None and not can_rerank(protocol):
        raise RecipeError(
            f"'evaluation.rerank' is set, but the protocol {protocol.name!r} of {dataset.name} has no re-ranking; "
            "set it to null"
        )
    if settings.stages and not model.exit_names:
        raise RecipeError(
            f"'evaluation.stages' is true, but {type(model).__name__} has no exits; set it to false, or take a model "
            "that has some, such as dare_r50"
        )


def make_reranker(settings: EvaluationSettings) -> KReciprocal | None:
    """The method of ``evaluation.rerank``."""
    from pyreid.retrieval import KReciprocal

    return None if settings.rerank is None else KReciprocal(**settings.rerank.model_dump())


class ExitEmbeddings(nn.Module):
    """A model in evaluation mode whose output are the embeddings of all its exits side by side, (N, S D).

    Args:
        model: with exits of one width D.
        flip: how each exit's embeddings of an image and of its mirror image become one.
    """

    def __init__(self, model: ReIDModel, flip: Flip = "none") -> None:
        super().__init__()
        self.model = model
        self.flip: Flip = flip

    def forward(self, images: Tensor) -> Tensor:
        """The embeddings (N, S D), float32, first exit first."""
        found = self._exits(images)
        if self.flip != "none":
            mirrored = self._exits(images.flip(3))
            found = [join_mirrored(one, other, self.flip) for one, other in zip(found, mirrored, strict=True)]
        return torch.stack(found, dim=1).flatten(1)

    def _exits(self, images: Tensor) -> list[Tensor]:
        return [item.embedding.float() for item in self.model.stages(images)]


def split_exits(features: TestFeatures, names: Sequence[str]) -> dict[str, TestFeatures]:
    """The features of each exit out of those of :class:`ExitEmbeddings`."""
    width = features.query.shape[1] // len(names)
    parts = {name: slice(number * width, (number + 1) * width) for number, name in enumerate(names)}
    return {
        name: replace(features, query=features.query[:, part], gallery=features.gallery[:, part])
        for name, part in parts.items()
    }


def evaluate_further(
    model: ReIDModel,
    features: TestFeatures,
    dataset: ReIDDataset,
    settings: EvaluationSettings,
    *,
    images: ImageInput,
    workers: int = 0,
    on_batch: OnBatch | None = None,
    **options: Any,
) -> FurtherResults:
    """What ``evaluation.rerank`` and ``evaluation.stages`` ask for. All ranks call it, and get the same.

    Args:
        model: its exits are run over the test images once more.
        features: of this rank, from :func:`extract_own_features`.
        dataset: of the features.
        settings: the ``evaluation`` part of a recipe.
        images: size and normalisation.
        workers: processes that decode images.
        on_batch: called after each batch of the exits with its number of images.
        options: further ones of :func:`evaluate_own_features`.
    """
    reranked, stages = None, {}
    method = make_reranker(settings)
    if method is not None:
        reranked = evaluate_own_features(features, settings, dataset, rerank=method, **options)
    if settings.stages:
        # ExitEmbeddings has added the mirror images already, exit by exit.
        plain = settings.model_copy(update={"flip": "none"})
        embeddings: Any = ExitEmbeddings(model, settings.flip)
        joint = extract_own_features(embeddings, dataset, plain, images=images, workers=workers, on_batch=on_batch)
        stages = {
            name: evaluate_own_features(part, settings, dataset, **options)
            for name, part in split_exits(joint, model.exit_names).items()
        }
    return FurtherResults(reranked=reranked, stages=stages)
