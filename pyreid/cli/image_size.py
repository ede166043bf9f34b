"""Image sizes on the command line."""

from __future__ import annotations

import re

import typer


def parse_size(text: str | None) -> tuple[int, int] | None:
    """(height, width) of ``--size HEIGHTxWIDTH``; None for None."""
    if text is None:
        return None
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if match is None:
        raise typer.BadParameter(f"--size: expected HEIGHTxWIDTH such as 256x128, got {text}")
    return int(match[1]), int(match[2])
