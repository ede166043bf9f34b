"""Weights from files: forgiving about wrappers and the identity classifier, strict about everything else."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

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
MAX_LISTED = 10
REPR_LISTED = 3


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class WeightsReport:
    """What :func:`load_weights` did. Printed, it shows how many names there are and the first of them.

    Attributes:
        path: the file.
        part: ``"model"``, or ``"backbone"`` for a file that holds a backbone only.
        loaded: names in the model that were loaded.
        kept: names in the model that kept their values: the classifier's where the file has none that fits, and with
            ``part="backbone"`` everything beside that backbone.
        ignored: names in the file that were not used: a classifier that does not fit, or, in a trainer's checkpoint,
            what lies beside the model (losses, metrics).
    """

    path: Path
    part: Part
    loaded: tuple[str, ...]
    kept: tuple[str, ...]
    ignored: tuple[str, ...]

    def __repr__(self) -> str:
        names = ", ".join(
            f"{what}={len(found)} names" + (f" ({_listed(found, most=REPR_LISTED)})" if found else "")
            for what, found in (("loaded", self.loaded), ("kept", self.kept), ("ignored", self.ignored))
        )
        return f"WeightsReport(path={str(self.path)!r}, part={self.part!r}, {names})"


def load_weights(model: nn.Module, path: str | os.PathLike[str], *, part: Part | None = None) -> WeightsReport:
    """Load a weights file into a model, completely or not at all.

    Takes plain state dicts and training checkpoints that hold one under ``state_dict``, ``model_state_dict`` or
    ``model``; strips the prefixes ``module.``, ``_orig_mod.`` and ``model.``. The identity classifier is loaded where
    it fits and left alone where it does not; a missing ``num_batches_tracked`` is no error. All else has to match.

    A file of timm or torchvision goes into the model's backbone, without its ImageNet classifier. Of several backbones
    it goes into the one that it fits, so that an ensemble takes one call for each of its networks.

    Args:
        model: a model of the zoo; changed in place.
        path: a ``.pt``, ``.pth``, ``.ckpt`` (read with ``weights_only=True``) or ``.safetensors`` file.
        part: what the file holds, the whole ``"model"`` or its ``"backbone"``, for example ImageNet weights of timm or
            torchvision; None finds out by the names.

    Returns:
        What was loaded, kept and ignored.

    Raises:
        ValueError: an unknown part.
        TypeError: ``path`` is no path but, for example, a state dict.
        pyreid.errors.WeightsError: the file cannot be read, does not fit (the message lists missing, unexpected and
            mis-shaped names), or holds values that no weights are: NaN, infinite or complex ones, integers where the
            model has real numbers, a variance below 0.
        pyreid.errors.MissingDependencyError: a ``.safetensors`` file without the package safetensors.
    """
    if not isinstance(path, str | os.PathLike):
        hint = "; a state dict goes into model.load_state_dict()" if isinstance(path, Mapping) else ""
        raise TypeError(f"weights: got an object of type {type(path).__name__}, expected the path of a file{hint}")
    if part not in (None, *get_args(Part)):
        raise ValueError(f"part: got {part!r}, expected 'model', 'backbone' or None")
    path = Path(path)
    tensors, ignored = _unwrap(read_state_dict(path), set(model.state_dict()))
    _check_values(tensors, path)
    if part is None:
        part = _detect_part(model, tensors)
    target = _closest_backbone(model, tensors) if part == "backbone" else _Target(model, "", (MODEL_CLASSIFIER,))
    return _load(model, target, tensors, ignored, path=path, source=str(path))


def load_timm_weights(model: nn.Module) -> tuple[WeightsReport, ...]:
    """Load the ImageNet weights that timm has for the model's backbones, from timm's cache or the network.

    Returns:
        One report for each backbone.

    Raises:
        pyreid.errors.WeightsError: the model has no timm backbone, or the weights of one cannot be had.
    """
    from pyreid.models.timm_backbones import make_backbone

    backbones = _timm_backbones(model)
    if not backbones:
        raise WeightsError(f"weights: 'timm' needs a model with a timm backbone, and {type(model).__name__} has none")
    # All are fetched before the first is loaded, so that a failure leaves the model as it was.
    pretrained = {path: make_backbone(name, pretrained=True).state_dict() for path, name in backbones.items()}
    return tuple(
        _load(
            model, _backbone(model, path), tensors, [], path=Path(backbones[path]), source=f"timm's {backbones[path]}"
        )
        for path, tensors in pretrained.items()
    )


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file by name, on the CPU, with the names as they are in the file.

    Raises:
        pyreid.errors.WeightsError: there is no such file, or it holds no state dict.
        pyreid.errors.MissingDependencyError: a ``.safetensors`` file without the package safetensors.
    """
    if path.is_dir():
        raise WeightsError(f"weights: {path} is a folder, expected a file that ends in {', '.join(SUFFIXES)}")
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
    """Raise unless all values are real and finite, and variances at least 0: NaN would go through training unseen."""
    for name, value in state.items():
        if value.is_complex():
            raise WeightsError(f"weights: {path} holds complex numbers in {name}, expected real ones")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise WeightsError(f"weights: {path} holds NaN or infinite values in {name}")
        if name.endswith("running_var") and bool((value < 0).any()):
            raise WeightsError(
                f"weights: {path} holds {float(value.min()):.4g} in {name}, expected variances of 0 or more"
            )


def _find_state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        for candidate in (*(content[key] for key in NESTED_KEYS if key in content), content):
            if isinstance(candidate, Mapping) and candidate and all(_is_entry(*item) for item in candidate.items()):
                return dict(candidate)
        found = _describe_mapping(content)
    else:
        found = f"an object of type {type(content).__name__}"
    raise WeightsError(
        f"weights: {path} holds {found}, expected tensors by name, alone or under {' or '.join(map(repr, NESTED_KEYS))}"
    )


