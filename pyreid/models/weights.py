"""Weights from files: forgiving about wrappers and the identity classifier, strict about everything else."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pyreid.errors import WeightsError, require

Part = Literal["model", "backbone"]

TORCH_SUFFIXES = (".pt", ".pth", ".ckpt")
SUFFIXES = (*TORCH_SUFFIXES, ".safetensors")
# Where checkpoints of common trainers keep the state dict.
NESTED_KEYS = ("state_dict", "model_state_dict", "model")
# DistributedDataParallel, torch.compile and Lightning modules put these before every name.
PREFIXES = ("module.", "_orig_mod.", "model.")
MODEL_CLASSIFIER = "classifier."
# The classifiers of timm's and torchvision's ResNets.
BACKBONE_CLASSIFIER = "fc."
MAX_LISTED = 10


@dataclasses.dataclass(frozen=True, slots=True)
class WeightsReport:
    """What :func:`load_weights` did.

    Attributes:
        path: the file.
        part: ``"model"``, or ``"backbone"`` for a file that holds the backbone only.
        loaded: names in the model that were loaded.
        kept: names in the model that kept their values: the classifier's where the file has none that fits, and with
            ``part="backbone"`` everything beside the backbone.
        ignored: names in the file that were not used: a classifier that does not fit, or, in a trainer's checkpoint,
            what lies beside the model (losses, metrics).
    """

    path: Path
    part: Part
    loaded: tuple[str, ...]
    kept: tuple[str, ...]
    ignored: tuple[str, ...]


def load_weights(model: nn.Module, path: str | os.PathLike[str], *, part: Part | None = None) -> WeightsReport:
    """Load a weights file into a model, completely or not at all.

    Takes plain state dicts and training checkpoints that hold one under ``state_dict``, ``model_state_dict`` or
    ``model``; strips the prefixes ``module.``, ``_orig_mod.`` and ``model.``. The identity classifier is loaded where
    it fits and left alone where it does not; a missing ``num_batches_tracked`` is no error. All else has to match.

    Args:
        model: a model of the zoo; changed in place.
        path: a ``.pt``, ``.pth``, ``.ckpt`` (read with ``weights_only=True``) or ``.safetensors`` file.
        part: what the file holds, the whole ``"model"`` or its ``"backbone"``, for example ImageNet weights of timm or
            torchvision; None finds out by the names.

    Returns:
        What was loaded, kept and ignored.

    Raises:
        pyreid.errors.WeightsError: the file cannot be read, or does not fit: the message lists missing, unexpected and
            mis-shaped names.
        pyreid.errors.MissingDependencyError: a ``.safetensors`` file without the package safetensors.
    """
    path = Path(path)
    tensors, ignored = _unwrap(read_state_dict(path), set(model.state_dict()))
    _check_values(tensors, path)
    if part is None:
        part = _detect_part(model, tensors)
    return _load(model, tensors, ignored, path=path, part=part, source=str(path))


def load_timm_weights(model: nn.Module) -> WeightsReport:
    """Load the ImageNet weights that timm has for the model's backbone, from timm's cache or the network.

    Raises:
        pyreid.errors.WeightsError: the model has no timm backbone, or the weights cannot be had.
    """
    from pyreid.models.timm_resnet import make_resnet

    name = getattr(getattr(model, "config", None), "backbone", None)
    if name is None:
        raise WeightsError(f"weights: 'timm' needs a model with a timm backbone, and {type(model).__name__} has none")
    tensors = make_resnet(name, pretrained=True).state_dict()
    return _load(model, tensors, [], path=Path(name), part="backbone", source=f"timm's {name}")


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file by name, on the CPU, with the names as they are in the file.

    Raises:
        pyreid.errors.WeightsError: there is no such file, or it holds no state dict.
        pyreid.errors.MissingDependencyError: a ``.safetensors`` file without the package safetensors.
    """
    if not path.is_file():
        raise WeightsError(f"weights: no such file: {path}")
    if path.suffix not in SUFFIXES:
        raise WeightsError(f"weights: {path} ends in {path.suffix!r}, expected one of {', '.join(SUFFIXES)}")
    if path.suffix == ".safetensors":
        require("safetensors", extra="train")
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"weights: {path} is not a readable safetensors file: {_first_line(error)}") from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling a foreign or damaged file can raise anything
        # torch's own message proposes to load without safety, which is no advice for a damaged file
        raise WeightsError(f"weights: {path} is damaged, cut off, or holds more than plain tensors") from error
    return _find_state_dict(content, path)


