"""Every shipped recipe: what it says about itself, its data, two steps of its training, and a run of each paper."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pyreid.data import load_dataset
from pyreid.errors import RecipeError
from pyreid.inference.images import ImageInput
from pyreid.losses import after_step
from pyreid.models import create_model, model_entry
from pyreid.report.results import read_run
from pyreid.report.schedule_curves import schedule_curves
from pyreid.training import list_recipes, recipe_dirs, train
from pyreid.training.datamodule import ReIDDataModule
from pyreid.training.engine import _prepare
from pyreid.training.last_evaluation import check_further
from pyreid.training.module import ReIDModule
from pyreid.training.preflight import check_training_data
from pyreid.training.processes import Ranks
from pyreid.training.run_folder import RunFolder
from python_tests.recipes.small import groups, loaded, one_of_each_paper, shorten, shrink

RootOf = Callable[[str], Path]
GROUPS = groups()
# A recipe with a paper says what is not from it; or it names the recipe that it is like, which says it.
ADMITS = re.compile(r"not in the paper|paper (does not|names neither|names no|gives no|leaves)|assum", re.IGNORECASE)
REFERS = re.compile(r"\b\w+/\w[\w.+-]*\w")


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_says_what_it_is(name: str) -> None:
    recipe = loaded(name)
    assert recipe.name == name
    assert any((folder / f"{name}.yaml").is_file() for folder in recipe_dirs())
    assert recipe.description.strip()
    assert recipe.model.name == model_entry(recipe.model.name).name
    if recipe.paper is None:
        return
    assert recipe.paper.source.strip()
    assert any(map(ADMITS.search, _descriptions(name))), (
        f"{name}: its description does not say what is not in the paper"
    )


def _descriptions(name: str) -> list[str]:
    """That of a recipe, and of those that it names, and so on."""
    folders = {item.partition("/")[0] for item in list_recipes() if "/" in item}
    names = [name]
    for item in names:  # which grows
        others = [found for found in REFERS.findall(loaded(item).description) if found.partition("/")[0] in folders]
        unknown = [other for other in others if other not in list_recipes()]
        assert not unknown, f"{item}: its description refers to {unknown[0]!r}, which is no recipe"
        names += [other for other in others if other not in names]
    return [loaded(item).description for item in names]


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipes_schedule_has_an_end(name: str) -> None:
    curves = schedule_curves(loaded(name))
    assert all(math.isfinite(lr) and lr >= 0 for lr in curves.lr)
    assert max(curves.lr) > 0
    assert curves.end == loaded(name).trainer.epochs


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipes_data_gives_batches(name: str, root_of: RootOf) -> None:
    """All but the network: rounds of mining, which need one to score, are in the steps below."""
    root = root_of(loaded(name).data.dataset)
    recipe = shrink(name, root)
    dataset = load_dataset(recipe.data.dataset, root)
    check_training_data(dataset, recipe)
    assert recipe.data.size is not None
    data = ReIDDataModule(dataset, recipe, ImageInput(recipe.data.size, (0.5,) * 3, (0.25,) * 3))
    if recipe.mining is not None:
        assert data.hard_samples is not None
        return
    batch = next(iter(data.train_dataloader()))
    assert batch.image.shape == (4, 3, *recipe.data.size)
    assert torch.isfinite(batch.image).all()
    assert 0 <= batch.label.min() <= batch.label.max() < dataset.num_train_ids
    if recipe.sampler.batches == "identities":
        assert len(set(batch.label.tolist())) == 2


@pytest.mark.parametrize("name", GROUPS, ids=lambda name: f"{name}+{len(GROUPS[name]) - 1}")
def test_two_steps(name: str, root_of: RootOf, tmp_path: Path) -> None:
    """Of each different combination of network, losses and optimiser: everything before the first step, and two."""
    wanted = loaded(name)
    least = create_model(wanted.model.name, **wanted.model.overrides).min_input_size
    recipe = shrink(name, root_of(wanted.data.dataset), least=least)
    torch.manual_seed(0)
    parts = _prepare(recipe, RunFolder(tmp_path / "run"), Ranks(), resume=False, overwrite=False)
    module = ReIDModule(parts.model, parts.objective, recipe)
    data: ReIDDataModule = parts.data
    data.trainer = _as_trainer(module)
    optimizers: Any = module.configure_optimizers()
    optimizer = optimizers["optimizer"]
    before = {key: value.detach().clone() for key, value in module.named_parameters()}
    module.train()
    seen = 0
    for number, batch in enumerate(islice(data.train_dataloader(), 2)):
        loss = module.training_step(batch, number)
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(module.pending[-1].terms).all()
        optimizer.step()
        if module._own_optimizer is not None:
            module._own_optimizer.step()
            module._own_optimizer.zero_grad()
        optimizer.zero_grad()
        after_step(module.objective)
        optimizers["lr_scheduler"]["scheduler"].step()
        seen += 1
    assert seen == 2
    moved = [key for key, value in module.named_parameters() if not torch.equal(value, before[key])]
    assert len(moved) > len(before) / 2, f"{len(moved)} of {len(before)} parameters have moved"
    assert all(torch.isfinite(value).all() for value in module.parameters())
    with torch.no_grad():
        embedding = parts.model.eval()(batch.image)
    assert embedding.shape == (4, parts.model.embedding_dim)
    assert torch.isfinite(embedding).all()
    for other in GROUPS[name]:
        check_further(loaded(other).evaluation, load_dataset(loaded(other).data.dataset,
                      root_of(loaded(other).data.dataset)), parts.model)  # fmt: skip


def _as_trainer(module: ReIDModule) -> Any:
    """What the data module asks of a trainer in its first round of hard sample mining."""
    from contextlib import nullcontext

    return SimpleNamespace(
        current_epoch=0,
        is_global_zero=True,
        lightning_module=module,
        precision_plugin=SimpleNamespace(forward_context=nullcontext),
    )


@pytest.mark.parametrize("name", one_of_each_paper())
def test_a_whole_run_of_each_paper(name: str, root_of: RootOf, tmp_path: Path) -> None:
    wanted = loaded(name)
    least = create_model(wanted.model.name, **wanted.model.overrides).min_input_size
    recipe = shrink(name, root_of(wanted.data.dataset), least=least, more=shorten(name))
    train(recipe, output_dir=tmp_path / "run", progress=False)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["finished"] is True
    assert (metrics["reranked"] is not None, metrics["stages"] is not None) == (
        recipe.evaluation.rerank is not None,
        recipe.evaluation.stages,
    )
    report = read_run(tmp_path / "run")
    assert report.synthetic is True
    assert report.entries[0].ours is not None
    if recipe.swag is not None:
        assert "swa" in {entry.evaluation for entry in report.entries}


def test_a_wrong_part_of_a_recipe_is_found(root_of: RootOf, tmp_path: Path) -> None:
    """That the steps above would show a loss on an output that the network does not have."""
    wrong = "losses=[{type: batch_soft_triplet, embedding: nowhere}]"
    recipe = shrink("demo", root_of("market1501"), more=(wrong,))
    with pytest.raises(RecipeError, match="nowhere"):
        _prepare(recipe, RunFolder(tmp_path / "run"), Ranks(), resume=False, overwrite=False)