def _describe_mapping(content: Mapping[Any, Any]) -> str:
    """What is wrong with a mapping that is no state dict: the one entry that is no tensor, or that none are."""
    inner = next((content[key] for key in NESTED_KEYS if isinstance(content.get(key), Mapping)), content)
    wrong = [key for key, value in inner.items() if not _is_entry(key, value)]
    if wrong and len(wrong) < len(inner):
        key = wrong[0]
        what = type(inner[key]).__name__ if isinstance(key, str) else f"a name of type {type(key).__name__}"
        return f"{what} under {key!r} among its tensors"
    return f"a mapping with the keys {_listed(map(str, content))}"


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


@dataclasses.dataclass(frozen=True, slots=True)
class _Target:
    """The module that a file is loaded into.

    Attributes:
        module: the model or one of its backbones.
        path: name of the backbone in the model, empty for the model.
        optional: how the names begin that may be missing, left over or of another shape.
    """

    module: nn.Module
    path: str
    optional: tuple[str, ...]

    @property
    def part(self) -> Part:
        return "backbone" if self.path else "model"

    @property
    def prefix(self) -> str:
        return f"{self.path}." if self.path else ""


def _timm_backbones(model: nn.Module) -> Mapping[str, str]:
    """The names in timm of the model's backbones, by their names in the model."""
    return getattr(model, "timm_backbones", {})


def _backbone(model: nn.Module, path: str) -> _Target:
    from pyreid.models.timm_backbones import head_prefixes

    module = model.get_submodule(path)
    return _Target(module, path, head_prefixes(module))


def _detect_part(model: nn.Module, tensors: Mapping[str, Tensor]) -> Part:
    expected = set(model.state_dict())
    as_model = sum(name in expected for name in tensors)
    as_backbone = max(
        (sum(f"{path}.{name}" in expected for name in tensors) for path in _timm_backbones(model)), default=0
    )
    return "backbone" if as_backbone > as_model else "model"


def _closest_backbone(model: nn.Module, tensors: Mapping[str, Tensor]) -> _Target:
    """The backbone that the tensors fit best: a ResNet-18's names are all names of a ResNet-34 too."""
    targets = [_backbone(model, path) for path in _timm_backbones(model)]
    if not targets:
        raise WeightsError(f"weights: part='backbone', but {type(model).__name__} has no timm backbone")
    return min(targets, key=lambda target: _Fit(target, tensors).misfits)


class _Fit:
    """How the tensors of a file fit a module: the names that are missing, unexpected, mis-shaped, or can be loaded."""

    def __init__(self, target: _Target, tensors: Mapping[str, Tensor]) -> None:
        if target.path:
            from pyreid.models.timm_backbones import current_names

            tensors = current_names(target.module, tensors)
        self.target, self.tensors = target, tensors
        self.expected = target.module.state_dict()
        self.missing = [n for n in self.expected if n not in tensors and not n.endswith("num_batches_tracked")]
        self.unexpected = [n for n in tensors if n not in self.expected]
        self.misshapen = [n for n in tensors if n in self.expected and tensors[n].shape != self.expected[n].shape]
        self.fitting = set(tensors) - set(self.unexpected) - set(self.misshapen)

    @property
    def misfits(self) -> int:
        """How many names do not fit, without the optional ones."""
        return sum(map(len, self._strict().values()))

    def describe(self) -> str:
        """What does not fit, in words; empty if all fits."""
        groups = self._strict()
        groups["mis-shaped"] = [
            f"{name} has {tuple(self.tensors[name].shape)} instead of {tuple(self.expected[name].shape)}"
            for name in groups["mis-shaped"]
        ]
        return "; ".join(f"{len(names)} {what}: {_listed(names)}" for what, names in groups.items() if names)

    def _strict(self) -> dict[str, list[str]]:
        groups = {"missing": self.missing, "unexpected": self.unexpected, "mis-shaped": self.misshapen}
        return {
            what: [name for name in names if not name.startswith(self.target.optional)]
            for what, names in groups.items()
        }


def _load(
    model: nn.Module, target: _Target, tensors: Mapping[str, Tensor], ignored: list[str], *, path: Path, source: str
) -> WeightsReport:
    if any(value.is_meta for value in model.state_dict().values()):
        # there load_state_dict does nothing, and says that it has loaded
        raise WeightsError(f"weights: {source} cannot be loaded into {type(model).__name__} on the meta device")
    fit = _Fit(target, tensors)
    if fit.misfits:
        where = target.path or "model"
        raise WeightsError(f"weights: {source} does not fit {type(model).__name__} ({where}): {fit.describe()}")
    for name in fit.fitting:
        # Counters of batches may be either; load_state_dict would round or widen everything else without a word.
        found, expected = fit.tensors[name].dtype, fit.expected[name].dtype
        if expected.is_floating_point and not found.is_floating_point:
            raise WeightsError(
                f"weights: {source} holds {str(found).removeprefix('torch.')} values in {name}, expected floating-point"
            )
    target.module.load_state_dict({name: fit.tensors[name] for name in fit.fitting}, strict=False)
    loaded = tuple(target.prefix + name for name in fit.expected if name in fit.fitting)
    kept = tuple(name for name in model.state_dict() if name not in set(loaded))
    return WeightsReport(path, target.part, loaded, kept, (*ignored, *fit.unexpected, *fit.misshapen))


def _listed(names: Iterable[str], *, most: int = MAX_LISTED) -> str:
    everything = list(names)
    shown = ", ".join(everything[:most])
    return shown if len(everything) <= most else f"{shown} and {len(everything) - most} more"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
