"""Whole runs on a tiny data set: what they write, and what stops them before and during the first steps."""

from __future__ import annotations

import csv
import io
import json
import logging
import re
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader

from pyreid.data import RandomIdentitySampler, load_dataset
from pyreid.errors import DatasetError, RecipeError, TrainingError, WeightsError
from pyreid.models import create_model, load_weights
from pyreid.training import Recipe, TrainingResult, evaluate_model, load_recipe, train
from pyreid.training.callbacks import StepMonitor
from pyreid.training.module import ReIDModule
from pyreid.training.progress import TrainingProgress
from python_tests.training.tiny import write_market

pytestmark = pytest.mark.filterwarnings("ignore::pyreid.data.DatasetWarning")

MakeRecipe = Callable[..., Recipe]
TRAIN_STEP = ReIDModule.training_step


def run(recipe: Recipe, folder: Path, **options: Any) -> TrainingResult:
    return train(recipe, output_dir=folder, progress=False, **options)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


# --------------------------------------------------------------------------------------------------- files of a run


def test_a_run_writes_all_its_files(
    make_recipe: MakeRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = make_recipe("trainer.epochs=3", "trainer.evaluate_every=2")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="counts differ")
        warnings.filterwarnings("ignore", message="(?s).*counts differ")
        result = run(recipe, tmp_path / "run")
    out, err = capsys.readouterr()
    assert (out, err) == ("", ""), "a quiet run prints nothing, nor does Lightning"

    folder = tmp_path / "run"
    assert load_recipe(folder / "recipe.yaml") == recipe
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoints",
        "metrics.csv",
        "metrics.json",
        "recipe.yaml",
        "tensorboard",
    ]
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]

    rows = read_csv(result.metrics_csv)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [bool(row["mAP"]) for row in rows] == [False, True, True], "every second epoch, and the last"
    # 6 identities of 4 images: four batches of 3 x 2 at most; warm-up from 0.1 to 1 over 2 epochs, nothing dropped yet
    assert [float(row["lr"]) for row in rows] == pytest.approx([1e-4, 5.5e-4, 1e-3])
    for row, kept in zip(rows, result.history, strict=True):
        assert float(row["loss"]) == kept["loss"]
        assert float(row["loss"]) == pytest.approx(float(row["cross_entropy"]) + float(row["batch_hard_triplet"]))
        assert float(row["grad_norm"]) > 0

    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["epochs"] == 3
    assert metrics["last"]["mAP"] == result.last_map == float(rows[-1]["mAP"])
    assert metrics["best"]["epoch"] == result.best_epoch

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    losses = events.Scalars("train/loss")
    assert [event.step for event in losses] == list(range(1, int(rows[-1]["step"]) + 1))
    assert [event.step for event in events.Scalars("test/mAP")] == [int(rows[1]["step"]), int(rows[2]["step"])]
    assert events.Scalars("test/mAP")[-1].value == pytest.approx(result.last_map)


def test_the_last_checkpoint_gives_the_last_score(make_recipe: MakeRecipe, tmp_path: Path, market: Path) -> None:
    recipe = make_recipe("trainer.epochs=2")
    result = run(recipe, tmp_path / "run")
    assert result.evaluation is not None
    model = create_model("rmnet")
    load_weights(model, result.last_checkpoint)
    from pyreid.training.datamodule import image_input

    again = evaluate_model(model, load_dataset("market1501", market), images=image_input(model, recipe.data))
    assert again.map == result.last_map == result.evaluation.map


