"""Failures that a user can act on. The command line prints them as one line and exits with code 1."""

from __future__ import annotations


class PyreidError(Exception):
    """Base of all errors that pyreid raises on purpose, beside plain ``ValueError`` and ``TypeError`` for arguments."""


class ExtensionError(PyreidError, ImportError):
    """A compiled library of pyreid is missing or does not load; the message says which one and what to do."""


class MissingDependencyError(PyreidError, ImportError):
    """An optional package is needed; the message names the extra that brings it."""


class DatasetError(PyreidError, ValueError):
    """A data set on disk is incomplete or inconsistent; the message names the file or folder."""

    def __init__(self, message: str) -> None:
        # A DataLoader raises the error of its worker anew, with the worker's traceback as the message.
        if message.startswith("Caught DatasetError in DataLoader worker"):
            message = message.rpartition("DatasetError: ")[2].strip()
        super().__init__(message)


class RecipeError(PyreidError, ValueError):
    """A recipe or an override is wrong; the message names the key and what was expected."""


class WeightsError(PyreidError, ValueError):
    """A weights file does not fit the model; the message lists missing, unexpected and mis-shaped keys."""


class GalleryError(PyreidError, RuntimeError):
    """A stored gallery is damaged, locked by another writer, or not what was asked for; the message names its path."""


class ExportError(PyreidError, RuntimeError):
    """A model cannot be exported, or the exported form computes something else; no file is left."""


class TrainingError(PyreidError, RuntimeError):
    """Training cannot go on, for example because the loss is not finite; the message names the step and the terms."""


def require(package: str, *, extra: str) -> None:
    """Raise :class:`MissingDependencyError` unless ``package`` can be imported.

    Args:
        package: the name to import, for example ``"torchvision"``.
        extra: the extra of pyreid that brings it, for example ``"train"``.
    """
    import importlib

    try:
        importlib.import_module(package)
    except ImportError as error:
        raise MissingDependencyError(
            f"{package} cannot be imported ({error}); install it with: pip install 'pyreid[{extra}]'"
        ) from error
