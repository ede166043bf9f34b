"""The callback that averages weights over learning-rate cycles and evaluates the result."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import lightning as L
import numpy as np
import torch
from torch import nn

from pyreid._files import write_atomically
from pyreid.layers.embedding import unit_length
from pyreid.training.callbacks import EpochRecorder
from pyreid.training.features import TestFeatures
from pyreid.training.last_evaluation import dotted, make_reranker
from pyreid.training.module import ReIDModule
from pyreid.training.processes import agree, average_batch_norm
from pyreid.training.randomness import random_states, restore_random_states
from pyreid.training.recipe import Recipe
from pyreid.training.run_folder import RunFolder
from pyreid.training.scores import scores
from pyreid.training.sharing import evaluate_own_features, extract_own_features
from pyreid.training.swag import SWAG, averaged_copy, estimate_batch_norm

if TYPE_CHECKING:
    from pyreid.data import ReIDDataset
    from pyreid.models.base import ReIDModel
    from pyreid.training.datamodule import ReIDDataModule
    from pyreid.training.settings.schedule import CycleSettings, SWAGSettings


class CycleAverager(L.Callback):
    """Collects weights at the end of each cycle; after the last one evaluates and writes their mean.

    The scores go into the recorder's last row, under ``swa_mAP`` and so on, and with ``swag.samples`` those of Bayesian
    model averaging under ``bma_mAP`` and so on; with ``evaluation.rerank`` there are ``reranked.swa_mAP`` and so on
    besides. What was collected is part of the run's checkpoints. The run itself is not changed: neither its weights and
    statistics nor its random numbers.
    """

    def __init__(
        self, folder: RunFolder, recipe: Recipe, dataset: ReIDDataset, data: ReIDDataModule, recorder: EpochRecorder
    ) -> None:
        assert recipe.swag is not None  # the recipe has been checked
        assert recipe.schedule.cycles is not None
        self._settings: SWAGSettings = recipe.swag
        self._cycles: CycleSettings = recipe.schedule.cycles
        self._folder, self._recipe, self._dataset = folder, recipe, dataset
        self._data, self._recorder = data, recorder
        self.swag = SWAG(max_rank=recipe.swag.max_rank)

    def state_dict(self) -> dict[str, Any]:
        return self.swag.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.swag.load_state_dict(state_dict)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, ReIDModule)
        if trainer.current_epoch + 1 not in self._cycles.ends:
            return
        self.swag.collect(pl_module.model)
        if trainer.current_epoch + 1 < self._cycles.end:
            return
        states = random_states()
        try:
            self._recorder.history[-1] |= self._evaluate(pl_module.model, write=trainer.is_global_zero)
        finally:
            restore_random_states(states)

    def _evaluate(self, model: nn.Module, *, write: bool) -> dict[str, float]:
        device = next(model.parameters()).device
        averaged = averaged_copy(model, self.swag)
        self._estimate_batch_norm(averaged, device)
        row = self._scores("swa", self._features(averaged))
        state = {"state_dict": {name: value.cpu() for name, value in averaged.state_dict().items()}}
        error = None
        try:
            if write:
                write_atomically(self._folder.averaged_checkpoint, lambda path: torch.save(state, path))
        except Exception as problem:
            error = problem
        agree(error)
        if self._settings.samples:
            row |= self._scores("bma", self._sampled_features(averaged, device))
        return row

    def _sampled_features(self, model: nn.Module, device: torch.device) -> TestFeatures:
        """The mean of the unit embeddings of models from the Gaussian, of unit length again."""
        generator = torch.Generator().manual_seed(self._recipe.seed)
        found: list[TestFeatures] = []
        for _ in range(self._settings.samples):
            self.swag.load_sample(model, generator, scale=self._settings.scale)
            self._estimate_batch_norm(model, device)
            features = self._features(model)
            query, gallery = _unit(features.query), _unit(features.gallery)
            if found:
                query, gallery = query + found[-1].query, gallery + found[-1].gallery
            found[:] = [replace(features, query=query, gallery=gallery)]
        return replace(found[-1], query=_unit(found[-1].query), gallery=_unit(found[-1].gallery))

    def _estimate_batch_norm(self, model: nn.Module, device: torch.device) -> None:
        """From the batches of all ranks, each of which reads its own."""
        error = None
        try:
            estimate_batch_norm(model, self._data.train_dataloader(), device=device)
        except Exception as problem:
            error = problem
        agree(error)
        average_batch_norm(model)

    def _features(self, model: nn.Module) -> TestFeatures:
        """Those of this rank's part of the test images."""
        reid: ReIDModel = model  # type: ignore[assignment]
        return extract_own_features(
            reid,
            self._dataset,
            self._recipe.evaluation,
            images=self._data.image_input,
            workers=self._recipe.data.workers,
        )

    def _scores(self, prefix: str, features: TestFeatures) -> dict[str, float]:
        settings = self._recipe.evaluation
        row = _prefixed(prefix, scores(evaluate_own_features(features, settings, self._dataset)))
        method = make_reranker(settings)
        if method is not None:
            reranked = evaluate_own_features(features, settings, self._dataset, rerank=method)
            row |= dotted("reranked", _prefixed(prefix, scores(reranked)))
        return row


def _prefixed(prefix: str, values: dict[str, float]) -> dict[str, float]:
    return {f"{prefix}_{name}": value for name, value in values.items()}


def _unit(rows: np.ndarray) -> np.ndarray:
    return unit_length(torch.from_numpy(rows)).numpy()
