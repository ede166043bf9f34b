"""``pyreid info``."""

from __future__ import annotations


def info() -> None:
    """Print versions, compiled libraries (or why they do not load), CPU features and devices.

    Example: pyreid info
    """
    from pyreid._build_info import info as build_info

    print(build_info())