def _check_values(state: Mapping[str, Tensor], path: Path) -> None:
    """Raise unless all values are real and finite: NaN would go through training unseen."""
    for name, value in state.items():
        if value.is_complex():
            raise WeightsError(f"weights: {path} holds complex numbers in {name}, expected real ones")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise WeightsError(f"weights: {path} holds NaN or infinite values in {name}")


def _find_state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        for candidate in (*(content[key] for key in NESTED_KEYS if key in content), content):
            if isinstance(candidate, Mapping) and candidate and all(_is_entry(*item) for item in candidate.items()):
                return dict(candidate)
        found = f"a mapping with the keys {_listed(map(str, content))}"
    else:
        found = f"an object of type {type(content).__name__}"
    raise WeightsError(
        f"weights: {path} holds {found}, expected tensors by name, alone or under {' or '.join(map(repr, NESTED_KEYS))}"
    )


def _is_entry(key: Any, value: Any) -> bool:
    return isinstance(key, str) and isinstance(value, Tensor)


def _unwrap(tensors: dict[str, Tensor], expected: set[str]) -> tuple[dict[str, Tensor], list[str]]:
    """Names without wrappers' prefixes, and the names that lie beside a wrapped model."""
    ignored: list[str] = []
    while not expected & set(tensors):
        prefix = next((prefix for prefix in PREFIXES if any(name.startswith(prefix) for name in tensors)), None)
        if prefix is None:
            break
        # A trainer's module has the model as one submodule of several; the others are not the model's business.
        ignored += [name for name in tensors if not name.startswith(prefix)]
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    return tensors, ignored


def _detect_part(model: nn.Module, tensors: Mapping[str, Tensor]) -> Part:
    expected = set(model.state_dict())
    as_model = sum(name in expected for name in tensors)
    as_backbone = sum(f"backbone.{name}" in expected for name in tensors)
    return "backbone" if as_backbone > as_model else "model"


def _load(
    model: nn.Module, tensors: Mapping[str, Tensor], ignored: list[str], *, path: Path, part: Part, source: str
) -> WeightsReport:
    target: nn.Module = model
    classifier = MODEL_CLASSIFIER
    if part == "backbone":
        if not isinstance(getattr(model, "backbone", None), nn.Module):
            raise WeightsError(f"weights: part='backbone', but {type(model).__name__} has no backbone")
        target, classifier = model.get_submodule("backbone"), BACKBONE_CLASSIFIER
    expected = target.state_dict()
    missing = [name for name in expected if name not in tensors and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in tensors if name not in expected]
    misshapen = [name for name in tensors if name in expected and tensors[name].shape != expected[name].shape]
    if error := _misfit(missing, unexpected, misshapen, tensors=tensors, expected=expected, classifier=classifier):
        raise WeightsError(f"weights: {source} does not fit {type(model).__name__} ({part}): {error}")

    fitting = {name for name in tensors if name in expected} - set(misshapen)
    target.load_state_dict({name: tensors[name] for name in fitting}, strict=False)
    prefix = "backbone." if part == "backbone" else ""
    loaded = tuple(prefix + name for name in expected if name in fitting)
    kept = tuple(name for name in model.state_dict() if name not in set(loaded))
    return WeightsReport(path, part, loaded, kept, (*ignored, *unexpected, *misshapen))


def _misfit(
    missing: list[str],
    unexpected: list[str],
    misshapen: list[str],
    *,
    tensors: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    classifier: str,
) -> str:
    """What does not fit outside the classifier, in words; empty if all fits."""
    shapes = {
        name: f"{name} has {tuple(tensors[name].shape)} instead of {tuple(expected[name].shape)}" for name in misshapen
    }
    groups = {
        "missing": [name for name in missing if not name.startswith(classifier)],
        "unexpected": [name for name in unexpected if not name.startswith(classifier)],
        "mis-shaped": [shapes[name] for name in misshapen if not name.startswith(classifier)],
    }
    return "; ".join(f"{len(names)} {what}: {_listed(names)}" for what, names in groups.items() if names)


def _listed(names: Iterable[str]) -> str:
    everything = list(names)
    shown = ", ".join(everything[:MAX_LISTED])
    return shown if len(everything) <= MAX_LISTED else f"{shown} and {len(everything) - MAX_LISTED} more"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
