from __future__ import annotations

import pytest
import torch
from torch import nn

from pyreid.layers import InceptionA, InceptionB, ShuffleA, ShuffleB
from pyreid.models import HACNN, complexity, create_model

# Parameters of the parts in Table 1, in its order, for the two models.
PARTS = {
    "stem": (928, 1_044),
    "stage1 widen": (9_632, 25_476),
    "stage1 keep": (64_064, 244_800),
    "stage1 halve": (22_976, 76_680),
    "attention1": (20_272, 68_229),
    "local1": (9_632, 25_476),
    "stage2 widen": (52_736, 107_760),
    "stage2 keep": (346_880, 589_600),
    "stage2 halve": (86_912, 134_240),
    "attention2": (77_384, 119_764),
    "local2": (52_736, 107_760),
    "stage3 widen": (141_248, 218_800),
    "stage3 keep": (536_256, 950_400),
    "stage3 halve": (191_808, 297_360),
    "attention3": (171_360, 266_034),
    "local3": (141_248, 218_800),
    "fc global": (198_144, 463_680),
    "fc local": (787_968, 1_846_080),
    "pools": (768, 960),
}
NAMES = ("compact_reid_1x", "compact_reid_2x")


def make(name: str, **overrides: object) -> HACNN:
    with torch.device("meta"):
        model = create_model(name, **overrides)  # type: ignore[arg-type]
    assert isinstance(model, HACNN)
    return model


