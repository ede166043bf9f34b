from __future__ import annotations

import copy
import pickle
from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from pyreid.models import ModelOutput, ReIDModel, complexity, create_model
from pyreid.models import base as base_module
from pyreid.models import dare as dare_module
from pyreid.models.dare import DaRe, TriNet, TriNetEnsemble
from pyreid.models.paper import measure

NAMES = ("stage1", "stage2", "stage3", "stage4", "embedding")
TINY = "test_resnet"


def make_dare(**overrides: object) -> DaRe:
    model = create_model("dare_r50", **({"backbone": TINY} | overrides))  # type: ignore[arg-type]
    assert isinstance(model, DaRe)
    return model


def settle(model: ReIDModel) -> ReIDModel:
    """Give the batch norms statistics and every branch a scale, so that all parts of the network show in the output."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.0)
        for _ in range(3):
            model(torch.randn(4, 3, 64, 32))
    return model.eval()


@pytest.fixture(scope="module", params=["ResNet", "DenseNet"])
def settled(request: pytest.FixtureRequest) -> DaRe:
    torch.manual_seed(0)
    backbone = {"ResNet": TINY, "DenseNet": "densenet121"}[request.param]
    model = settle(make_dare(backbone=backbone, num_classes=2))
    assert isinstance(model, DaRe)
    return model


@pytest.fixture
def tiny_ensemble(monkeypatch: pytest.MonkeyPatch) -> TriNetEnsemble:
    monkeypatch.setattr(dare_module, "ENSEMBLE", dict.fromkeys(dare_module.ENSEMBLE, TINY))
    torch.manual_seed(0)
    model = settle(create_model("trinet_ensemble", num_classes=2))
    assert isinstance(model, TriNetEnsemble)
    return model


def count_calls(model: nn.Module) -> Counter[str]:
    """Calls of every module from now on, by its name."""
    calls: Counter[str] = Counter()
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: calls.update([name]))
    return calls


@pytest.mark.parametrize(
    ("name", "overrides", "params", "macs"),
    [
        ("dare_r50", {}, 27.977e6, 2673.61e6),
        ("dare_r50", {"fc_dim": 1204}, 28.763e6, None),
        ("dare_d201", {}, 23.223e6, 2801.3e6 + 5.11e6),
        ("trinet_ensemble", {}, None, 6.246e9),
    ],
)
def test_sizes(name: str, overrides: dict[str, int], params: float | None, macs: float | None) -> None:
    found = measure(name, **overrides)
    assert params is None or found.params == pytest.approx(params, rel=1e-4)
    assert macs is None or found.macs == pytest.approx(macs, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "alone", "cumulative"),
    [
        (
            "dare_r50",
            {"stage1": 513.67e6, "stage2": 1185.02e6, "stage3": 2141.85e6, "embedding": 2673.61e6},
            (513.67e6, 1185.42e6, 2142.90e6, 2673.61e6),
        ),
        (
            # of the trunk alone, to which the head with its two layers comes
            "dare_d201",
            {
                "stage1": 756.5e6 + 256 * 1024 + 1024 * 128,
                "stage2": 1289.2e6 + 512 * 1024 + 1024 * 128,
                "stage3": 2375.5e6 + 1792 * 1024 + 1024 * 128,
                "embedding": 2801.3e6 + (256 + 512 + 1792 + 1920) * 1024 + 4 * 1024 * 128,
            },
            None,
        ),
        (
            "trinet_ensemble",
            {"resnet18": 1.184e9, "resnet34": 3.577e9, "embedding": 6.246e9},
            (1.184e9, 3.577e9, 6.246e9),
        ),
    ],
)
def test_costs_of_the_exits(name: str, alone: dict[str, float], cumulative: tuple[float, ...] | None) -> None:
    with torch.device("meta"):
        model = create_model(name).eval()
        costs = model.exit_costs()
        found = [exit_.cumulative_macs for exit_ in model.stages(torch.empty(1, 3, 256, 128))]
    assert costs == pytest.approx(alone, rel=1e-3)
    assert tuple(costs) == model.exit_names
    if cumulative is not None:
        assert found == pytest.approx(list(cumulative), rel=1e-3)
    assert found[-1] == costs["embedding"] == complexity(model).macs
    assert model.exit_costs((128, 64))["embedding"] < costs["embedding"] / 3


def test_costs_of_the_authors_as_they_list_them() -> None:
    with torch.device("meta"):
        model, ensemble = create_model("dare_r50"), create_model("trinet_ensemble")
        dense = create_model("dare_d201")
    costs = model.exit_costs(source="author")
    assert costs == {
        "stage1": 523_568_640, "stage2": 1_150_094_336, "stage3": 2_060_915_200, "embedding": 2_542_295_040
    }  # fmt: skip
    assert costs == model.exit_costs((256, 128), source="author") != model.exit_costs()
    with pytest.raises(ValueError, match="source: got 'author' for DaRe at 64 x 32, expected the size 256 x 128"):
        model.exit_costs((64, 32), source="author")
    for other in (ensemble, dense):
        with pytest.raises(ValueError, match=r"source: got 'author' for .*, expected 'measured'"):
            other.exit_costs(source="author")
    with pytest.raises(ValueError, match="source: got 'guess', expected one of 'measured', 'author'"):
        model.exit_costs(source="guess")  # type: ignore[arg-type]


def test_costs_follow_a_replaced_module() -> None:
    with torch.device("meta"):
        model = create_model("dare_r50").eval()
        before = model.exit_costs((64, 32))
        images = torch.empty(1, 3, 64, 32)
        list(model.stages(images))
        model.heads[1] = type(model.heads[1])(512, fc_dim=8, embedding_dim=128).eval()
        after = model.exit_costs((64, 32))
        found = {exit_.name: exit_.cumulative_macs for exit_ in model.stages(images)}
    saved = 512 * 1024 + 1024 * 128 - (512 * 8 + 8 * 128)
    assert {name: before[name] - after[name] for name in before} == {
        "stage1": 0, "stage2": saved, "stage3": 0, "embedding": saved
    }  # fmt: skip
    assert found["embedding"] == after["embedding"]
    # a copy counts for itself, and can be pickled
    twin = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    assert twin.exit_costs((64, 32)) == after


def test_heads_of_earlier_exits_tell_the_two_costs_apart(settled: DaRe) -> None:
    """What has been executed includes the earlier heads, what has to be does not."""
    size = (64, 32)
    costs = settled.exit_costs(size)
    found = {exit_.name: exit_.cumulative_macs for exit_ in settled.stages(torch.zeros(1, 3, *size))}
    heads = [head.fc1.weight.numel() + head.fc2.weight.numel() for head in settled.heads]  # type: ignore[union-attr, operator]
    assert found["stage1"] == costs["stage1"]
    assert found["stage2"] == costs["stage2"] + heads[0]
    assert found["stage3"] == costs["stage3"] + heads[0] + heads[1]
    assert found["embedding"] == costs["embedding"]


def test_exits_equal_the_full_pass(settled: DaRe) -> None:
    images = torch.randn(3, 3, 64, 32)
    exits = list(settled.stages(images))
    assert [exit_.name for exit_ in exits] == ["stage1", "stage2", "stage3", "embedding"]
    embeddings = settled.embed_stages(images)
    for exit_ in exits:
        assert torch.equal(exit_.embedding, embeddings[exit_.name])
    assert torch.equal(exits[-1].embedding, settled(images))
    assert [exit_.cumulative_macs for exit_ in exits] == sorted(exit_.cumulative_macs for exit_ in exits)
    different = torch.stack([exit_.embedding for exit_ in exits])
    assert torch.cdist(different.flatten(1), different.flatten(1)).add(10 * torch.eye(4)).min() > 0.1


def test_one_exit_alone_is_the_same(settled: DaRe) -> None:
    """:meth:`exit_costs` measures what the exits really need."""
    images = torch.randn(2, 3, 64, 32)
    for exit_ in settled.stages(images):
        assert torch.equal(settled._run_to_exit(images, exit_.name), exit_.embedding)
    with pytest.raises(ValueError, match="exit: got 'stage4', expected one of stage1, stage2, stage3, embedding"):
        settled._run_to_exit(images, "stage4")


def test_fusion_is_the_weighted_sum(settled: DaRe) -> None:
    embeddings = settled.embed_stages(torch.randn(3, 3, 64, 32))
    weights = settled.fusion_weight.tolist()
    expected = sum(w * embeddings[name] for w, name in zip(weights, NAMES[:4], strict=True))
    torch.testing.assert_close(embeddings["embedding"], expected)
    assert not torch.allclose(embeddings["embedding"].norm(dim=1), torch.ones(3), atol=0.01)


def test_stages_in_a_row_are_timm_s_network(settled: DaRe) -> None:
    images = torch.randn(2, 3, 64, 32)
    seen: list[Tensor] = []
    handle = settled.heads[3].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    settled(images)
    handle.remove()
    torch.testing.assert_close(seen[0], settled.backbone.forward_features(images))


def test_who_stops_has_not_paid_for_the_rest() -> None:
    model = settle(make_dare())
    list(model.stages(torch.zeros(1, 3, 32, 32)))  # the costs of this size are counted, on a copy of the model
    calls = count_calls(model)
    exits = model.stages(torch.randn(1, 3, 32, 32))
    assert not calls
    next(exits)
    assert calls["heads.0"] == calls["backbone.layer1"] == calls["backbone.conv1"] == 1
    assert calls["heads.1"] == calls["backbone.layer2"] == 0
    next(exits)
    assert calls["heads.1"] == calls["backbone.layer2"] == 1
    assert calls["backbone.layer3"] == calls["backbone.layer4"] == 0
    exits.close()  # type: ignore[attr-defined]
    assert calls["backbone.layer1"] == 1
    calls.clear()
    assert len(list(model.stages(torch.randn(1, 3, 32, 32)))) == 4
    assert calls["backbone.conv1"] == calls["backbone.layer1"] == calls["backbone.layer4"] == calls["heads.3"] == 1


def test_costs_are_counted_once_for_each_size(monkeypatch: pytest.MonkeyPatch) -> None:
    model = settle(make_dare())
    sizes: list[tuple[int, int]] = []
    count = base_module.macs_of_steps
    monkeypatch.setattr(base_module, "macs_of_steps", lambda m, run, size: sizes.append(size) or count(m, run, size))  # type: ignore[func-returns-value]
    for height, width in ((32, 16), (32, 16), (48, 16), (32, 16)):
        for batch in (1, 3):
            next(model.stages(torch.randn(batch, 3, height, width)))
    assert sizes == [(32, 16), (48, 16)]
    assert model.exit_costs((32, 16)) == model.exit_costs((32, 16)) != model.exit_costs((48, 16))
    assert sizes[2:] == [(32, 16), (48, 16)]
    first = list(model.stages(torch.randn(2, 3, 32, 16)))
    second = list(model.stages(torch.randn(5, 3, 32, 16)))
    assert [e.cumulative_macs for e in first] == [e.cumulative_macs for e in second]  # of one image, whatever the batch


def test_exits_under_inference_mode_and_autocast() -> None:
    model = settle(make_dare())
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        exits = list(model.stages(images))
    assert all(exit_.embedding.dtype == torch.float32 for exit_ in exits)
    assert torch.cosine_similarity(exits[-1].embedding, model(images)).min() > 0.98
    assert [e.cumulative_macs for e in exits] == [e.cumulative_macs for e in model.stages(images)]


def test_exits_need_evaluation_mode_and_real_images() -> None:
    model = make_dare()
    with pytest.raises(ValueError, match=r"stages: got a model in training mode, expected .* call eval\(\) first"):
        model.stages(torch.zeros(1, 3, 32, 32))
    with pytest.raises(ValueError, match=r"images: got shape \(3, 32, 32\)"):
        model.eval().stages(torch.zeros(3, 32, 32))
    for size in ((0, 3), 4, [4, 4, 4]):
        with pytest.raises(ValueError, match=r"input_size: got .*, expected \(height, width\), two positive integers"):
            model.exit_costs(size)  # type: ignore[arg-type]
    assert model.exit_costs([32, 16]) == model.exit_costs((32, 16))  # type: ignore[arg-type]


def test_models_without_exits_name_those_with() -> None:
    model = create_model("rmnet").eval()
    expected = "RMNet has no early exits; models that have: dare_d201, dare_r50, trinet_ensemble"
    with pytest.raises(ValueError, match=f"^stages: {expected}$"):
        model.stages(torch.zeros(1, 3, 32, 32))
    with pytest.raises(ValueError, match=f"^exit_costs: {expected}$"):
        model.exit_costs()


@pytest.mark.parametrize("deep_supervision", [True, False])
def test_deep_supervision_decides_what_the_losses_see(deep_supervision: bool) -> None:
    model = make_dare(deep_supervision=deep_supervision, num_classes=3)
    output = model(torch.randn(4, 3, 32, 32))
    assert isinstance(output, ModelOutput)
    assert tuple(output.embeddings) == (NAMES if deep_supervision else ("embedding",))
    assert torch.equal(output.logits["id"], model.classifier(output.embeddings["embedding"]))  # type: ignore[misc]
    assert make_dare()(torch.randn(4, 3, 32, 32)).logits == {}


def test_initial_weights_of_the_fusion() -> None:
    assert make_dare(fusion_init=0.25).fusion_weight.tolist() == [0.25] * 4
    torch.manual_seed(0)
    drawn = torch.stack([make_dare().fusion_weight.detach() for _ in range(8)])
    assert drawn.abs().max() <= 0.5
    assert 0.2 < drawn.std() < 0.4  # 1 / sqrt(12) = 0.289


def test_dense_maps_are_activated_before_the_transition() -> None:
    with torch.device("meta"):
        model = create_model("dare_d201")
    assert isinstance(model, DaRe)
    heads = list(model.heads)
    assert [head.fc1.in_features for head in heads] == [256, 512, 1792, 1920]  # type: ignore[union-attr]
    assert [type(head.norm) for head in heads] == [nn.Sequential] * 3 + [nn.Identity]
    assert model.min_input_size == (29, 29)
    with torch.device("meta"):
        maps = [head.fc1.in_features for head in create_model("dare_r50").heads]  # type: ignore[union-attr]
    assert maps == [256, 512, 1024, 2048]


def test_smallest_dense_image(settled: DaRe) -> None:
    least = settled.min_input_size[0]
    assert settled(torch.randn(1, 3, least, least)).isfinite().all()
    if least > 1:
        with pytest.raises(ValueError, match=r"images: got 28 x 40 pixels .* expected at least 29 x 29"):
            settled(torch.randn(1, 3, 28, 40))
        with pytest.raises(ValueError, match=r"images: got 40 x 28 pixels .* expected at least 29 x 29"):
            settled.exit_costs((40, 28))
        with pytest.raises(RuntimeError, match="too small"):
            settled.backbone(torch.randn(1, 3, 28, 28))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"fc_dim": 0}, "fc_dim: got 0, expected 1 or more"),
        ({"embedding_dim": 0}, "embedding_dim: got 0, expected 1 or more"),
        ({"backbone": "mobilenetv3_small_050"}, "expected a ResNet or DenseNet, which have four stages"),
        ({"backbone": "vit_tiny_patch16_224"}, "expected a ResNet, DenseNet or MobileNetV3"),
    ],
)
def test_wrong_settings(overrides: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_dare(**overrides)


def test_trinet_is_the_head_on_the_last_map() -> None:
    model = settle(create_model("trinet_r18", backbone=TINY))
    assert isinstance(model, TriNet)
    images = torch.randn(2, 3, 48, 32)
    torch.testing.assert_close(model(images), model.head(model.backbone.forward_features(images)))
    assert tuple(model.train()(images).embeddings) == ("embedding",)
    assert model.exit_names == ()


def test_ensemble_runs_one_network_after_the_other(tiny_ensemble: TriNetEnsemble) -> None:
    images = torch.randn(2, 3, 32, 32)
    exits = list(tiny_ensemble.stages(images))
    assert [exit_.name for exit_ in exits] == ["resnet18", "resnet34", "embedding"]
    for exit_, net in zip(exits, tiny_ensemble.nets.values(), strict=True):
        assert torch.equal(exit_.embedding, net(images))
    assert torch.equal(exits[-1].embedding, tiny_ensemble(images))
    single = exits[0].cumulative_macs
    assert [exit_.cumulative_macs for exit_ in exits] == [single, 2 * single, 3 * single]
    calls = count_calls(tiny_ensemble)
    next(tiny_ensemble.stages(images))
    assert calls["nets.resnet18.backbone"] == 1
    assert calls["nets.resnet34.backbone"] == calls["nets.resnet50.backbone"] == 0
    output = tiny_ensemble.train()(images)
    assert tuple(output.embeddings) == ("resnet18", "resnet34", "embedding")
    assert output.logits["id"].shape == (2, 2)


@pytest.mark.parametrize("name", ["dare_r50", "trinet_r50"])
def test_compiles_without_graph_breaks(name: str) -> None:
    torch._dynamo.reset()
    model = create_model(name, backbone=TINY, num_classes=3)
    images = torch.randn(2, 3, 32, 32)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    compiled(images).logits["id"].square().sum().backward()
    model.eval()
    torch.testing.assert_close(compiled(images), model(images), rtol=1e-4, atol=1e-5)


def test_ensemble_compiles_without_graph_breaks(tiny_ensemble: TriNetEnsemble) -> None:
    torch._dynamo.reset()
    images = torch.randn(2, 3, 32, 32)
    compiled = torch.compile(tiny_ensemble, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(images), tiny_ensemble(images), rtol=1e-4, atol=1e-5)
