"""Losses of the user's own in recipes: where they are found, how they train, and one-line errors before a step."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pyreid
from pyreid.errors import RecipeError
from pyreid.models import ModelOutput
from pyreid.training import Recipe, dump_recipe, load_recipe, train
from pyreid.training.objectives import Objective, needs_classifier, term_names
from pyreid.training.resume import changed_keys
from pyreid.training.settings.losses import CustomSettings
from python_tests.training.test_resume import assert_same, interrupt, weights

pytestmark = pytest.mark.filterwarnings("ignore::pyreid.data.DatasetWarning")

MakeRecipe = Callable[..., Recipe]
DOCUMENT = Path(__file__).parents[2] / "docs/training.md"
SOURCE = """
import torch
from torch import nn
import helper_beside

class Good(nn.Module):
    def __init__(self, scale=helper_beside.SCALE):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.noise = nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x, labels):
        self.calls += 1
        return self.noise(self.scale * x).square().mean()

class Result(nn.Module):
    def __init__(self, of):
        super().__init__()
        self.of = eval(of)

    def forward(self, x, labels):
        return self.of(x, labels)

class Picky(nn.Module):
    def __init__(self, scale):
        raise ValueError("scale is\\ntoo large")

class Plain:
    pass

def loss(x, labels):
    return x.mean()

def make_good(**options):
    return Good(**options)

def make_number():
    return 3

instance = nn.Identity()
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder with losses."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "mine.py").write_text(SOURCE)
    (folder / "helper_beside.py").write_text("SCALE = 2.0\n")
    return folder


def item(loss: str, **keys: Any) -> str:
    text = ", ".join(f"{key}: {value}" for key, value in ({"embedding": "local"} | keys).items())
    return f"losses=[{{type: cross_entropy}}, {{type: custom, loss: '{loss}', {text}}}]"


def doc_blocks(section: str) -> list[str]:
    text = DOCUMENT.read_text().split(f"\n## {section}\n")[1].split("\n## ")[0]
    return [textwrap.dedent(block) for block in re.findall(r"(?:^    .*\n|^\n(?=    ))+", text, re.MULTILINE)]


