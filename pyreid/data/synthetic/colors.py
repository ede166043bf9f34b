"""Colours of clothes, skin, paint and scenes."""

from __future__ import annotations

import numpy as np

Color = tuple[int, int, int]

# Dark and neutral clothes are the most frequent, as in a real street: many identities share their main colours.
CLOTHES: tuple[Color, ...] = (
    (28, 28, 32),
    (28, 28, 32),
    (38, 46, 78),
    (38, 46, 78),
    (92, 94, 98),
    (226, 226, 222),
    (226, 226, 222),
    (52, 92, 160),
    (128, 170, 208),
    (168, 38, 44),
    (60, 104, 66),
    (176, 156, 122),
    (104, 74, 52),
    (198, 160, 54),
    (116, 66, 122),
)
VIVID: tuple[Color, ...] = (
    (222, 44, 44),
    (250, 212, 40),
    (40, 170, 80),
    (36, 100, 226),
    (244, 130, 30),
    (240, 240, 240),
    (230, 96, 168),
    (40, 198, 208),
    (22, 22, 24),
)
SKIN: tuple[Color, ...] = (
    (240, 206, 178),
    (228, 186, 152),
    (204, 156, 120),
    (170, 120, 86),
    (122, 82, 58),
    (84, 56, 42),
)
HAIR: tuple[Color, ...] = ((26, 22, 22), (52, 36, 28), (96, 64, 40), (186, 150, 92), (148, 144, 140), (120, 50, 30))


def shade(color: Color, factor: float) -> Color:
    """``color`` made darker (factor < 1) or lighter (> 1)."""
    red, green, blue = (max(0, min(255, round(channel * factor))) for channel in color)
    return red, green, blue


def vary(rng: np.random.Generator, color: Color, amount: int = 12) -> Color:
    """``color`` with every channel moved by up to ``amount``."""
    red, green, blue = (max(0, min(255, channel + int(rng.integers(-amount, amount + 1)))) for channel in color)
    return red, green, blue


def contrast(first: Color, second: Color) -> float:
    """Root mean square difference of two colours, 0 to 255."""
    return float(np.sqrt(np.mean((np.array(first, float) - np.array(second, float)) ** 2)))
