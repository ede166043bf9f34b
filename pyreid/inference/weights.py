"""Weights for embeddings: of the whole network, as a head of random values makes features worthless."""

from __future__ import annotations

import os
import warnings
from typing import Literal

from torch import nn

from pyreid.errors import WeightsError
from pyreid.models.complexity import CLASSIFIER_PREFIX

TIMM = "timm"
_LISTED = 5


def load_embedding_weights(
    model: nn.Module,
    weights: str | os.PathLike[str],
    *,
    partial: Literal["error", "warn"] = "error",
    stacklevel: int = 3,
) -> None:
    """Load weights of the whole embedding network, where :func:`pyreid.models.load_weights` also takes a backbone.

    Args:
        model: changed in place; after an error it is as before.
        weights: a file, or ``"timm"`` for ImageNet's weights of the backbone. The latter says that only the backbone is
            wanted, so that the rest gets a warning.
        partial: what a file gives that holds nothing for a part of the embedding network, such as ImageNet's.
        stacklevel: of the warning.

    Raises:
        pyreid.errors.WeightsError: the weights are not there, do not fit, or are not of the whole network.
    """
    from pyreid.models.weights import load_timm_weights, load_weights

    before = {name: value.clone() for name, value in model.state_dict().items()}
    reports = load_timm_weights(model) if weights == TIMM else (load_weights(model, weights),)
    loaded = {name for report in reports for name in report.loaded}
    missing = [
        name
        for name in before
        if name not in loaded and not name.startswith(CLASSIFIER_PREFIX) and not name.endswith("num_batches_tracked")
    ]
    if not missing:
        return
    shown = ", ".join(missing[:_LISTED]) + (f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else "")
    found = f"weights: {weights} holds a backbone, and nothing for {shown}"
    if weights == TIMM or partial == "warn":
        warnings.warn(f"{found}; these keep their fresh values, so features mean little", stacklevel=stacklevel)
        return
    model.load_state_dict(before)
    raise WeightsError(f"{found}; expected weights of the whole network, as features of a fresh head mean little")
