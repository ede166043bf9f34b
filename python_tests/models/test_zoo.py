"""What every model of the zoo promises, whatever its family."""

from __future__ import annotations

import copy
import keyword
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pyreid.layers import ChannelMask
from pyreid.models import ModelOutput, ReIDModel, create_model, list_models, model_entry, resolve_config, rmnet
from pyreid.models.base import check_images

# One of each class, for what does not depend on the variant: the cheapest.
FAMILIES = {
    "DaReConfig": "dare_r50",
    "HACNNConfig": "compact_reid_1x",
    "RMNetConfig": "rmnet",
    "SAFRConfig": "safr_small",
    "SAFRMicroConfig": "safr_micro",
    "ShuffleNetV2PlusConfig": "shufflenet_v2_plus_small",
    "TriNetConfig": "trinet_r18",
    "TriNetEnsembleConfig": "trinet_ensemble",
    "VehicleConfig": "cw_se_resnet18_concat",
}
FIRST = tuple(FAMILIES.values())


def presets() -> dict[str, tuple[str, dict[str, object]]]:
    """Every model, and every other value of what its function takes: a label -> its name and overrides."""
    found: dict[str, tuple[str, dict[str, object]]] = {name: (name, {}) for name in list_models()}
    for name in list_models():
        for option in model_entry(name).describe_options():
            if option.name in model_entry(name).parameters:
                for value in option.values.split(", "):
                    if value != option.default:
                        found[f"{name}-{option.name}={value}"] = (name, {option.name: value})
    return found


PRESETS = presets()

# Compiled with one block of each kind: it shows a graph break as well as all of them do, in a fraction of the time.
COMPILED: dict[str, dict[str, object]] = {
    "rmnet": {},
    "safr_small": {},
    "compact_reid_1x": {"repeats1": 1, "repeats2": 0, "repeats3": 0},
}


def documented_outputs() -> dict[str, tuple[list[str], list[str]]]:
    """The names of embeddings and logits of each model, from the table of docs/models.md."""
    text = (Path(__file__).parents[2] / "docs/models.md").read_text(encoding="utf-8")
    rows = text.split("## Outputs in training")[1].split("\n## ")[0].split("|---|---|---|\n")[1].split("\n\n")[0]
    found: dict[str, tuple[list[str], list[str]]] = {}
    for row in rows.splitlines():
        models, embeddings, logits = (re.findall(r"`([^`]+)`", cell) for cell in row.strip("|").split("|"))
        for name in [name for pattern in models for name in list_models(pattern)]:
            assert name not in found, f"{name} is there twice"
            found[name] = (embeddings, logits)
    return found


DOCUMENTED = documented_outputs()


def make_images(model: ReIDModel, count: int, height: int, width: int, **options: object) -> Tensor:
    """Noise images of that size, or of the model's smallest where that is larger."""
    least = model.min_input_size
    return torch.randn(count, 3, max(height, least[0]), max(width, least[1]), **options)  # type: ignore[call-overload, no-any-return]


def warm_up(model: ReIDModel) -> ReIDModel:
    """Let the batch norms see data, so that the output is neither tiny nor huge; leaves the model in evaluation."""
    with torch.no_grad():
        for module in model.modules():
            # timm starts the last scale of a residual branch at 0, which would hide everything inside the branch
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.0)
        for _ in range(3):
            model(make_images(model, 4, 48, 32))
    return model.eval()


@pytest.fixture(scope="module", params=PRESETS)
def warm(request: pytest.FixtureRequest) -> Iterator[ReIDModel]:
    """Every model and preset of the zoo in turn, warmed up and with 3 classes; tests leave it as they find it."""
    torch.manual_seed(0)
    name, overrides = PRESETS[request.param]
    model = warm_up(create_model(name, num_classes=3, **overrides))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    yield model
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_every_family_and_preset_is_among_the_cases() -> None:
    classes = {name: type(resolve_config(name)).__name__ for name in list_models()}
    assert {classes[name]: name for name in FIRST} == FAMILIES
    assert set(classes.values()) == set(FAMILIES)
    assert {label for label in PRESETS if "=" in label} == {
        *(f"safr_{size}-preset=author" for size in ("large", "medium", "small", "micro")),
        *(f"compact_reid_{size}-block=inception" for size in ("1x", "2x")),
    }
    assert set(list_models()) <= set(PRESETS)


