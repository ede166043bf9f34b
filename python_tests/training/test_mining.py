"""Training in rounds of hard sample mining."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pyreid.data import SampleKey, load_dataset
from pyreid.data.hard_samples import HardSampleSampler
from pyreid.errors import RecipeError, TrainingError
from pyreid.inference.images import ImageInput
from pyreid.models import create_model
from pyreid.training import Recipe, train
from pyreid.training.datamodule import ReIDDataModule, make_train_images
from pyreid.training.mining import at_level, level_of, score
from pyreid.training.module import ReIDModule
from pyreid.training.objectives import Objective
from python_tests.training.test_resume import assert_same, interrupt, run

pytestmark = pytest.mark.filterwarnings("ignore::pyreid.data.DatasetWarning")

MakeRecipe = Callable[..., Recipe]
RMNET = (
    "model.overrides={logit_scale: 1.0}",
    "losses=[{type: am_softmax}, {type: center, distance: cosine, embedding: local, weight: 0.5}, "
    "{type: glob_push, embedding: local}]",
)
MINING = (*RMNET, "mining={per_identity: 3, full_after: 2, terms: [am_softmax, center, glob_push]}")


def test_levels_rise_and_reach_the_whole_augmentation(make_recipe: MakeRecipe) -> None:
    data = make_recipe("data.pad=0", "data.translation={}", "data.jitter={}", "data.lighting={}").data
    levels = [level_of(epoch, 4) for epoch in range(7)]
    assert levels == [0, 0.25, 0.5, 0.75, 1, 1, 1]

    def strengths(level: float) -> list[float]:
        d: Any = at_level(data, level)
        erasing = d.erasing
        return [erasing.probability, erasing.area[1], d.translation.scale, d.jitter.brightness, d.lighting.std]

    rows = np.array([strengths(level) for level in levels[:5]])
    assert (np.diff(rows, axis=0) > 0).all()
    np.testing.assert_allclose(rows[0], [0, 0.1, 1, 0, 0])
    np.testing.assert_allclose(rows[2], [0.25, 0.25, 1.0625, 0.1, 0.05])
    assert at_level(data, 1.0) == data
    assert [at_level(make_recipe("data.pad=10").data, level).pad for level in (0.0, 0.5, 1.0)] == [0, 5, 10]
    # An area that is small already stays, and none begins below the smallest.
    for area, mildest in (([0.02, 0.05], (0.02, 0.05)), ([0.2, 0.4], (0.2, 0.2))):
        assert at_level(make_recipe(f"data.erasing.area={area}").data, 0.0).erasing.area == mildest  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=r"level: got 1\.5"):
        at_level(data, 1.5)


@pytest.mark.parametrize("terms", [("am_softmax",), ("am_softmax", "center", "glob_push")])
def test_scores_are_the_weighted_losses_of_single_images(
    make_recipe: MakeRecipe, market: Path, terms: tuple[str, ...]
) -> None:
    recipe = make_recipe(*RMNET)
    dataset = load_dataset("market1501", market)
    images = make_train_images(dataset, recipe.data, ImageInput((32, 16), (0.5,) * 3, (0.2,) * 3))
    torch.manual_seed(0)
    model = create_model("rmnet", num_classes=6, logit_scale=1.0)
    objective = Objective(recipe.losses, num_classes=6, widths={"local": 256})
    keys = [SampleKey(index, 100 + index) for index in range(7)]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    found = score(model, objective, images, keys, terms=terms, batch_size=3)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert_same(dict(model.state_dict()), state)
    assert all(module.training for module in model.modules())
    assert [getattr(term, "reduction", None) for term in objective.terms] == ["mean", "mean", "mean"]

    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.Dropout):
            module.eval()
    wanted = []
    for key in keys:
        sample = images[key]
        with torch.no_grad():
            _, values = objective(model(sample.image[None]), torch.tensor([sample.label]))
        wanted.append(sum(w * v for w, v in zip((1.0, 0.5, 1.0), values.tolist(), strict=True))
                      if len(terms) == 3 else values[0].item())  # fmt: skip
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_scores_have_the_present_weights(make_recipe: MakeRecipe, market: Path) -> None:
    recipe = make_recipe(*RMNET, "loss_weighting={mode: balanced, decay: 0.5}")
    dataset = load_dataset("market1501", market)
    images = make_train_images(dataset, recipe.data, ImageInput((32, 16), (0.5,) * 3, (0.2,) * 3))
    torch.manual_seed(0)
    model = create_model("rmnet", num_classes=6, logit_scale=1.0)
    objective = Objective(recipe.losses, num_classes=6, widths={"local": 256}, weighting=recipe.loss_weighting)
    samples = [images[SampleKey(index, index)] for index in range(6)]
    objective(model(torch.stack([item.image for item in samples])), torch.tensor([item.label for item in samples]))
    factors = objective.sum.factors().tolist()
    assert factors[1] > 2, "the center loss is much smaller than AM-Softmax, and balanced with it"
    keys = [SampleKey(index, 0) for index in range(6)]
    both, first, second = (
        score(model, objective, images, keys, terms=terms, batch_size=6)
        for terms in (("am_softmax", "center"), ("am_softmax",), ("center",))
    )
    np.testing.assert_allclose(both, first + second, rtol=1e-6)
    plain = Objective(recipe.losses, num_classes=6, widths={"local": 256})
    plain.load_state_dict(objective.state_dict(), strict=False)
    for number, (term, values) in enumerate((("am_softmax", first), ("center", second))):
        alone = score(model, plain, images, keys, terms=(term,), batch_size=6)
        np.testing.assert_allclose(values, alone * factors[number], rtol=1e-5)


def test_a_round_is_of_the_hardest_by_the_recipes_terms(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the pool, augmented at the round's level, by the network as it is at the round's start."""
    from pyreid.training import datamodule

    levels: list[float] = []
    expected: list[list[SampleKey]] = []
    found: list[list[SampleKey]] = []
    mine, transform = ReIDDataModule._mine, datamodule.make_train_transform

    def watched_transform(data: Any, images: Any) -> Any:
        levels.append(data.erasing.probability / 0.5)
        return transform(data, images)

    def record(data: ReIDDataModule, sampler: Any, epoch: int) -> None:
        mine(data, sampler, epoch)
        module: Any = data.trainer.lightning_module  # type: ignore[union-attr]
        pool = sampler.pool()
        scores = score(module.model, module.objective, data.images, pool, terms=("center",), batch_size=6)
        expected.append([pool[place] for place in np.sort(np.argsort(-scores, kind="stable")[:10])])
        found.append(sorted((key for batch in sampler for key in batch), key=pool.index))

    monkeypatch.setattr(datamodule, "make_train_transform", watched_transform)
    monkeypatch.setattr(ReIDDataModule, "_mine", record)
    mining = "mining={per_identity: 4, share: 0.4, full_after: 4, terms: [center]}"
    train(make_recipe(*RMNET, mining), output_dir=tmp_path / "run", progress=False)
    assert found == expected
    assert found[0] != found[-1]
    assert levels[0] == 1, "before the first round there is no level"
    assert list(dict.fromkeys(levels[1:])) == [0, 0.25]


