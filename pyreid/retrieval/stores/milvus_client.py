"""Milvus' client with the errors of a gallery, and an embedded server that ends with its last user. Internal."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyreid.errors import GalleryError, require

_users: dict[str, int] = {}  # galleries of this process on each file; they share a server
_guard = threading.Lock()


class Client:
    """``MilvusClient``'s methods; what they raise of Milvus' own becomes a GalleryError that names the gallery.

    Args:
        path: a file of Milvus Lite, whose name ends in ``.db``, or a URI such as ``http://host:19530``.
        create: whether the file may be new.
        options: for ``MilvusClient``.

    Raises:
        GalleryError: if the file is in use by another process or its name has another ending, or the server does not
            answer.
        FileNotFoundError: if the file is not there and ``create`` is false.
    """

    def __init__(self, path: str | os.PathLike[str], *, create: bool, options: dict[str, Any]) -> None:
        from pymilvus import MilvusClient

        self._path = os.fspath(path)
        self._file = None if "://" in self._path else str(Path(self._path).resolve())
        self._client: Any = None
        if self._file is not None:
            self._serve(self._file, create)
        try:
            with self.translated():
                self._client = MilvusClient(self._file or self._path, **options)
        except BaseException:
            self.close()
            raise

    def _serve(self, file: str, create: bool) -> None:
        require("milvus_lite", extra="milvus")
        from milvus_lite.server_manager import server_manager_instance

        if not file.endswith(".db"):
            raise GalleryError(f"{self._path}: expected a name that ends in .db, as Milvus Lite wants it, or a URI")
        if not Path(file).exists():
            if not create:
                raise FileNotFoundError(f"{self._path}: no gallery; give columns= to make one")
            Path(file).parent.mkdir(parents=True, exist_ok=True)
        with _guard, _quiet("milvus_lite.server_manager"):  # it would print a traceback
            if server_manager_instance.start_and_get_uri(file) is None:
                self._file = None
                raise GalleryError(f"{self._path}: no file of Milvus Lite, or another process has it open")
            _users[file] = _users.get(file, 0) + 1

    def __getattr__(self, name: str) -> Any:
        if self._client is None:
            raise GalleryError(f"{self._path}: closed")
        method = getattr(self._client, name)

        def call(*arguments: Any, **options: Any) -> Any:
            with self.translated():
                return method(*arguments, **options)

        return call

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """Milvus' errors as those of a gallery."""
        from pymilvus.exceptions import MilvusException

        try:
            yield
        except MilvusException as error:
            raise GalleryError(f"{self._path}: Milvus: {' '.join(str(error.message or error).split())}") from error

    def close(self) -> None:
        """Let go of the connection, and of the server and its file if no other gallery of this process uses it."""
        client, self._client = self._client, None
        file, self._file = self._file, None
        if client is not None:
            client.close()
        if file is None:
            return
        from milvus_lite.server_manager import server_manager_instance

        with _guard:
            _users[file] -= 1
            if _users[file] == 0:
                del _users[file]
                server_manager_instance.release_server(file)


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before