@pytest.mark.parametrize("label", PRESETS)
def test_contract(label: str) -> None:
    name, overrides = PRESETS[label]
    model = create_model(name, num_classes=5, **overrides)
    width = model.embedding_dim
    output = model(make_images(model, 3, 65, 33))
    assert isinstance(output, ModelOutput)
    assert (list(output.embeddings), list(output.logits)) == DOCUMENTED[name]
    assert all(value.shape == (3, 5) for value in output.logits.values())
    assert all(value.dim() == 2 and len(value) == 3 for value in output.embeddings.values())
    assert output.embeddings["embedding"].shape == (3, width)
    sum(value.sum() for value in (*output.embeddings.values(), *output.logits.values())).backward()  # type: ignore[union-attr]
    trained = {key for key, value in model.named_parameters() if value.requires_grad}
    assert {key for key, value in model.named_parameters() if value.grad is not None} == trained

    model.eval()
    for height, size in ((64, 32), (37, 71), (1, 1), (50, 3)):
        embedding = model(make_images(model, 1, height, size))
        assert embedding.shape == (1, width)
        assert embedding.dtype == torch.float32
        assert embedding.isfinite().all()
    assert model(make_images(model, 0, 32, 32)).shape == (0, width)
    assert len(model.default_input_size) == len(model.min_input_size) == 2
    assert len(model.pixel_mean) == len(model.pixel_std) == 3
    assert model.config.num_classes == 5
    # an exported graph is code, in which these names have to stand
    assert not [name for name, _ in model.named_modules() if any(map(keyword.iskeyword, name.split(".")))]


@pytest.mark.parametrize("name", FIRST)
def test_without_classes_there_are_no_logits(name: str) -> None:
    model = create_model(name)
    assert model.classifier is None
    assert model(make_images(model, 2, 32, 32)).logits == {}


@pytest.mark.parametrize("name", FIRST)
def test_training_without_data(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=3)
        output = model(make_images(model, 2, 64, 48))
    assert all(value.is_meta for value in (*output.embeddings.values(), *output.logits.values()))


@pytest.mark.parametrize("name", FIRST)
@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (torch.zeros(3, 32, 32), ValueError, r"images: got shape \(3, 32, 32\), expected \(N, 3, H, W\)"),
        (torch.zeros(2, 1, 32, 32), ValueError, r"images: got shape \(2, 1, 32, 32\)"),
        (torch.zeros(2, 3, 0, 32), ValueError, r"images: got shape \(2, 3, 0, 32\)"),
        ([torch.zeros(3, 32, 32)], TypeError, "images: got list, expected a tensor; pyreid.FeatureExtractor takes"),
        (torch.zeros(2, 3, 64, 64, dtype=torch.uint8), TypeError, "images: got torch.uint8, expected a floating-point"),
    ],
)
def test_wrong_images_are_refused(name: str, images: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        create_model(name)(images)


@pytest.mark.parametrize("size", [(15, 8), (16, 7), (1, 1)])
def test_images_below_the_smallest_size_are_refused(size: tuple[int, int]) -> None:
    check_images(torch.zeros(0, 3, 16, 8), min_size=(16, 8))
    with pytest.raises(ValueError, match=rf"images: got {size[0]} x {size[1]} pixels .*, expected at least 16 x 8"):
        check_images(torch.zeros(2, 3, *size), min_size=(16, 8))


def test_images_of_a_batch_do_not_mix_in_evaluation(warm: ReIDModel) -> None:
    images = make_images(warm, 3, 48, 32)
    together = warm(images).detach()
    # An untrained network without a neck may give small values that differ little; what counts is their spread.
    spread = float(together.std(dim=0).max())
    assert spread > 1e-5 * float(together.abs().max())  # the images do differ in their embeddings
    for index in range(3):
        alone = warm(images[index : index + 1])
        torch.testing.assert_close(alone, together[index : index + 1], rtol=0, atol=min(1e-4, 0.01 * spread))


def test_channels_last_gives_the_same(warm: ReIDModel) -> None:
    images = make_images(warm, 2, 48, 32)
    model = copy.deepcopy(warm).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    found = model(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(found, warm(images), rtol=1e-4, atol=1e-5)


def test_state_dict_round_trip(warm: ReIDModel) -> None:
    second = copy.deepcopy(warm)
    with torch.no_grad():
        for value in second.state_dict().values():
            value.zero_()
    images = make_images(warm, 2, 32, 32)
    assert not torch.equal(warm(images), second(images))
    second.load_state_dict(warm.state_dict())
    assert torch.equal(warm(images), second(images))


def test_double_precision(warm: ReIDModel) -> None:
    model = copy.deepcopy(warm).double()
    images = make_images(warm, 2, 32, 32)
    found = model(images.double())
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.float(), warm(images), rtol=1e-3, atol=1e-4)
    output = model.train()(images.double())
    assert {value.dtype for value in (*output.embeddings.values(), *output.logits.values())} == {torch.float64}


def test_one_step_changes_every_parameter_that_learns(warm: ReIDModel) -> None:
    model = copy.deepcopy(warm).train()
    for module in list(model.modules()):
        # With the statistics of the batch, a bias before batch norm would have no effect, and so no gradient.
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
        # A unit that happens to be 0 for all images has no gradient either, which is no fault of the model.
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.LeakyReLU(0.1))
        if isinstance(module, ChannelMask) and not module.is_static:
            # its input is not negative, so neither is what the ReLU inside then gets
            module.reduce.weight.data.abs_()
    output = model(make_images(model, 4, 48, 32))
    named = output.embeddings | {f"logits {key}": value for key, value in output.logits.items()}
    loss = torch.stack([(value * torch.randn_like(value)).sum() for value in named.values()]).sum()
    loss.backward()
    learning = {key: value for key, value in model.named_parameters() if value.requires_grad}
    before = {key: value.detach().clone() for key, value in learning.items()}
    torch.optim.SGD(learning.values(), lr=1.0).step()
    assert [key for key, value in learning.items() if torch.equal(value, before[key])] == []
    assert all(value.isfinite().all() for value in learning.values())