def test_the_example_of_the_documents_trains_as_it_stands(
    tmp_path: Path, market: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, recipe, *_ = doc_blocks("A loss of your own")
    (tmp_path / "contrast.py").write_text(source)
    (tmp_path / "mine.yaml").write_text(recipe)
    small = ["data.size=[32,16]", "sampler.num_ids=3", "trainer.epochs=1", "schedule.warmup=null", "data.workers=0"]
    loaded = load_recipe(tmp_path / "mine.yaml", [f"data.root={market}", *small])
    result = train(loaded, output_dir=tmp_path / "run", progress=False)
    assert result.history[-1]["custom_Contrast"] > 0
    assert weights(result)["objective.terms.1.scale"] != 16
    # The trained model needs the loss no more.
    (tmp_path / "contrast.py").unlink()
    assert pyreid.FeatureExtractor(tmp_path / "run").model is not None


def test_a_file_lies_beside_the_recipe_or_in_the_working_directory(
    recipe_file: Path, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loss_of(loss: str, *overrides: str) -> str:
        recipe = recipe_file.read_text().replace(
            "optimizer:", f"  - {{type: custom, loss: {loss}, logits: id}}\noptimizer:"
        )
        path = tmp_path / "with.yaml"
        path.write_text(recipe)
        found = load_recipe(path, overrides).losses[2]
        assert isinstance(found, CustomSettings)
        return found.loss

    monkeypatch.chdir(own)
    assert loss_of("mine.py:Good") == f"{own}/mine.py:Good"
    assert loss_of("own/mine.py:Good") == f"{own}/mine.py:Good"
    assert loss_of("os.path:join") == "os.path:join"
    (tmp_path / "mine.py").touch()
    assert loss_of("mine.py:Good") == f"{tmp_path}/mine.py:Good", "the recipe's folder comes first"
    assert loss_of("mine.py:Good", "losses.2.loss=mine.py:Good") == f"{own}/mine.py:Good"
    assert loss_of("/gone/mine.py:Good") == "/gone/mine.py:Good", "a trained run can be read without its loss"
    message = r"with\.yaml: 'losses\.2\.loss' is 'min\.py:G', but min\.py is neither .*; did you mean 'mine\.py'\?"
    with pytest.raises(RecipeError, match=message):
        loss_of("min.py:G")


def test_the_file_of_a_base_lies_beside_the_base(recipe_file: Path, own: Path, tmp_path: Path) -> None:
    (own / "base.yaml").write_text(
        recipe_file.read_text().replace("optimizer:", "  - {type: custom, loss: mine.py:Good, logits: id}\noptimizer:")
    )
    (tmp_path / "child.yaml").write_text("base: own/base.yaml\nname: child\n")
    recipe = load_recipe(tmp_path / "child.yaml")
    assert recipe.losses[2].loss == f"{own}/mine.py:Good"  # type: ignore[union-attr]
    (tmp_path / "again.yaml").write_text(dump_recipe(recipe))
    assert load_recipe(tmp_path / "again.yaml") == recipe


def test_its_terms_are_weighted_and_named() -> None:
    name = "python_tests.training.own_loss:Spread"
    settings = [
        CustomSettings(type="custom", loss=name, embedding="a", options={"scale": 3.0}, weight=0.5),
        CustomSettings(type="custom", loss=name, logits="id"),
        CustomSettings(type="custom", loss="torch.nn:CrossEntropyLoss", logits="id"),
    ]
    assert term_names(settings) == ("custom_Spread_a", "custom_Spread_id", "custom_CrossEntropyLoss")
    assert needs_classifier(settings[1:])
    assert not needs_classifier(settings[:1])
    output = ModelOutput({"a": torch.full((4, 2), 2.0)}, {"id": torch.ones(4, 3)})
    total, terms = Objective(settings, num_classes=3)(output, torch.zeros(4).long())
    torch.testing.assert_close(terms, torch.tensor([36.0, 4.0, math.log(3)]))
    torch.testing.assert_close(total, 0.5 * terms[0] + terms[1] + terms[2])


def test_mixed_precision_ends_before_it() -> None:
    seen: list[torch.dtype] = []

    class Product(nn.Module):
        def forward(self, x: Tensor, labels: Tensor) -> Tensor:
            seen.append((x @ x.T).dtype)
            return x.double().mean()

    objective = Objective([CustomSettings(type="custom", loss="torch.nn:Identity", embedding="a")], num_classes=3)
    objective.terms[0] = Product()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, _ = objective(ModelOutput({"a": torch.ones(4, 2).bfloat16()}, {}), torch.zeros(4))
    assert (seen, total.dtype) == ([torch.float32], torch.float32)


def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(
    make_recipe: MakeRecipe, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(item(f"{own}/mine.py:make_good", options="{scale: 1.5}"))
    whole = train(recipe, output_dir=tmp_path / "whole", progress=False)
    interrupt(monkeypatch, recipe, tmp_path / "cut", epoch=1, batch=0)
    monkeypatch.chdir(tmp_path / "cut")
    again = load_recipe(tmp_path / "cut/recipe.yaml")
    resumed = train(again, output_dir=tmp_path / "cut", resume=True, progress=False)
    assert_same(weights(resumed), weights(whole))
    found = weights(whole)
    steps = torch.load(whole.last_checkpoint, weights_only=True)["global_step"]
    assert found["objective.terms.1.calls"] == steps, "the trial before the first step leaves no trace"
    assert found["objective.terms.1.scale"] != 1.5


def test_another_folder_is_no_change_but_another_file_or_name_is() -> None:
    def changed(before: str, after: str) -> list[str]:
        return changed_keys({"losses": [{"loss": before}]}, {"losses": [{"loss": after}]})

    assert changed("/a/mine.py:Good", "/b/mine.py:Good") == []
    assert changed("/a/mine.py:Good", "/a/mine.py:Other") != []
    assert changed("/a/mine.py:Good", "/a/other.py:Good") != []
    assert changed("a.mine:Good", "b.mine:Good") != []


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            "loss: Good, embedding: local",
            r"'losses\.0\.loss' is 'Good': expected FILE\.py:NAME or package\.module:NAME",
        ),
        ("loss: 'mine.py:', embedding: local", r"'losses\.0\.loss' is 'mine\.py:': expected FILE"),
        ("loss: 'a.b:C'", r"'losses\.0': expected either embedding or logits, .*; got none"),
        ("loss: 'a.b:C', embedding: x, logits: y", r"got embedding 'x' and logits 'y'"),
        ("loss: 'a.b:C', embedding: x, margin: 1", r"unknown key 'losses\.0\.margin'"),
        ("loss: 'a.b:C', embedding: x, options: 3", r"'losses\.0\.options' is 3; expected a mapping"),
    ],
)
def test_wrong_items(make_recipe: MakeRecipe, keys: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        make_recipe(f"losses=[{{type: custom, {keys}}}]")


RESULT = "{{of: 'lambda x, y: {}'}}"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("min.py:Good", "{}", r"but there is no such file; did you mean 'mine\.py'\?"),
        ("mine.py:Godo", "{}", r"mine\.py has no 'Godo'; did you mean 'Good'\?"),
        ("mine.py:instance", "{}", "which is a Identity; expected an nn.Module class, or a function that returns"),
        ("mine.py:Plain", "{}", "which is no nn.Module; expected an nn.Module class"),
        ("mine.py:make_number", "{}", "which returns a int; expected an nn.Module class"),
        ("mine.py:loss", "{}", r"takes \(x, labels\): missing a required argument: 'x'; expected an nn\.Module class"),
        ("mine.py:Good", "{scael: 1}", r"'losses\.1\.options' is \{'scael': 1\}, but .*; did you mean 'scale'\?"),
        ("mine.py:Picky", "{scale: 9}", r"'losses\.1\.options' is .* fails: ValueError: scale is too large"),
        ("broken.py:X", "{}", r"broken\.py cannot be imported in line 2: NameError: name 'nothing'"),
        ("syntax.py:X", "{}", r"syntax\.py cannot be imported: SyntaxError: .*line 1"),
        ("mine.py:Result", RESULT.format("x.square().mean(1)"), r"returns torch\.float32 of shape \(6,\) on the"),
        ("mine.py:Result", RESULT.format("(y > 2).sum()"), r"returns torch\.int64 of shape \(\) .* a scalar float"),
        ("mine.py:Result", RESULT.format("x.mean().item()"), "returns a float on the embedding 'local'"),
        ("mine.py:Result", RESULT.format("x.mean() / 0"), "is -?inf on the embedding .* expected a finite number"),
        ("mine.py:Result", RESULT.format("x.detach().mean()"), "has no gradient; does it detach"),
        ("mine.py:Result", RESULT.format("x.reshape(4, 4)"), r"fails on the embedding .* \(6, 256\) .*RuntimeError"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_told_before_the_first_step(
    make_recipe: MakeRecipe, own: Path, tmp_path: Path, name: str, options: str, message: str
) -> None:
    (own / "broken.py").write_text("import torch\nnothing\n")
    (own / "syntax.py").write_text("class\n")
    with pytest.raises(RecipeError, match=message) as caught:
        train(make_recipe(item(f"{own}/{name}", options=options)), output_dir=tmp_path / "run", progress=False)
    assert str(caught.value).startswith("'losses.1.")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_unknown_modules_and_outputs(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    for loss, keys, message in (
        ("no_such_package.x:Y", {}, "no_such_package.x cannot be imported: ModuleNotFoundError: No module named"),
        ("python_tests.training.own_loss:Spraed", {}, "has no 'Spraed'; did you mean 'Spread'"),
        ("torch.nn:L1Loss", {"embedding": "locla"}, r"'losses\.1\.embedding' is 'locla', .* did you mean 'local'"),
        ("torch.nn:L1Loss", {"embedding": "null", "logits": "di"}, r"'losses\.1\.logits' is 'di', which the model"),
    ):
        with pytest.raises(RecipeError, match=message):
            train(make_recipe(item(loss, **keys)), output_dir=tmp_path / "run", progress=False)


@pytest.mark.parametrize("batches", ["identities", "shuffled"])
def test_the_trial_is_on_a_batch_of_the_sampler(
    make_recipe: MakeRecipe, own: Path, tmp_path: Path, batches: str
) -> None:
    """Eight images of each of two identities, of which there are four files; the message shows the labels."""
    (own / "look.py").write_text(
        "from torch import nn\nclass Look(nn.Module):\n"
        "    def forward(self, x, labels):\n        raise KeyError(labels.tolist())\n"
    )
    recipe = make_recipe(
        f"losses=[{{type: custom, loss: '{own}/look.py:Look', embedding: local}}]",
        f"sampler={{num_ids: 2, num_instances: 8, batches: {batches}}}",
    )
    expected = [0] * 8 + [1] * 8 if batches == "identities" else [i * 24 // 16 // 4 for i in range(16)]
    with pytest.raises(RecipeError, match=re.escape(f"KeyError: {expected}")):
        train(recipe, output_dir=tmp_path / "run", progress=False)