def test_a_round_may_keep_a_share_of_each_identity(make_recipe: MakeRecipe, market: Path) -> None:
    dataset = load_dataset("market1501", market)
    recipe = make_recipe(*RMNET, "mining={per_identity: 4, share_of: identities}")
    data = ReIDDataModule(dataset, recipe, ImageInput((32, 16), (0.5,) * 3, (0.2,) * 3))
    assert data.hard_samples is not None
    kept = data.hard_samples.keep(np.arange(24.0))
    assert Counter(data.images.labels[key.index] for key in kept) == dict.fromkeys(range(6), 2)


def test_rounds_of_identities_follow_recipe_and_seed(make_recipe: MakeRecipe, market: Path) -> None:
    dataset = load_dataset("market1501", market)

    def batches(*overrides: str) -> list[list[SampleKey]]:
        recipe = make_recipe(*RMNET, "mining={batches: identities, per_identity: 4}", *overrides)
        data = ReIDDataModule(dataset, recipe, ImageInput((32, 16), (0.5,) * 3, (0.2,) * 3))
        assert data.hard_samples is not None
        data.hard_samples.keep(np.zeros(24))
        return list(data.hard_samples)

    labels = [dataset.train_labels[record.pid] for record in dataset.train]
    for batch in [batch for seed in range(4) for batch in batches(f"seed={seed}")]:
        assert all(count == 2 for count in Counter(labels[key.index] for key in batch).values())
    assert batches("seed=1") != batches()