@pytest.mark.parametrize("name", FIRST)
def test_bfloat16_autocast_trains_and_embeds_in_float32(name: str) -> None:
    model = create_model(name, num_classes=4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(make_images(model, 4, 48, 32))
        losses = [nn.functional.cross_entropy(x, torch.tensor([0, 1, 2, 3])) for x in output.logits.values()]
        embedding = model.eval()(make_images(model, 2, 48, 32))
    torch.stack(losses).sum().backward()
    assert {value.dtype for value in (*output.embeddings.values(), embedding)} == {torch.float32}
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", FIRST)
def test_autocast_stays_near_full_precision(name: str) -> None:
    model = warm_up(create_model(name))
    images = make_images(model, 2, 48, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = model(images)
    similarity = torch.cosine_similarity(low, model(images))
    assert similarity.min() > 0.98


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", FIRST)
def test_half_precision_models_embed_in_float32(name: str, dtype: torch.dtype) -> None:
    """``model.bfloat16()``, with all weights in half precision: the embedding is near that of full precision."""
    torch.manual_seed(0)
    # a mask of SAFR that is 0 or 1 jumps with the rounding
    overrides = {"mask": "soft"} if name.startswith("safr") else {}
    model = warm_up(create_model(name, num_classes=3, **overrides))  # type: ignore[arg-type]
    images = make_images(model, 4, 64, 48)
    with torch.no_grad():
        expected = model(images)
        low = model.to(dtype)(images.to(dtype))
    assert low.dtype == torch.float32
    assert low.isfinite().all()
    # roundings of 2^-9 or 2^-12 in some fifty layers, as many of them independent
    roundings = 2.0**-9 if dtype == torch.bfloat16 else 2.0**-12
    error = float(((low - expected).norm(dim=1) / expected.norm(dim=1)).max())
    assert 0 < error < 2 * 50**0.5 * roundings
    output = model.train()(images.to(dtype))
    assert {value.dtype for value in (*output.embeddings.values(), *output.logits.values())} == {torch.float32}


@pytest.mark.parametrize("name", COMPILED)
def test_compiles_without_graph_breaks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch._dynamo.reset()
    monkeypatch.setattr(rmnet, "STAGES", ((32, 1), (64, 1), (128, 1), (256, 1)))
    # double: batch norm over a few values magnifies the rounding errors of another order of the same sums
    model = create_model(name, num_classes=3, **COMPILED[name]).double()
    if name == "rmnet":
        model.set_dropout(0.0)  # type: ignore[operator]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    images = make_images(model, 4, 48, 32, dtype=torch.float64)

    expected = model(images)
    torch.cat([x.flatten() for x in expected.logits.values()]).square().sum().backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]

    model.load_state_dict(state)
    model.zero_grad()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    output = compiled(images)
    assert isinstance(output, ModelOutput)
    torch.cat([x.flatten() for x in output.logits.values()]).square().sum().backward()
    torch.testing.assert_close(output.embeddings, expected.embeddings, rtol=1e-4, atol=1e-5)
    found = [p.grad for p in model.parameters() if p.grad is not None]
    scale = max(float(g.abs().max()) for g in gradients)
    for ours, theirs in zip(found, gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * scale)

    model.eval()
    torch.testing.assert_close(compiled(images), model(images), rtol=1e-4, atol=1e-5)
