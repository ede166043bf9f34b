"""Runs of several processes: gloo on the CPU, in processes that the test starts, or that training starts itself."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from pyreid.data import RandomIdentitySampler, SampleKey, load_dataset
from pyreid.data.hard_samples import HardSampleSampler
from pyreid.errors import DatasetError, RecipeError, TrainingError
from pyreid.models import create_model, load_weights
from pyreid.retrieval import KReciprocal
from pyreid.training import Recipe, evaluate_model, load_recipe, train
from pyreid.training.callbacks import EpochRecorder
from pyreid.training.datamodule import image_input
from pyreid.training.features import choose_protocol, evaluate_features, extract_test_features
from pyreid.training.last_evaluation import evaluate_further
from pyreid.training.module import ReIDModule
from python_tests.ranks import meet, part, run_ranks
from python_tests.training.test_resume import PowerCut, assert_same
from python_tests.training.tiny import RECIPE, write_market

pytestmark = pytest.mark.filterwarnings("ignore::pyreid.data.DatasetWarning")

MakeRecipe = Callable[..., Recipe]

# Own centres, a growing margin, a loss of the user's own with a parameter, and balanced weights: all that the trainer
# itself has to keep equal.
LOSSES = (
    "losses=[{type: am_softmax}, {type: center, distance: cosine, embedding: local}, "
    "{type: glob_push, embedding: local, margin_steps: 9}, {type: push, embedding: local, margin_steps: 9}, "
    "{type: custom, loss: 'python_tests.training.own_loss:Spread', embedding: local}]"
)
CENTRES = (
    "model.overrides={logit_scale: 1.0}",
    LOSSES,
    "loss_weighting.mode=balanced",
    "optimizer={type: sgd, lr: 1e-2}",
)


# Rounds of hard sample mining, weights averaged over cycles, and all that the last evaluation can report.
EVERYTHING = (
    "data.size=[32, 32]",
    "data.pad=0",
    "sampler={num_ids: 3, num_instances: 2}",
    "model={name: dare_r50, overrides: {backbone: resnet10t, fc_dim: 16, embedding_dim: 8}}",
    "losses=[{type: cross_entropy}, {type: center, embedding: embedding}]",
    "mining={per_identity: 4, terms: [center], full_after: 1}",
    "schedule={decay: {type: constant}, cycles: {begin: 0, count: 2, length: 1, lr: 0.001}}",
    "swag={samples: 1}",
    "evaluation.rerank={k1: 4, k2: 2}",
    "evaluation.stages=true",
)


def make(folder: str, *overrides: str) -> Recipe:
    """The tiny recipe on a data set in the folder of the ranks; 12 identities give 8 batches, 4 for each of 2 ranks."""
    root, file = Path(folder) / "market", Path(folder) / f"tiny{dist.get_rank()}.yaml"
    file.write_text(RECIPE)
    if dist.get_rank() == 0 and not root.exists():
        write_market(root, train_ids=12, test_ids=5)
    dist.barrier()
    return load_recipe(file, [f"data.root={root}", "evaluation.batch_size=3", *overrides])


def go(recipe: Recipe, folder: str, name: str, **options: Any) -> Any:
    return train(recipe, output_dir=Path(folder) / name, progress=False, **options)


def work(rank: int, world: int, folder: str) -> None:
    """Every run that the tests of this file look at; each rank leaves what it saw."""
    meet(rank, world, folder)
    warnings.simplefilter("ignore")
    seen: dict[str, Any] = {}
    real_step, real_end = ReIDModule.training_step, EpochRecorder.on_train_epoch_end

    def end(self: EpochRecorder, trainer: Any, module: Any) -> None:
        real_end(self, trainer, module)
        seen["state"] = {name: value.clone() for name, value in module.state_dict().items()}
        states.append(seen["state"])

    def keep(self: HardSampleSampler, scores: np.ndarray) -> list[SampleKey]:
        rounds.append(scores)
        return real_keep(self, scores)

    def poison(module: ReIDModule, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = real_step(module, batch, batch_idx)
        indices.append(batch.index.tolist())
        if trouble == "loss" and rank == 1 and batch_idx == 1:
            record = module.pending[-1]
            module.pending[-1] = type(record)(record.batch, record.loss * torch.nan, record.terms, record.indices)
        if trouble == "power" and module.trainer.current_epoch == 2 and batch_idx == 1:
            raise PowerCut
        return loss

    trouble = ""
    indices: list[list[int]] = []
    states: list[dict[str, torch.Tensor]] = []
    rounds: list[np.ndarray] = []
    real_keep = HardSampleSampler.keep
    EpochRecorder.on_train_epoch_end = end  # type: ignore[method-assign]
    ReIDModule.training_step = poison  # type: ignore[method-assign]

    plain = make(folder, "trainer.epochs=3")
    result = go(plain, folder, "plain")
    seen["plain"], seen["plain history"], seen["indices"] = seen.pop("state"), result.history, indices
    seen["plain map"] = result.evaluation.map

    centres = make(folder, "trainer.epochs=3", "trainer.accumulate=2", *CENTRES)
    indices = []
    go(centres, folder, "centres")
    seen["centres"] = seen.pop("state")

    indices, states = [], []
    HardSampleSampler.keep = keep  # type: ignore[method-assign]
    seen["everything history"] = go(make(folder, "trainer.epochs=2", *EVERYTHING), folder, "everything").history
    seen["everything"], seen["states"], seen["rounds"] = seen.pop("state"), [*states], (rounds, [*indices])

    trouble = "power"
    try:
        go(centres, folder, "cut")
    except PowerCut:
        trouble = ""
    torch.manual_seed(31 + rank)
    go(centres, folder, "cut", resume=True)
    seen["resumed"] = seen.pop("state")

    trouble = "loss"
    try:
        go(plain, folder, "stopped")
    except TrainingError as error:
        seen["stopped"] = str(error)
    trouble = ""
    try:
        go(plain, folder, "plain")
    except TrainingError as error:
        seen["refused"] = str(error)
    try:
        go(make(folder, "trainer.devices=3"), folder, "devices")
    except RecipeError as error:
        seen["devices"] = str(error)
    tracks = make(folder, "trainer.epochs=1")
    from dataclasses import replace

    from pyreid.data.protocol import Protocol
    from pyreid.training import engine

    real_open = engine.open_dataset
    rule = Protocol(name="random", function="evaluate_random_gallery", camera_filter=False, repeats=3)
    engine.open_dataset = lambda recipe: replace(real_open(recipe), protocol=rule)  # type: ignore[assignment]
    row = go(tracks, folder, "random").history[-1]
    seen["random"] = row
    engine.open_dataset = real_open
    (Path(folder) / f"seen-{rank}").write_bytes(pickle.dumps(seen))
    part()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_ranks(work, tmp_path_factory, (2,))[2]


@pytest.fixture(scope="module")
def seen(folder: Path) -> list[dict[str, Any]]:
    return [pickle.loads((folder / f"seen-{rank}").read_bytes()) for rank in range(2)]


def saved(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(folder / name / "checkpoints/last.ckpt", weights_only=True)
    return found


@pytest.mark.parametrize("run", ["plain", "centres", "everything"])
def test_all_ranks_end_with_the_same_bits(folder: Path, seen: list[dict[str, Any]], run: str) -> None:
    assert_same(seen[0][run], seen[1][run])
    assert_same(dict(saved(folder, run)["state_dict"]), seen[0][run])
    if run == "centres":
        assert any("centers" in name or "objective" in name for name in seen[0][run])
        assert seen[0][run]["objective.terms.4.scale"] != 2, "the parameter of a custom loss learns"


def test_ranks_take_every_other_batch_of_the_plan(folder: Path, seen: list[dict[str, Any]]) -> None:
    dataset = load_dataset("market1501", folder / "market")
    labels = [dataset.train_labels[record.pid] for record in dataset.train]
    sampler = RandomIdentitySampler(labels, num_ids=3, num_instances=2)
    for rank in range(2):
        expected = []
        for epoch in range(3):
            sampler.set_epoch(epoch)
            plan = [[key.index for key in batch] for batch in sampler]
            expected += plan[rank : len(plan) // 2 * 2 : 2]
        assert seen[rank]["indices"] == expected


def test_all_ranks_have_the_history_and_the_evaluation_of_one_process(folder: Path, seen: list[dict[str, Any]]) -> None:
    assert seen[0]["plain history"] == seen[1]["plain history"]
    assert seen[0]["plain map"] == seen[1]["plain map"]
    recipe = load_recipe(folder / "plain/recipe.yaml")
    model = create_model("rmnet")
    load_weights(model, folder / "plain/checkpoints/last.ckpt")
    dataset = load_dataset("market1501", folder / "market")
    one = evaluate_model(model, dataset, settings=recipe.evaluation, images=image_input(model, recipe.data))
    last = seen[0]["plain history"][-1]
    assert (one.map, one.rank(1), one.rank(5)) == (last["mAP"], last["rank1"], last["rank5"])


def test_ranks_share_a_round_of_hard_sample_mining(folder: Path, seen: list[dict[str, Any]]) -> None:
    dataset = load_dataset("market1501", folder / "market")
    labels = [dataset.train_labels[record.pid] for record in dataset.train]
    sampler = HardSampleSampler(labels, per_identity=4, num_ids=3, num_instances=2)
    (first, _), (second, _) = seen[0]["rounds"], seen[1]["rounds"]
    assert len(first) == len(second) == 2
    plans = []
    for epoch, (one, other) in enumerate(zip(first, second, strict=True)):
        np.testing.assert_array_equal(one, other)  # the scores are rank 0's
        sampler.set_epoch(epoch)
        sampler.keep(one)
        plans.append([[key.index for key in batch] for batch in sampler])
        assert len(plans[-1]) == 4
    for rank in range(2):
        assert seen[rank]["rounds"][1] == [batch for plan in plans for batch in plan[rank::2]]


def test_ranks_have_one_mean_of_the_weights_and_one_last_evaluation(folder: Path, seen: list[dict[str, Any]]) -> None:
    assert seen[0]["everything history"] == seen[1]["everything history"]
    last = seen[0]["everything history"][-1]
    averaged = torch.load(folder / "everything/checkpoints/swa.ckpt", weights_only=True)["state_dict"]
    one, other = ({k.removeprefix("model."): v for k, v in state.items()} for state in seen[1]["states"])
    name = "fusion_weight"
    assert not torch.equal(one[name], other[name])
    torch.testing.assert_close(averaged[name], (one[name].double() + other[name].double()).float() / 2)

    # One process finds the same numbers with the run's weights.
    recipe = load_recipe(folder / "everything/recipe.yaml")
    model = create_model("dare_r50", **recipe.model.overrides)
    dataset = load_dataset("market1501", folder / "market")
    images = image_input(model, recipe.data)
    for checkpoint, prefix in (("last", ""), ("swa", "swa_")):
        load_weights(model, folder / f"everything/checkpoints/{checkpoint}.ckpt")
        features = extract_test_features(model, dataset, images=images, batch_size=3)
        protocol = choose_protocol(dataset, recipe.evaluation)
        found = evaluate_features(features, recipe.evaluation, protocol=protocol, rerank=KReciprocal(k1=4, k2=2))
        assert last[f"reranked.{prefix}mAP"] == pytest.approx(found.map, abs=1e-9)
        if not prefix:
            further = evaluate_further(model, features, dataset, recipe.evaluation, images=images)
            assert {key: last[key] for key in further.row()} == pytest.approx(further.row(), abs=1e-9)
            assert len(further.stages) == 4


def test_the_run_folder_is_complete(folder: Path) -> None:
    names = {str(path.relative_to(folder / "plain")) for path in (folder / "plain").rglob("*") if path.is_file()}
    events = {name for name in names if name.startswith("tensorboard/events")}
    assert len(events) == 1
    assert names - events - {"tensorboard/hparams.yaml"} == {
        "recipe.yaml",
        "metrics.csv",
        "metrics.json",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
    }


def test_resume_is_bit_exact(folder: Path, seen: list[dict[str, Any]]) -> None:
    for rank in range(2):
        assert_same(seen[rank]["centres"], seen[rank]["resumed"])
    first, second = saved(folder, "centres"), saved(folder, "cut")
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "pyreid", "global_step"):
        assert_same(first[key], second[key], key)
    assert len(first["pyreid"]["other_random_states"]) == 1


def test_one_rank_with_a_nan_stops_all_with_its_error(seen: list[dict[str, Any]]) -> None:
    assert "the loss is not finite at epoch 1, step 2 (batch 2 of 4): loss=nan" in seen[0]["stopped"]
    assert seen[0]["stopped"] == seen[1]["stopped"]


def test_what_is_wrong_before_the_first_step_is_wrong_on_all_ranks(seen: list[dict[str, Any]]) -> None:
    for rank in range(2):
        assert "holds a run already" in seen[rank]["refused"]
        assert "'trainer.devices' asks for 3 processes, but 2 have been started" in seen[rank]["devices"]


def test_a_protocol_of_random_galleries_gives_all_ranks_mean_and_deviation(seen: list[dict[str, Any]]) -> None:
    assert seen[0]["random"] == seen[1]["random"]
    assert seen[0]["random"]["mAP_std"] >= 0
    assert "mINP" not in seen[0]["random"]


# ------------------------------------------------------------------------------------------- processes of its own


def test_training_starts_its_processes_itself(tmp_path: Path, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    recipe = load_recipe(folder / "plain/recipe.yaml", ["trainer.devices=2", "trainer.strategy=ddp"])
    result = train(recipe, output_dir=tmp_path / "run", progress=False)
    assert "DatasetWarning" not in capfd.readouterr().err, "this process has said it"
    assert_same(saved(tmp_path, "run")["state_dict"], saved(folder, "plain")["state_dict"])
    assert result.evaluation is not None
    assert result.evaluation.map == result.last_map


def test_a_process_that_is_told_to_end_does_so_without_a_crash() -> None:
    """Its watch for the end of its parent is still reading then."""
    code = (
        "import threading, time; from pyreid.training.launch import _end_with_parent; "
        "threading.Thread(target=_end_with_parent, daemon=True).start(); time.sleep(0.3)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stderr is not None
    assert (child.stderr.read(), child.wait()) == (b"", 0)
    child = subprocess.Popen([sys.executable, "-c", f"{code}; time.sleep(60)"], stdin=subprocess.PIPE)
    assert child.stdin is not None
    child.stdin.close()
    assert child.wait(30) == 1, "it ends with its parent"


def test_an_error_of_a_process_comes_through(tmp_path: Path, recipe_file: Path) -> None:
    root = write_market(tmp_path / "market")
    broken = sorted(root.rglob("bounding_box_train/*.jpg"))[-1]
    broken.write_bytes(broken.read_bytes()[:200])
    recipe = load_recipe(recipe_file, [f"data.root={root}", "trainer.devices=2"])
    with pytest.raises(DatasetError, match="cannot be read as an image"):
        train(recipe, output_dir=tmp_path / "run", progress=False)


def test_a_resumed_run_keeps_its_number_of_processes(folder: Path, tmp_path: Path) -> None:
    recipe = load_recipe(folder / "plain/recipe.yaml", ["trainer.epochs=4"])
    with pytest.raises(TrainingError, match=r"trainer\.devices \(was 2 processes, is 1"):
        train(recipe, output_dir=folder / "plain", progress=False, resume=True)


def test_a_strategy_of_several_processes_needs_them(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"'trainer\.strategy' is 'ddp', but there is one process; .*trainer\.devices"
    ):
        train(make_recipe("trainer.strategy=ddp"), output_dir=tmp_path / "run", progress=False)


def test_more_processes_than_batches_are_refused(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe("trainer.devices=2", "sampler.num_ids=6", "sampler.num_instances=4")
    with pytest.raises(RecipeError, match=r"'trainer\.devices' makes 2 processes, but an epoch has 1 batches"):
        train(recipe, output_dir=tmp_path / "run", progress=False)