def test_a_score_that_is_not_finite_stops_the_run(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyreid.losses import CenterLoss

    real = CenterLoss.forward

    def poisoned(self: Any, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        value = real(self, embeddings, labels)
        if value.ndim == 1:  # by image: a round is scored
            value[2] = torch.nan
        return value

    monkeypatch.setattr(CenterLoss, "forward", poisoned)
    keys: list[SampleKey] = []
    pool = HardSampleSampler.pool

    def watched(self: HardSampleSampler) -> list[SampleKey]:
        keys[:] = pool(self)
        return keys

    monkeypatch.setattr(HardSampleSampler, "pool", watched)
    recipe = make_recipe(*RMNET, "mining={per_identity: 3, terms: [center]}")
    with pytest.raises(TrainingError, match="in hard sample mining is not finite") as caught:
        train(recipe, output_dir=tmp_path / "run", progress=False)
    records = load_dataset("market1501", Path(str(recipe.data.root))).train
    assert records[keys[2].index].path.name in str(caught.value)


@pytest.mark.parametrize("precision", ["32", "bf16-mixed"])
def test_a_round_is_scored_in_the_runs_precision(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    from pyreid.training import mining

    seen: list[bool] = []
    real = mining.score

    def watched(*arguments: Any, **options: Any) -> Any:
        seen.append(torch.is_autocast_enabled("cpu"))
        return real(*arguments, **options)

    monkeypatch.setattr(mining, "score", watched)
    recipe = make_recipe(*MINING, f"trainer.precision={precision}", "trainer.epochs=1")
    train(recipe, output_dir=tmp_path / "run", progress=False)
    assert set(seen) == {precision == "bf16-mixed"}


def test_two_rounds_train_on_the_hardest(make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: Any) -> None:
    seen: list[list[int]] = [[], []]
    planned: list[list[int]] = []
    step, mine = ReIDModule.training_step, ReIDDataModule._mine

    def watch(module: ReIDModule, batch: Any, batch_idx: int) -> torch.Tensor:
        seen[module.trainer.current_epoch] += torch.as_tensor(batch.index).tolist()
        return step(module, batch, batch_idx)

    def record(data: ReIDDataModule, sampler: Any, epoch: int) -> None:
        mine(data, sampler, epoch)
        planned.append([key.index for batch in sampler for key in batch])

    monkeypatch.setattr(ReIDModule, "training_step", watch)
    monkeypatch.setattr(ReIDDataModule, "_mine", record)
    result = train(make_recipe(*MINING), output_dir=tmp_path / "run", progress=False)
    assert [len(indices) for indices in seen] == [9, 9], "half of 6 identities with 3 images each"
    assert [seen[0], seen[1]] == [planned[0], planned[-1]]
    assert len(result.history) == 2


def test_resume_in_the_middle_of_a_round_is_bit_exact(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe("trainer.epochs=3", "loss_weighting.mode=balanced", *MINING)
    straight = run(recipe, tmp_path / "straight")
    interrupt(monkeypatch, recipe, tmp_path / "cut", epoch=1, batch=1)
    torch.manual_seed(31)
    resumed = run(recipe, tmp_path / "cut", resume=True)
    first = torch.load(straight.last_checkpoint, weights_only=True)
    second = torch.load(resumed.last_checkpoint, weights_only=True)
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "pyreid", "epoch", "global_step"):
        assert_same(first[part], second[part], part)
    assert straight.history == resumed.history


@pytest.mark.parametrize(
    ("overrides", "match"),
    [
        (("mining={}",), "mining.terms has 'am_softmax', but the losses are cross_entropy"),
        ((*RMNET, "mining={share: 0.0}"), r"mining\.share"),
        ((*RMNET, "mining={terms: []}"), r"mining\.terms"),
        ((*RMNET, "mining={terms: [push]}"), r"mining\.terms"),
        ((*RMNET, "mining={}", "trainer.iterations_per_epoch=3"), "mining has rounds of its own length"),
        (
            ("losses=[{type: am_softmax}, {type: batch_hard_triplet}]", "mining={}"),
            "mining.batches is 'shuffled', but a triplet loss needs 'identities'",
        ),
    ],
)
def test_wrong_settings_name_the_key(make_recipe: MakeRecipe, overrides: tuple[str, ...], match: str) -> None:
    with pytest.raises(RecipeError, match=match):
        make_recipe(*overrides)


def test_a_round_with_fewer_batches_than_processes_is_an_error(
    make_recipe: MakeRecipe, market: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 8 images 7 are of one identity, and leave one batch of two identities where there could have been two."""
    from types import SimpleNamespace

    from pyreid.training import datamodule, mining
    from pyreid.training.processes import Ranks

    monkeypatch.setattr(datamodule, "current_ranks", lambda: Ranks(world=2, local_world=2))
    monkeypatch.setattr(mining, "score", lambda *args, **options: np.isin(np.arange(48), [39, *range(41, 48)]))
    recipe = make_recipe(
        *RMNET,
        "sampler={num_ids: 2, num_instances: 2}",
        "mining={per_identity: 8, share: 0.1666, batches: identities}",
    )
    data = ReIDDataModule(load_dataset("market1501", market), recipe, ImageInput((32, 16), (0.5,) * 3, (0.2,) * 3))
    assert len(data.sampler) == 1
    plugin = SimpleNamespace(forward_context=torch.no_grad)
    data.trainer = SimpleNamespace(  # type: ignore[assignment]
        current_epoch=4,
        is_global_zero=True,
        precision_plugin=plugin,
        lightning_module=SimpleNamespace(model=None, objective=None),
    )
    with pytest.raises(TrainingError, match=r"round 5 of hard sample mining has 1 batch.* 2 processes"):
        data.train_dataloader()