def test_best_is_the_epoch_with_the_best_map_and_last_the_last(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyreid.training import callbacks

    scripted = iter([0.2, 0.9, 0.9, 0.5])
    real = callbacks.scores
    monkeypatch.setattr(callbacks, "scores", lambda result: real(result) | {"mAP": next(scripted)})
    result = run(make_recipe("trainer.epochs=4"), tmp_path / "run")
    assert (result.best_epoch, result.best_map, result.last_map) == (2, 0.9, 0.5)
    best = torch.load(result.best_checkpoint, weights_only=True)
    last = torch.load(result.last_checkpoint, weights_only=True)
    assert len(best["pyreid"]["history"]) == 2, "the first of equal scores"
    assert len(last["pyreid"]["history"]) == 4
    name = "model.stem.conv.weight"
    assert not torch.equal(best["state_dict"][name], last["state_dict"][name])


def test_the_same_seed_gives_the_same_weights_and_another_does_not(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    first = weights_of(run(make_recipe(), tmp_path / "a").last_checkpoint)
    torch.manual_seed(1234)
    np.random.seed(99)  # noqa: NPY002
    again = weights_of(run(make_recipe("data.workers=1", "trainer.evaluate_every=2"), tmp_path / "b").last_checkpoint)
    other = weights_of(run(make_recipe("seed=1"), tmp_path / "c").last_checkpoint)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["model.stem.conv.weight"], other["model.stem.conv.weight"])


def test_a_terminal_gets_bars_for_batches_and_evaluation(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    real = TrainingProgress.__init__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingProgress, "__init__", lambda self, *args: real(self, *args, console=console))
        train(make_recipe("trainer.epochs=2"), output_dir=tmp_path / "run")
    text = screen.getvalue()
    for part in ("Epoch 1/2", "Epoch 2/2", "Evaluating", "epoch 2/2  loss"):
        assert part in text
    assert "\x1b[?25h" in text, "the cursor is shown again"


def test_ctrl_c_comes_through_as_such(make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def press(module: ReIDModule, batch: Any, batch_idx: int) -> torch.Tensor:
        raise KeyboardInterrupt

    monkeypatch.setattr(ReIDModule, "training_step", press)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(make_recipe(), tmp_path / "run")
    assert signal.getsignal(signal.SIGINT) is handler


def test_an_exit_stays_the_exit_that_it_is(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(module: ReIDModule, batch: Any, batch_idx: int) -> torch.Tensor:
        sys.exit(143)  # as the command line does on SIGTERM

    monkeypatch.setattr(ReIDModule, "training_step", leave)
    with pytest.raises(SystemExit) as caught:
        run(make_recipe(), tmp_path / "run")
    assert caught.value.code == 143


def test_progress_prints_one_line_an_epoch(
    make_recipe: MakeRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(make_recipe(), output_dir=tmp_path / "run")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert re.fullmatch(r"epoch 2/2  loss \d+\.\d{4}  lr 5\.50e-04  mAP [\d.]+%  rank-1 [\d.]+%  [\d.]+ s", lines[1])


def test_lightnings_logger_level_is_put_back(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    level = logging.getLogger("lightning.pytorch").level
    run(make_recipe("trainer.epochs=1", "trainer.deterministic=true"), tmp_path / "run")
    assert logging.getLogger("lightning.pytorch").level == level
    assert not torch.are_deterministic_algorithms_enabled()


def test_every_epoch_has_the_samplers_batches_of_that_epoch(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, market: Path
) -> None:
    seen: dict[int, list[list[int]]] = {}

    def spy(module: ReIDModule, batch: Any, batch_idx: int) -> torch.Tensor:
        seen.setdefault(module.trainer.current_epoch, []).append(batch.index.tolist())
        return TRAIN_STEP(module, batch, batch_idx)

    monkeypatch.setattr(ReIDModule, "training_step", spy)
    run(make_recipe("trainer.epochs=2", "seed=4"), tmp_path / "run")
    run(make_recipe("trainer.epochs=4", "seed=4"), tmp_path / "run", resume=True)
    dataset = load_dataset("market1501", market)
    labels = [dataset.train_labels[record.pid] for record in dataset.train]
    sampler = RandomIdentitySampler(labels, num_ids=3, num_instances=2, seed=4)
    for epoch in range(4):
        sampler.set_epoch(epoch)
        assert seen[epoch] == [[key.index for key in batch] for batch in sampler], f"epoch {epoch}"


def test_every_epoch_starts_its_workers_once(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []
    real = DataLoader._get_iterator

    def spy(loader: DataLoader[Any]) -> Any:
        started.append(loader.num_workers)
        return real(loader)

    monkeypatch.setattr(DataLoader, "_get_iterator", spy)
    run(make_recipe("trainer.epochs=3", "trainer.evaluate_every=3"), tmp_path / "run")
    assert len(started) == 3 + 1, "one per epoch, one for the evaluation"


# -------------------------------------------------------------------------------------------------------- numbers


def test_bf16_runs_the_model_in_bf16_and_the_losses_in_fp32(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[torch.dtype, torch.dtype]] = []

    def spy(module: ReIDModule, batch: Any, batch_idx: int) -> torch.Tensor:
        handle = module.model.stem.conv.register_forward_hook(lambda m, i, output: dtypes.append(output.dtype))
        dtypes: list[torch.dtype] = []
        loss = TRAIN_STEP(module, batch, batch_idx)
        handle.remove()
        seen.append((dtypes[0], loss.dtype))
        return loss

    monkeypatch.setattr(ReIDModule, "training_step", spy)
    result = run(make_recipe("trainer.precision=bf16-mixed"), tmp_path / "run")
    assert set(seen) == {(torch.bfloat16, torch.float32)}
    assert 0 < result.last_map <= 1
    assert all(value.dtype != torch.bfloat16 for value in weights_of(result.last_checkpoint).values())


def _spy_on_clipping(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Norms of the gradient as the optimiser gets it, i.e. after clipping."""
    norms: list[float] = []
    real = ReIDModule.configure_gradient_clipping

    def clip(module: ReIDModule, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        real(module, optimizer, *args, **kwargs)
        grads = [p.grad for p in module.parameters() if p.grad is not None]
        norms.append(float(torch.nn.utils.get_total_norm(grads)))

    monkeypatch.setattr(ReIDModule, "configure_gradient_clipping", clip)
    return norms


def test_gradient_clipping_limits_the_norm(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    norms = _spy_on_clipping(monkeypatch)
    result = run(make_recipe("trainer.epochs=1", "trainer.grad_clip=0.01"), tmp_path / "clipped")
    assert norms == pytest.approx([0.01] * len(norms), rel=1e-3)
    assert result.history[0]["grad_norm"] > 0.1, "metrics hold the norm before clipping"
    norms.clear()
    run(make_recipe("trainer.epochs=1"), tmp_path / "free")
    assert min(norms) > 0.1


def _gradients_of_steps(
    recipe: Recipe, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[torch.Tensor], list[list[int]]]:
    """First gradient entries before each optimiser step, and the batches that went into it."""
    gradients: list[torch.Tensor] = []
    batches: list[list[int]] = []
    with monkeypatch.context() as patch:
        real = StepMonitor.on_before_optimizer_step

        def spy(self: StepMonitor, trainer: Any, module: Any, optimizer: Any) -> None:
            gradients.append(module.model.classifier.weight.grad.clone())
            batches.append([index for item in module.pending for index in item.indices.tolist()])
            real(self, trainer, module, optimizer)

        patch.setattr(StepMonitor, "on_before_optimizer_step", spy)
        run(recipe, folder)
    return gradients, batches


def test_accumulation_averages_the_gradients_of_its_batches(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without updates (a vanishing learning rate) and randomness, each step of the accumulated run must have the mean of
    # the gradients of two steps of the plain run. That is the gradient of one big batch where the loss is a mean over
    # the batch; batch norm and the triplet mining see the small batches, in every framework.
    fixed = ["trainer.epochs=1", "optimizer.lr=1e-30", "model.overrides.dropout=0.0", "schedule.warmup=null"]
    single, plain_batches = _gradients_of_steps(make_recipe(*fixed), tmp_path / "plain", monkeypatch)
    double, joined = _gradients_of_steps(make_recipe(*fixed, "trainer.accumulate=2"), tmp_path / "double", monkeypatch)
    assert len(single) >= 3
    assert len(double) == -(-len(single) // 2)
    assert joined[0] == plain_batches[0] + plain_batches[1]
    torch.testing.assert_close(double[0], (single[0] + single[1]) / 2, rtol=1e-4, atol=1e-6)
    fewer = len(single) + 1  # the only step of the epoch has a batch less than it could
    (last,), _ = _gradients_of_steps(make_recipe(*fixed, f"trainer.accumulate={fewer}"), tmp_path / "last", monkeypatch)
    torch.testing.assert_close(last, torch.stack(single).mean(0), rtol=1e-4, atol=1e-6)


def test_accumulation_averages_the_gradients_of_centres_too(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def moves(*overrides: str) -> list[torch.Tensor]:
        """How far each optimiser step moves the centres, which have an optimiser of their own."""
        found: list[torch.Tensor] = []
        real = ReIDModule.optimizer_step

        def spy(module: ReIDModule, *args: Any, **options: Any) -> None:
            centers = module.objective.terms[1].centers.weight  # type: ignore[union-attr]
            before = centers.detach().clone()
            real(module, *args, **options)
            found.append(centers.detach() - before)

        with monkeypatch.context() as patch:
            patch.setattr(ReIDModule, "optimizer_step", spy)
            run(make_recipe(*fixed, *overrides), tmp_path / str(len(list(tmp_path.iterdir()))))
        return found

    losses = "losses=[{type: cross_entropy}, {type: center, embedding: local, center_lr: 1e-2}]"
    fixed = [losses, "trainer.epochs=1", "optimizer.lr=1e-30", "model.overrides.dropout=0.0", "schedule.warmup=null"]
    single, double = moves(), moves("trainer.accumulate=2")
    assert len(single) == 4
    assert single[0].abs().max() > 1e-3
    for number, step in enumerate(double):
        torch.testing.assert_close(step, (single[2 * number] + single[2 * number + 1]) / 2, rtol=0.02, atol=1e-6)
    (last,) = moves("trainer.accumulate=4")
    torch.testing.assert_close(last, torch.stack(single).mean(0), rtol=0.05, atol=1e-6)


def test_schedule_drives_the_optimizer(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    result = run(make_recipe("trainer.epochs=4", "schedule.warmup.epochs=3"), tmp_path / "run")
    assert [row["lr"] for row in result.history] == pytest.approx([1e-4, 4e-4, 7e-4, 5e-4])


# ------------------------------------------------------------------------------------------- what stops a run early


def test_a_nan_loss_names_epoch_step_terms_and_batch(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []

    def poison(module: ReIDModule, batch: Any, batch_idx: int) -> torch.Tensor:
        steps.append(batch_idx)
        if module.trainer.current_epoch == 1 and batch_idx == 1:
            with torch.no_grad():
                module.model.classifier.weight[0, 0] = float("nan")
        return TRAIN_STEP(module, batch, batch_idx)

    monkeypatch.setattr(ReIDModule, "training_step", poison)
    with pytest.raises(TrainingError) as caught:
        run(make_recipe(), tmp_path / "run")
    message = str(caught.value)
    assert f"the loss is not finite at epoch 2, step {len(steps)} (batch 2 of" in message
    assert re.search(r"loss=nan, cross_entropy=nan, batch_hard_triplet=0\.\d+", message)
    assert re.search(r"batch of 000\d_c\ds1_\d+_00\.jpg, .*\(6 images\)", message)
    assert "\n" not in message
    saved = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert len(saved["pyreid"]["history"]) == 1
    assert all(torch.isfinite(value).all() for value in saved["state_dict"].values())


def test_a_nan_gradient_names_the_parameter(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poison(module: ReIDModule, batch: Any, batch_idx: int) -> torch.Tensor:
        weight = module.model.classifier.weight
        weight.register_hook(lambda grad: grad * float("inf"))
        return TRAIN_STEP(module, batch, batch_idx)

    monkeypatch.setattr(ReIDModule, "training_step", poison)
    with pytest.raises(
        TrainingError, match=r"the gradient of 'model\.classifier\.weight' is not finite at epoch 1, step 1"
    ):
        run(make_recipe(), tmp_path / "run")


def test_a_huge_learning_rate_is_stopped_by_name(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"is not finite at epoch 1, step 2 .*cross_entropy=nan.*lower optimizer\.lr"
    ):
        run(make_recipe("optimizer.type=sgd", "optimizer.lr=1e30"), tmp_path / "run")


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["data.root=null"], RecipeError, r"'data\.root' is not set"),
        (["data.root=/nowhere"], DatasetError, "/nowhere: folder not found"),
        (["data.dataset=market1502"], RecipeError, r"'data\.dataset' is 'market1502'; did you mean 'market1501'"),
        (["sampler.num_ids=7"], RecipeError, r"'sampler\.num_ids' is 7, but .* has only 6 identities"),
        (["losses.1.embedding=lokal"], RecipeError, r"'losses\.1\.embedding' is 'lokal', .*; did you mean 'local'\?"),
        (["losses.0.logits=ids"], RecipeError, r"'losses\.0\.logits' is 'ids', which the model does not give"),
        (["model.name=rmnett"], RecipeError, r"'model\.name' is 'rmnett'; did you mean 'rmnet'"),
        (["model.overrides.dropuot=0.1"], RecipeError, r"'model\.overrides' is .*unknown override 'dropuot'"),
        (["model.overrides.dropout=2.0"], RecipeError, r"'model\.overrides' is .*dropout: got 2\.0"),
        (["model.overrides.num_classes=3"], RecipeError, r"'model\.overrides\.num_classes' is set"),
        (
            ["model.overrides.dropout=0.0", "model.dropout_until=1"],
            RecipeError,
            r"'model\.dropout_until' is 1, but model rmnet has no dropout",
        ),
        (
            ["losses.0={type: am_softmax}"],
            RecipeError,
            r"'losses\.0' is am_softmax.*'id' of model rmnet are up to .*scale",
        ),
        (
            ["model.name=safr_small", "losses.1.embedding=features", "losses.0={type: arcface}"],
            RecipeError,
            r"'losses\.0' is arcface, which needs cosines, but the logits 'id' of model safr_small change with",
        ),
        (["model.weights=/nowhere.pth"], WeightsError, r"'model\.weights' is '/nowhere\.pth': .*no such file"),
        (
            [
                "losses=[{type: am_softmax}]",
                "model.overrides={logit_scale: 1.0}",
                "mining={per_identity: 1, share: 0.1}",
            ],
            RecipeError,
            r"'mining' keeps 1 of the 6 images of a round, but batch norm needs at least 2; raise mining\.share",
        ),
        (["trainer.precision=16-mixed"], RecipeError, r"'trainer\.precision' is '16-mixed', which needs a CUDA device"),
    ],
)
def test_mistakes_are_found_before_the_first_step_and_leave_no_files(
    make_recipe: MakeRecipe, tmp_path: Path, overrides: list[str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        run(make_recipe(*overrides), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_queries_without_any_match_stop_the_run(tmp_path: Path, recipe_file: Path) -> None:
    root = write_market(tmp_path / "market")
    for path in (root / "bounding_box_test").glob("*_c2s1_*"):
        path.unlink()  # what is left of every identity is from the query's own camera
    with pytest.raises(
        DatasetError, match=r"4 of 4 queries have no right answer .*4 whose identity is there from the same"
    ):
        run(load_recipe(recipe_file, [f"data.root={root}"]), tmp_path / "run")


def test_some_queries_without_match_warn(tmp_path: Path, recipe_file: Path) -> None:
    root = write_market(tmp_path / "market")
    for path in (root / "bounding_box_test").glob("0007_*"):
        path.unlink()
    with pytest.warns(UserWarning, match=r"1 of 4 queries have no right answer .*\(1 whose identity is not there"):
        run(load_recipe(recipe_file, [f"data.root={root}", "trainer.epochs=1"]), tmp_path / "run")


def test_a_folder_with_a_run_is_not_overwritten_unless_asked(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run(make_recipe("trainer.epochs=1"), folder)
    (folder / "notes.txt").write_text("mine")
    before = (folder / "metrics.csv").read_bytes()
    with pytest.raises(TrainingError, match="holds a run already"):
        run(make_recipe("seed=1"), folder)
    assert (folder / "metrics.csv").read_bytes() == before
    with pytest.raises(RecipeError, match="num_ids"):
        run(make_recipe("sampler.num_ids=7"), folder, overwrite=True)
    assert (folder / "metrics.csv").read_bytes() == before, "a recipe that cannot run replaces nothing"
    run(make_recipe("trainer.epochs=1", "seed=1"), folder, overwrite=True)
    assert (folder / "metrics.csv").read_bytes() != before
    assert len(list((folder / "tensorboard").glob("events*"))) == 1
    assert (folder / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_one_line(recipe_file: Path, tmp_path: Path, workers: int) -> None:
    root = write_market(tmp_path / "market")
    broken = sorted(root.rglob("bounding_box_train/*.jpg"))[-1]
    broken.write_bytes(broken.read_bytes()[:200])
    recipe = load_recipe(recipe_file, [f"data.root={root}", f"data.workers={workers}"])
    with pytest.raises(DatasetError) as caught:
        run(recipe, tmp_path / "run")
    assert str(caught.value).startswith(f"{broken}: cannot be read as an image")
    assert "Traceback" not in str(caught.value)


def test_leftovers_of_a_killed_run_are_removed(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    leftover = tmp_path / "run/checkpoints/.last.ckpt.ab12.ckpt"
    run(make_recipe(), tmp_path / "run")
    leftover.write_bytes(b"half")
    run(make_recipe(), tmp_path / "run", resume=True)
    assert not leftover.exists()


def test_dropout_is_switched_off_late(
    make_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []
    real = ReIDModule.training_step

    def spy(module: ReIDModule, batch: Any, batch_idx: int) -> torch.Tensor:
        if batch_idx == 0:
            seen.append(next(m.p for m in module.model.modules() if isinstance(m, torch.nn.Dropout)))
        return real(module, batch, batch_idx)

    monkeypatch.setattr(ReIDModule, "training_step", spy)
    train(make_recipe("trainer.epochs=3", "model.dropout_until=2"), output_dir=tmp_path / "run", progress=False)
    assert seen == [0.1, 0.1, 0.0]


def test_centres_with_a_gradient_that_is_not_finite_stop_the_run(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []

    def poison(module: ReIDModule, batch: Any, batch_idx: int) -> torch.Tensor:
        centres = module.objective.terms[0].centers.weight  # type: ignore[union-attr]
        seen[:] = [centres, centres.detach().clone()]
        return TRAIN_STEP(module, batch, batch_idx) + (centres * torch.nan).sum()  # what is recorded stays finite

    monkeypatch.setattr(ReIDModule, "training_step", poison)
    losses = "losses=[{type: center, distance: cosine, embedding: local}]"
    with pytest.raises(TrainingError, match=r"the gradient of 'objective\.terms\.0\.centers\.weight' is not finite"):
        run(make_recipe(losses), tmp_path / "run")
    assert torch.equal(*seen), "the step has not been made"