def params(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def count_parts(model: HACNN) -> dict[str, int]:
    parts = {"stem": params(model.stem)}
    for index, stage in enumerate(model.global_stages):
        widen, *keep, halve = stage.children()
        parts[f"stage{index + 1} widen"] = params(widen)
        parts[f"stage{index + 1} keep"] = params(*keep)
        parts[f"stage{index + 1} halve"] = params(halve)
        parts[f"attention{index + 1}"] = params(model.attention[index])
        parts[f"local{index + 1}"] = params(model.local_stages[index])
    return parts | {
        "fc global": params(model.get_submodule("global_branch.fc")),
        "fc local": params(model.get_submodule("local_branch.fc")),
        "pools": params(*(model.get_submodule(f"{branch}_branch.pool") for branch in ("global", "local"))),
    }


@pytest.mark.parametrize("name", NAMES)
def test_parameters_of_every_part(name: str) -> None:
    model, column = make(name), NAMES.index(name)
    parts = count_parts(model)
    assert parts == {part: counts[column] for part, counts in PARTS.items()}
    assert sum(parts.values()) == params(model) == (2_912_952, 5_762_943)[column]


@pytest.mark.parametrize(("name", "macs"), [("compact_reid_1x", 682.7e6), ("compact_reid_2x", 1621.8e6)])
def test_cost(name: str, macs: float) -> None:
    result = complexity(make(name, num_classes=751))
    assert result.macs == pytest.approx(macs, rel=1e-3)
    assert result.params == params(make(name))


def test_local_width_that_meets_the_printed_size() -> None:
    result = complexity(make("compact_reid_2x", feat_dim_local=1280))
    assert result.params == pytest.approx(6.3783e6, rel=1e-4)
    assert result.macs == pytest.approx(1.6224e9, rel=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_layout_of_table_1(name: str) -> None:
    model = make(name).eval()
    wide = name.endswith("2x")
    widths, repeats = ((240, 320, 480), (8, 11, 8)) if wide else ((128, 256, 384), (7, 10, 7))
    x = model.stem(torch.empty(2, 3, 160, 64, device="meta"))
    assert x.shape == (2, 36 if wide else 32, 80, 32)
    for index, stage in enumerate(model.global_stages):
        assert [type(block) for block in stage.children()] == [ShuffleB, *[ShuffleA] * repeats[index], ShuffleB]
        first, *_, last = stage.children()
        assert first(x).shape == (2, widths[index], *x.shape[2:])  # the first block widens, the last halves the size
        x = stage(x)
        assert x.shape == (2, widths[index], 40 >> index, 16 >> index)
        assert isinstance(last, ShuffleB)
    maps = model.feature_maps(torch.empty(2, 3, 160, 64, device="meta"))
    assert maps["global"].shape == (2, widths[2], 10, 4)
    assert maps["local"].shape == (8, widths[2], 3, 4)
    assert model.embedding_dim == (1920 if wide else 1024)


@pytest.mark.parametrize("name", NAMES)
def test_training_as_in_figure_4(name: str) -> None:
    """Unit features in training, and classifiers without bias on them."""
    config = make(name, num_classes=3).config
    assert (config.pooling, config.l2_norm, config.neck, config.classifier_bias) == ("gem", True, "none", False)
    assert (config.shared_p, config.logit_scale, config.learn_regions) == (False, 1.0, True)


# Table 3 and the setups of Table 4, as far as the network goes. Rows b, e and h change only the losses or the averaging
# of weights: their networks are those of i, i and g.
ROWS: dict[str, tuple[str, dict[str, object]]] = {
    "HA-CNN": ("hacnn", {}),
    "a": ("hacnn", {"classifier_bias": False}),
    "c, no L2": ("compact_reid_2x", {"l2_norm": False}),
    "d, no shuffle blocks": ("compact_reid_2x", {"block": "inception"}),
    "f, no GeM": ("compact_reid_2x", {"pooling": "avg"}),
    "g, setup 2": ("compact_reid_1x", {}),
    "i, setup 3": ("compact_reid_2x", {}),
    "setup 1": ("hacnn", {"classifier_bias": False, "l2_norm": True}),
    "average and maximum": ("compact_reid_2x", {"pooling": "avg_max"}),
    "batch norm instead of L2": ("compact_reid_2x", {"l2_norm": False, "neck": "bn"}),
}


@pytest.mark.parametrize("row", ROWS)
def test_rows_of_the_ablation(row: str) -> None:
    name, overrides = ROWS[row]
    model = make(name, num_classes=4, **overrides)
    output = model(torch.empty(2, 3, 160, 64, device="meta"))
    wide = name == "compact_reid_2x"
    assert output.embeddings["embedding"].shape == (2, 1920 if wide else 1024)
    assert {key: value.shape for key, value in output.logits.items()} == {"global": (2, 4), "local": (2, 4)}
    blocks = {type(block) for stage in model.global_stages for block in stage.children()}
    inception = name == "hacnn" or overrides.get("block") == "inception"
    assert blocks == ({InceptionA, InceptionB} if inception else {ShuffleA, ShuffleB})


@pytest.mark.parametrize("name", NAMES)
def test_the_repeats_of_table_1_are_of_shuffle_blocks(name: str) -> None:
    """Without shuffle blocks the network is HA-CNN's, two blocks a stage, at Compact-ReID's widths and pools."""
    wide = name == "compact_reid_2x"
    model = make(name, block="inception")
    widths, stem, feat = ((240, 320, 480), 36, 960) if wide else ((128, 256, 384), 32, 512)
    assert (model.config.repeats, model.config.widths, model.config.stem_width) == ((0, 0, 0), widths, stem)
    assert (model.config.pooling, model.config.feat_dims) == ("gem", {"global": feat, "local": feat})
    for stage in model.global_stages:
        assert [type(block) for block in stage.children()] == [InceptionA, InceptionB]
    # what is asked for is kept
    assert make(name, block="inception", repeats2=2).config.repeats == (0, 2, 0)
    assert make(name, repeats2=2).config.repeats == ((8, 2, 8) if wide else (7, 2, 7))
    with pytest.raises(ValueError, match="block: got 'residual', expected one of 'inception', 'shuffle'"):
        make(name, block="residual")


@pytest.mark.parametrize("name", NAMES)
def test_regions_learn_from_the_first_step(name: str) -> None:
    model = create_model(name, num_classes=4, repeats1=0, repeats2=0, repeats3=0)
    output = model(torch.randn(4, 3, 48, 32))
    labels = torch.tensor([0, 1, 2, 3])
    loss = sum(nn.functional.cross_entropy(logits, labels) for logits in output.logits.values())
    loss.backward()
    for index in range(3):
        for part in ("weight", "bias"):
            gradient = model.get_parameter(f"attention.{index}.hard.fc.{part}").grad
            assert gradient is not None
            assert gradient.abs().max() > 0
