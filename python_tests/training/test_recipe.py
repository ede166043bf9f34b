"""Recipes: reading, inheriting, overriding, and one-line errors that name the key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pyreid.errors import RecipeError
from pyreid.retrieval import KReciprocal
from pyreid.training import Recipe, dump_recipe, list_recipes, load_recipe, recipe_dirs
from pyreid.training.recipe_files import merge


def test_every_shipped_recipe_loads_under_its_own_name() -> None:
    names = list_recipes()
    assert {"safr/veri776_baseline", "safr/veri776_small", "rmnet/market1501_light", "demo"} <= set(names)
    for name in names:
        assert load_recipe(name).name == name


def test_safr_recipe_has_the_papers_numbers() -> None:
    recipe = load_recipe("safr/veri776_small")
    assert (recipe.sampler.num_ids, recipe.sampler.num_instances) == (18, 4)
    assert recipe.data.size == (350, 350)
    assert recipe.schedule.warmup is not None
    assert (recipe.schedule.warmup.epochs, recipe.schedule.warmup.start) == (10, 0.1)
    assert recipe.paper is not None
    assert (recipe.paper.mAP, recipe.paper.rank1) == (77.14, 93.14)


def test_numbers_of_a_paper(make_recipe: Callable[..., Recipe]) -> None:
    text = (
        "paper={source: 'Paper, Table 1', mAP: 70, rank1: 88.5, rank5: 95, reranked: {mAP: 80.25}, "
        "stages: [{rank1: 60}, {mAP: 65.5, rank1: 80}], runs: 3, std: {mAP: 0.2}}"
    )
    paper = make_recipe(text).paper
    assert paper is not None
    assert paper.reranked is not None
    assert (paper.reranked.mAP, paper.reranked.rank1) == (80.25, None)
    assert paper.stages is not None
    assert [(stage.mAP, stage.rank1) for stage in paper.stages] == [(None, 60), (65.5, 80)]
    assert paper.std is not None
    assert (paper.runs, paper.std.mAP, paper.std.rank1) == (3, 0.2, None)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("paper={mAP: 70}", r"'paper\.source' is missing"),
        ("paper={source: P, mAP: 120}", r"'paper\.mAP' is 120"),
        ("paper={source: P, reranked: {rank5: 99}}", r"unknown key 'paper\.reranked\.rank5'"),
        ("paper={source: P, reranked: {}}", r"'paper\.reranked': expected mAP, rank1 or both"),
        ("paper={source: P, stages: []}", r"'paper\.stages' is \[\]"),
        ("paper={source: P, stages: [{rank1: 101}]}", r"'paper\.stages\.0\.rank1' is 101"),
        ("paper={source: P, std: {mAP: 0.1}}", r"'paper': std are deviations over several runs, but runs is None"),
        ("paper={source: P, runs: 1, std: {mAP: 0.1}}", "std are deviations over several runs, but runs is 1"),
    ],
)
def test_wrong_numbers_of_a_paper(make_recipe: Callable[..., Recipe], override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        make_recipe(override)


def test_reranking_and_stages_are_off_by_default(make_recipe: Callable[..., Recipe]) -> None:
    settings = make_recipe().evaluation
    assert (settings.rerank, settings.stages) == (None, False)
    rerank = make_recipe("evaluation.rerank.k1=30", "evaluation.stages=true").evaluation.rerank
    assert rerank is not None
    defaults = KReciprocal()
    assert (rerank.k1, rerank.k2, rerank.lambda_value, rerank.compat) == (
        30,
        defaults.k2,
        defaults.lambda_value,
        defaults.compat,
    )
    for override, message in (
        ("evaluation.rerank.k1=0", r"'evaluation\.rerank\.k1' is 0"),
        ("evaluation.rerank.lambda_value=1.5", r"'evaluation\.rerank\.lambda_value' is 1\.5"),
        ("evaluation.rerank.compat=mine", r"'evaluation\.rerank\.compat' is 'mine'"),
        ("evaluation.stages=1", r"'evaluation\.stages' is 1"),
    ):
        with pytest.raises(RecipeError, match=message):
            make_recipe(override)


def test_a_short_name_finds_the_recipe() -> None:
    assert load_recipe("veri776_small") == load_recipe("safr/veri776_small.yaml")


def test_recipes_of_the_environment_come_first(
    tmp_path: Path, recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYREID_RECIPES", str(tmp_path))
    assert recipe_dirs()[0] == tmp_path
    assert load_recipe("tiny").name == "tiny"


def test_dump_and_load_give_an_equal_recipe(tmp_path: Path, make_recipe: Callable[..., Recipe]) -> None:
    recipe = make_recipe("losses.1.margin=null", "trainer.devices=[0]", "model.overrides.dropout=0.0")
    path = tmp_path / "dumped.yaml"
    path.write_text(dump_recipe(recipe))
    assert load_recipe(path) == recipe


# ------------------------------------------------------------------------------------------------------ inheriting


def test_a_base_is_merged_key_by_key(tmp_path: Path, recipe_file: Path) -> None:
    child = tmp_path / "child.yaml"
    child.write_text("base: tiny.yaml\nname: child\noptimizer: {lr: 0.5}\nlosses: [{type: cross_entropy}]\n")
    recipe = load_recipe(child)
    assert recipe.name == "child"
    assert recipe.optimizer.lr == 0.5
    assert recipe.optimizer.type == "adamw"  # from the base
    assert [loss.type for loss in recipe.losses] == ["cross_entropy"]  # lists are replaced
    assert recipe.data == load_recipe(recipe_file).data


def test_another_type_replaces_the_whole_mapping() -> None:
    base = {"optimizer": {"type": "sgd", "lr": 1, "momentum": 0.9}, "keep": 1}
    assert merge(base, {"optimizer": {"type": "adamw", "lr": 2}}) == {
        "optimizer": {"type": "adamw", "lr": 2},
        "keep": 1,
    }
    assert merge(base, {"optimizer": {"lr": 2}})["optimizer"] == {"type": "sgd", "lr": 2, "momentum": 0.9}


def test_several_bases_apply_in_order(tmp_path: Path, recipe_file: Path) -> None:
    (tmp_path / "more.yaml").write_text("seed: 5\ntrainer: {epochs: 9}\n")
    child = tmp_path / "child.yaml"
    child.write_text("base: [tiny.yaml, more.yaml]\nname: child\n")
    assert (load_recipe(child).seed, load_recipe(child).trainer.epochs) == (5, 9)


def test_a_circle_of_bases_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    with pytest.raises(RecipeError, match=r"circle: a\.yaml -> b\.yaml -> a\.yaml"):
        load_recipe(tmp_path / "a.yaml")


def test_a_missing_base_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("base: nowhere.yaml\n")
    with pytest.raises(RecipeError, match=r"a\.yaml: base 'nowhere\.yaml' is neither"):
        load_recipe(tmp_path / "a.yaml")


# ------------------------------------------------------------------------------------------------------- overrides


def test_overrides_reach_into_mappings_and_lists(make_recipe: Callable[..., Recipe]) -> None:
    recipe = make_recipe(
        "optimizer.lr=1e-4", "losses.1.margin=0.5", "data.size=[64, 32]", "data.erasing=null", "evaluation.ap=trapezoid"
    )
    assert recipe.optimizer.lr == 1e-4
    assert recipe.losses[1].margin == 0.5  # type: ignore[union-attr]
    assert recipe.data.size == (64, 32)
    assert recipe.data.erasing is None
    assert recipe.evaluation.ap == "trapezoid"


def test_a_new_type_drops_the_old_types_keys_whatever_the_order(make_recipe: Callable[..., Recipe]) -> None:
    recipe = make_recipe("optimizer.lr=0.1", "optimizer.type=sgd", "optimizer.nesterov=true")
    assert recipe.optimizer.model_dump() == {
        "type": "sgd",
        "lr": 0.1,
        "momentum": 0.9,
        "weight_decay": 0.0005,
        "nesterov": True,
    }


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lrr=0.1", r"unknown key 'optimizer\.lrr' \(value 0\.1\); did you mean 'optimizer\.lr'\?"),
        ("optimiser.lr=1", r"unknown key 'optimiser'.*did you mean 'optimizer'\?"),
        ("optimizer.lr=abc", r"'optimizer\.lr' is 'abc'; expected a number"),
        ("optimizer.lr=-1", r"'optimizer\.lr' is -1; expected a number greater than 0"),
        ("optimizer.lr=.nan", r"'optimizer\.lr' is nan; expected a"),
        ("trainer.epochs=2.5", r"'trainer\.epochs' is 2\.5; expected a whole number"),
        ("trainer.epochs=true", r"'trainer\.epochs' is True; expected a whole number"),
        ("trainer.precision=8", r"'trainer\.precision' is '8'; expected '32', 'bf16-mixed' or '16-mixed'"),
        ("trainer.devices=0", r"'trainer\.devices' is 0: expected a number of devices, or different indices of GPUs"),
        ("trainer.devices=[1, 1]", r"'trainer\.devices' is \[1, 1\]: expected a number of devices, or different"),
        ("trainer.early_stopping={}", r"'trainer\.early_stopping\.patience' is missing"),
        ("trainer.logger=mlflow", r"'trainer\.logger' is 'mlflow'; expected 'tensorboard' or 'wandb'"),
        ("losses.1.type=batch_hard", r"'losses\.1\.type' is 'batch_hard'; did you mean 'batch_hard_triplet'"),
        ("losses.0.margin=1", r"unknown key 'losses\.0\.margin'"),
        ("losses.7.margin=1", r"override 'losses\.7\.margin=1': 'losses' is a list, expected an index 0\.\.1"),
        ("losses=[]", r"'losses' is \[\]; expected at least 1 item"),
        ("data.size=[64, 32, 3]", r"'data\.size' is \[64, 32, 3\]; expected at most 2 items"),
        ("data.size=64", r"'data\.size' is 64; expected a list"),
        ("data.flip.x=1", r"override 'data\.flip\.x=1': 'data\.flip' is 0\.5, which has no keys"),
        ("data.erasing.area=[0.5, 0.1]", r"'data\.erasing': area must be"),
        (
            "data.erasing.fill=[0.1, 0.2]",
            r"'data\.erasing\.fill' is .*'mean' or 'noise'; 'data\.erasing\.fill\.2' is missing",
        ),
        ("schedule.decay.type=cosin", r"'schedule\.decay\.type' is 'cosin'; did you mean 'cosine'\?"),
        ("schedule.decay={}", r"'schedule\.decay\.type' is missing; expected one of constant"),
        ("optimizer.type=sgd", r"'optimizer\.lr' is missing"),
        ("sampler.num_instances=1", r"sampler\.num_instances is 1, but a triplet loss needs"),
        ("data.size=[1", r"override 'data\.size=\[1': the value is not YAML"),
        ("epochs", r"override 'epochs': expected key=value"),
    ],
)
def test_a_wrong_override_is_one_readable_line(make_recipe: Callable[..., Recipe], override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        make_recipe(override)
    assert "\n" not in str(caught.value)


def test_a_list_with_a_wrong_item_is_not_called_too_short(make_recipe: Callable[..., Recipe]) -> None:
    with pytest.raises(RecipeError, match=r"unknown key 'losses\.0\.logits'") as caught:
        make_recipe("losses=[{type: triplet, embedding: features, logits: id}]")
    assert "at least" not in str(caught.value)


def test_a_learned_weight_needs_something_to_weigh(make_recipe: Callable[..., Recipe]) -> None:
    make_recipe("losses.1.weight=0")
    with pytest.raises(RecipeError, match=r"losses\.1\.weight is 0, but loss_weighting\.mode 'learned' needs"):
        make_recipe("losses.1.weight=0", "loss_weighting.mode=learned")


# ----------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "not valid YAML: .* in line 1"),
        ("- 1\n- 2\n", "expected a mapping of keys to values, got list"),
        ("", "expected a mapping of keys to values, got NoneType"),
        ("seed: 1\nseed: 2\n", "not valid YAML: the key 'seed' is there twice in line 2"),
        ("name: x\n", "'data' is missing.*'model' is missing"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=rf"wrong\.yaml: {message}") as caught:
        load_recipe(path)
    assert "\n" not in str(caught.value)


def test_an_unknown_recipe_offers_close_names(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no recipe file or name 'safr/veri776_smal'; did you mean"):
        load_recipe("safr/veri776_smal")
    with pytest.raises(RecipeError, match=r"missing\.yaml: no such recipe file"):
        load_recipe(tmp_path / "missing.yaml")


def test_a_name_like_no_other_says_what_lists_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match=r"no recipe file or name 'qqqq\.yaml'; 'pyreid recipes' lists all \d+$"):
        load_recipe("qqqq.yaml")
    (tmp_path / "qqqq").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match=r"^qqqq: is a folder without recipe\.yaml"):
        load_recipe("qqqq")


def test_a_recipe_cannot_be_changed(make_recipe: Callable[..., Recipe]) -> None:
    recipe = make_recipe()
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["schedule.interval=iteration"], "schedule.interval is 'iteration', which needs trainer.iterations_per_epoch"),
        (
            ["schedule.cycles={begin: 1, count: 2, length: 3, lr: 0.1}", "trainer.epochs=6"],
            r"schedule.cycles ends after epoch 7 \(1 \+ 2 x 3\), but trainer.epochs is 6",
        ),
        (
            ["schedule.decay={type: exponential, start: 9.0}", "trainer.epochs=9"],
            "schedule.decay.start is 9, but the decay ends with epoch 9",
        ),
    ],
)
def test_schedules_that_do_not_fit_the_run(overrides: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe("safr/veri776_small", overrides)


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ("[{type: glob_push}]", r"losses\.0 is a glob_push loss on the embedding 'embedding', which needs a center"),
        (
            "[{type: center, distance: cosine, embedding: features}, {type: push}]",
            r"losses\.1 is a push loss on the embedding 'embedding', which needs a center loss with distance: cosine",
        ),
        ("[{type: center}, {type: center, distance: cosine}]", r"losses\.1 is a second center loss on the embedding"),
    ],
)
def test_push_losses_need_the_centres_of_a_center_loss(losses: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe("safr/veri776_small", [f"losses={losses}"])
    load_recipe("safr/veri776_small", ["losses=[{type: push, smart: false}]"])


def test_a_folder_of_repeated_runs_is_no_recipe(tmp_path: Path) -> None:
    (tmp_path / "run-1").mkdir()
    (tmp_path / "run-1" / "recipe.yaml").write_text("base: demo\n")
    with pytest.raises(RecipeError, match=r"holds repeated runs; give one of them, such as .*run-1"):
        load_recipe(str(tmp_path))
