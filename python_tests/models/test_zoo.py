"""What every model of the zoo promises, whatever its family."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pyreid.models import ModelOutput, create_model, list_models, rmnet

COMPILED = ("rmnet", "safr_small")


def warmed_up(name: str, **overrides: object) -> nn.Module:
    """A model in evaluation mode whose batch norms have seen data, so that its output is neither tiny nor huge."""
    model = create_model(name, **overrides)  # type: ignore[arg-type]
    with torch.no_grad():
        for module in model.modules():
            # timm starts the last scale of a residual branch at 0, which would hide everything inside the branch
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.0)
        for _ in range(3):
            model(torch.randn(4, 3, 64, 48))
    return model.eval()


@pytest.mark.parametrize("name", list_models())
def test_contract(name: str) -> None:
    model = create_model(name, num_classes=5)
    width = model.embedding_dim
    output = model(torch.randn(3, 3, 65, 33))
    assert isinstance(output, ModelOutput)
    assert {key: tuple(value.shape) for key, value in output.logits.items()} == {"id": (3, 5)}
    assert all(value.shape == (3, width) for value in output.embeddings.values())
    assert "embedding" in output.embeddings
    sum(value.sum() for value in (*output.embeddings.values(), *output.logits.values())).backward()  # type: ignore[union-attr]
    trained = {key for key, value in model.named_parameters() if value.requires_grad}
    assert {key for key, value in model.named_parameters() if value.grad is not None} == trained

    model.eval()
    for height, size in ((64, 32), (37, 71), (1, 1), (50, 3)):
        embedding = model(torch.randn(1, 3, height, size))
        assert embedding.shape == (1, width)
        assert embedding.dtype == torch.float32
        assert embedding.isfinite().all()
    assert model(torch.randn(0, 3, 32, 32)).shape == (0, width)
    assert len(model.default_input_size) == 2
    assert len(model.pixel_mean) == len(model.pixel_std) == 3
    assert model.config.num_classes == 5


@pytest.mark.parametrize("name", ["rmnet", "safr_small"])
def test_without_classes_there_are_no_logits(name: str) -> None:
    model = create_model(name)
    assert model.classifier is None
    assert model(torch.randn(2, 3, 32, 32)).logits == {}


@pytest.mark.parametrize("name", ["rmnet", "safr_small"])
@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (torch.zeros(3, 32, 32), ValueError, r"images: got shape \(3, 32, 32\), expected \(N, 3, H, W\)"),
        (torch.zeros(2, 1, 32, 32), ValueError, r"images: got shape \(2, 1, 32, 32\)"),
        (torch.zeros(2, 3, 0, 32), ValueError, r"images: got shape \(2, 3, 0, 32\)"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), TypeError, "images: got torch.uint8, expected a floating-point"),
    ],
)
def test_wrong_images_are_refused(name: str, images: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        create_model(name)(images)


@pytest.mark.parametrize("name", list_models())
def test_images_of_a_batch_do_not_mix_in_evaluation(name: str) -> None:
    model = warmed_up(name)
    images = torch.randn(3, 3, 48, 32)
    together = model(images)
    assert together.std(dim=0).max() > 1e-3  # the images do differ in their embeddings
    for index in range(3):
        torch.testing.assert_close(model(images[index : index + 1]), together[index : index + 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", list_models())
def test_channels_last_gives_the_same(name: str) -> None:
    model = warmed_up(name)
    images = torch.randn(2, 3, 48, 32)
    expected = model(images)
    model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(images.to(memory_format=torch.channels_last)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["rmnet", "safr_small"])
def test_bfloat16_autocast_trains_and_embeds_in_float32(name: str) -> None:
    model = create_model(name, num_classes=4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(torch.randn(4, 3, 48, 32))
        loss = nn.functional.cross_entropy(output.logits["id"], torch.tensor([0, 1, 2, 3]))
        embedding = model.eval()(torch.randn(2, 3, 48, 32))
    loss.backward()
    assert output.embeddings["embedding"].dtype == embedding.dtype == torch.float32
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", ["rmnet", "safr_small"])
def test_autocast_stays_near_full_precision(name: str) -> None:
    model = warmed_up(name)
    images = torch.randn(2, 3, 48, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = model(images)
    similarity = torch.cosine_similarity(low, model(images))
    assert similarity.min() > 0.98


@pytest.mark.parametrize("name", list_models())
def test_state_dict_round_trip(name: str) -> None:
    first, second = create_model(name, num_classes=3), create_model(name, num_classes=3)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        first(images)  # moves the running statistics too
    first.eval()
    second.eval()
    assert not torch.equal(first(images), second(images))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(images), second(images))


@pytest.mark.parametrize("name", list_models())
def test_double_precision(name: str) -> None:
    model = create_model(name, num_classes=2).double()
    output = model(torch.randn(2, 3, 32, 32, dtype=torch.float64))
    assert output.logits["id"].dtype == torch.float64


@pytest.mark.parametrize("name", COMPILED)
def test_compiles_without_graph_breaks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch._dynamo.reset()
    # one block of each width shows a graph break as well as all 36 do, in a fifth of the time
    monkeypatch.setattr(rmnet, "STAGES", ((32, 1), (64, 1), (128, 1), (256, 1)))
    model = create_model(name, num_classes=3)
    if name == "rmnet":
        model.set_dropout(0.0)  # type: ignore[operator]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    images = torch.randn(2, 3, 32, 32)

    expected = model(images)
    expected.logits["id"].square().sum().backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]

    model.load_state_dict(state)
    model.zero_grad()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    output = compiled(images)
    assert isinstance(output, ModelOutput)
    output.logits["id"].square().sum().backward()
    torch.testing.assert_close(output.embeddings["embedding"], expected.embeddings["embedding"], rtol=1e-4, atol=1e-5)
    found = [p.grad for p in model.parameters() if p.grad is not None]
    scale = max(float(g.abs().max()) for g in gradients)
    for ours, theirs in zip(found, gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * scale)

    model.eval()
    torch.testing.assert_close(compiled(images), model(images), rtol=1e-4, atol=1e-5)
