"""An interrupted run that is resumed ends with the same bits as one that was not interrupted."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pyreid.errors import TrainingError
from pyreid.training import Recipe, TrainingResult, load_recipe, train
from pyreid.training.module import ReIDModule
from pyreid.training.resume import changed_keys, with_new_keys
from python_tests.training.tiny import write_market

pytestmark = pytest.mark.filterwarnings("ignore::pyreid.data.DatasetWarning")

MakeRecipe = Callable[..., Recipe]


class PowerCut(Exception):
    """What interrupts the runs of this file."""


def run(recipe: Recipe, folder: Path, **options: Any) -> TrainingResult:
    return train(recipe, output_dir=folder, progress=False, **options)


def interrupt(monkeypatch: pytest.MonkeyPatch, recipe: Recipe, folder: Path, *, epoch: int, batch: int) -> None:
    """Train until the given epoch and batch (both from 0), then raise."""
    real = ReIDModule.training_step

    def cut(module: ReIDModule, data: Any, batch_idx: int) -> torch.Tensor:
        if module.trainer.current_epoch == epoch and batch_idx == batch:
            raise PowerCut
        return real(module, data, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(ReIDModule, "training_step", cut)
        with pytest.raises(PowerCut):
            run(recipe, folder)


def weights(result: TrainingResult) -> Any:
    return torch.load(result.last_checkpoint, weights_only=True)["state_dict"]


def assert_same(first: Any, second: Any, where: str = "") -> None:
    """Bit equality of nested containers of tensors and numbers."""
    assert type(first) is type(second), where
    if isinstance(first, torch.Tensor):
        assert first.dtype == second.dtype, where
        assert torch.equal(first, second), where
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_same(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), where
        for index, pair in enumerate(zip(first, second, strict=True)):
            assert_same(*pair, f"{where}.{index}")
    else:
        assert first == second, where


@pytest.mark.parametrize(
    "overrides",
    [
        ["optimizer.type=adamw", "optimizer.lr=1e-3"],
        ["optimizer.type=sgd", "optimizer.lr=1e-2", "schedule.decay.type=cosine", "trainer.accumulate=2"],
        [
            "optimizer={type: adam, lr: 1e-3, late_beta1: {epoch: 1.5}}",
            "schedule={interval: iteration, decay: {type: exponential, start: 1.0}}",
            "trainer.iterations_per_epoch=3",
        ],
        [
            "optimizer.type=sgd",
            "optimizer.lr=1e-2",
            "model.overrides={logit_scale: 1.0}",
            "losses=[{type: am_softmax}, {type: center, distance: cosine, embedding: local}, "
            "{type: glob_push, embedding: local, margin_steps: 9}, {type: push, embedding: local, margin_steps: 9}]",
            "loss_weighting.mode=balanced",
            "model.dropout_until=3",
        ],
    ],
    ids=["adamw, multi-step", "sgd, cosine, accumulate", "adam, by iterations", "centres and growing margins"],
)
def test_resume_is_bit_exact(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str]
) -> None:
    recipe = make_recipe("trainer.epochs=4", *overrides)
    straight = run(recipe, tmp_path / "straight")
    interrupt(monkeypatch, recipe, tmp_path / "cut", epoch=2, batch=1)
    torch.manual_seed(31)  # whatever state the next process has
    resumed = run(recipe, tmp_path / "cut", resume=True)

    first = torch.load(straight.last_checkpoint, weights_only=True)
    second = torch.load(resumed.last_checkpoint, weights_only=True)
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "pyreid", "epoch", "global_step"):
        assert_same(first[part], second[part], part)
    assert straight.metrics_csv.read_bytes() == resumed.metrics_csv.read_bytes()
    metrics = [folder / "metrics.json" for folder in (straight.output_dir, resumed.output_dir)]
    assert metrics[0].read_bytes() == metrics[1].read_bytes()
    assert straight.history == resumed.history
    assert_same(
        torch.load(straight.best_checkpoint, weights_only=True)["state_dict"],
        torch.load(resumed.best_checkpoint, weights_only=True)["state_dict"],
    )

    events = [EventAccumulator(str(result.output_dir / "tensorboard")) for result in (straight, resumed)]
    losses = []
    for item in events:
        item.Reload()
        losses.append([(event.step, event.value) for event in item.Scalars("train/loss")])
    assert losses[0] == losses[1], "the steps of the interrupted epoch are there once"


def test_resume_can_prolong_a_run(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    straight = run(make_recipe("trainer.epochs=3"), tmp_path / "straight")
    run(make_recipe("trainer.epochs=1"), tmp_path / "longer")
    longer = run(make_recipe("trainer.epochs=3", "data.workers=1"), tmp_path / "longer", resume=True)
    assert straight.metrics_csv.read_bytes() == longer.metrics_csv.read_bytes()
    assert load_recipe(tmp_path / "longer/recipe.yaml").trainer.epochs == 3


def test_resuming_a_finished_run_gives_its_result(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    done = run(make_recipe("trainer.epochs=1"), tmp_path / "run")
    before = done.last_checkpoint.stat().st_mtime_ns
    table = done.metrics_csv.read_bytes()
    done.metrics_csv.unlink()
    again = run(make_recipe("trainer.epochs=1"), tmp_path / "run", resume=True)
    assert again.history == done.history
    assert done.metrics_csv.read_bytes() == table, "a kill just before the metrics were written is mended"
    assert again.best_map == done.best_map
    assert again.last_checkpoint.stat().st_mtime_ns == before


def test_a_run_interrupted_in_its_first_epoch_starts_anew(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, make_recipe(), tmp_path / "run", epoch=0, batch=1)
    with pytest.raises(TrainingError, match=r"holds a run already; .*--resume"):
        run(make_recipe(), tmp_path / "run")
    run(make_recipe(), tmp_path / "run", resume=True)
    events = list((tmp_path / "run/tensorboard").glob("events*"))
    assert len(events) == 1, "nothing of the first attempt is left"


def test_a_run_without_its_checkpoint_is_not_begun_again(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    done = run(make_recipe("trainer.epochs=1"), tmp_path / "run")
    done.last_checkpoint.unlink()
    with pytest.raises(TrainingError, match=r"nothing to resume, .*last\.ckpt is missing"):
        run(make_recipe("trainer.epochs=1"), tmp_path / "run", resume=True)
    assert done.best_checkpoint.is_file()


def test_nothing_to_resume_is_an_error_and_makes_nothing(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="nothing to resume"):
        run(make_recipe(), tmp_path / "run", resume=True)
    assert not (tmp_path / "run").exists()


def test_resume_with_other_settings_names_the_keys(make_recipe: MakeRecipe, tmp_path: Path, market: Path) -> None:
    run(make_recipe("trainer.epochs=1"), tmp_path / "run")
    kept = (tmp_path / "run/recipe.yaml").read_bytes()
    with pytest.raises(TrainingError) as caught:
        run(make_recipe("optimizer.lr=0.5", "data.erasing=null", "losses.1.margin=0.4"), tmp_path / "run", resume=True)
    message = str(caught.value)
    assert "optimizer.lr (was 0.001, is 0.5)" in message
    assert "losses.1.margin (was 0.3, is 0.4)" in message
    assert "data.erasing" in message
    assert "trainer" not in message.split(":", 1)[1].split(";")[0]
    assert (tmp_path / "run/recipe.yaml").read_bytes() == kept


def test_the_cosine_ties_a_run_to_its_epochs(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    cosine = ["schedule.decay.type=cosine", "schedule.warmup=null"]
    run(make_recipe("trainer.epochs=1", *cosine), tmp_path / "run")
    with pytest.raises(TrainingError, match=r"trainer\.epochs \(was 1, is 2; the cosine schedule depends on it\)"):
        run(make_recipe("trainer.epochs=2", *cosine), tmp_path / "run", resume=True)


def test_fewer_epochs_than_done_is_an_error(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    run(make_recipe("trainer.epochs=2"), tmp_path / "run")
    with pytest.raises(TrainingError, match=r"it has 2 epochs, trainer\.epochs is 1"):
        run(make_recipe("trainer.epochs=1"), tmp_path / "run", resume=True)


def test_other_images_are_refused(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    run(make_recipe("trainer.epochs=1"), tmp_path / "run")
    other = write_market(tmp_path / "other", images=6)
    with pytest.raises(TrainingError, match=r"the training images in .*other are not those of the run"):
        run(make_recipe("trainer.epochs=2", f"data.root={other}"), tmp_path / "run", resume=True)


def test_a_damaged_checkpoint_is_named(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    result = run(make_recipe("trainer.epochs=1"), tmp_path / "run")
    content = result.last_checkpoint.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"not a checkpoint"):
        result.last_checkpoint.write_bytes(damaged)
        with pytest.raises(TrainingError, match=r"last\.ckpt: damaged, cut off") as caught:
            run(make_recipe("trainer.epochs=2"), tmp_path / "run", resume=True)
        assert "\n" not in str(caught.value)
    torch.save({"state_dict": {}}, result.last_checkpoint)
    with pytest.raises(TrainingError, match=r"last\.ckpt: not a checkpoint of"):
        run(make_recipe("trainer.epochs=2"), tmp_path / "run", resume=True)


def test_an_error_while_saving_keeps_the_old_checkpoint(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lightning as L

    result = run(make_recipe("trainer.epochs=1"), tmp_path / "run")
    before = result.last_checkpoint.read_bytes()

    def full_disk(trainer: Any, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(L.Trainer, "save_checkpoint", full_disk)
    with pytest.raises(OSError, match="No space left"):
        run(make_recipe("trainer.epochs=2"), tmp_path / "run", resume=True)
    assert result.last_checkpoint.read_bytes() == before
    assert sorted(path.name for path in result.last_checkpoint.parent.iterdir()) == ["best.ckpt", "last.ckpt"]


def test_a_kill_between_best_and_last_is_mended_by_resuming(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe("trainer.epochs=2", "trainer.evaluate_every=2")  # so that the last epoch is the best
    straight = run(recipe, tmp_path / "straight")
    real = Path.replace

    def die(path: Path, target: Path) -> Path:
        if target.name == "last.ckpt" and target.exists():
            raise PowerCut
        return real(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", die)
        with pytest.raises(PowerCut):
            run(recipe, tmp_path / "cut")
    saved = torch.load(tmp_path / "cut/checkpoints/best.ckpt", weights_only=True)
    assert len(saved["pyreid"]["history"]) == 2
    resumed = run(recipe, tmp_path / "cut", resume=True)
    for name in ("best_checkpoint", "last_checkpoint"):
        first = torch.load(getattr(straight, name), weights_only=True)
        second = torch.load(getattr(resumed, name), weights_only=True)
        assert_same(first["state_dict"], second["state_dict"])


def test_a_recipe_of_an_earlier_version_has_the_defaults_of_new_keys() -> None:
    now = load_recipe("evidence/soft_triplet").model_dump(mode="json")
    before = copy.deepcopy(now)
    del before["losses"][1]["reduction"]
    del before["sampler"]["across_cameras"]
    assert changed_keys(before, now)
    assert not changed_keys(with_new_keys(before), now)
    before["sampler"]["gone"] = 1
    assert "sampler.gone (was 1, is not set)" in changed_keys(with_new_keys(before), now)


def test_changed_keys_sees_added_and_removed_parts() -> None:
    before = {"a": {"b": 1, "c": [1, 2]}, "name": "x", "trainer": {"epochs": 1}}
    after = {"a": {"b": 1, "c": [1, 3]}, "name": "y", "trainer": {"epochs": 2}, "d": None}
    assert changed_keys(before, after) == ["a.c.1 (was 2, is 3)", "d (was not set, is None)"]
