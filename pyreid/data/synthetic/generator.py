"""Writes a synthetic data set in a real set's on-disk layout."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from pyreid.data.layouts import read_manifest
from pyreid.data.records import ReIDDataset
from pyreid.data.registry import load_dataset
from pyreid.data.synthetic.camera import encode_jpeg, encode_png
from pyreid.data.synthetic.plan import Settings, Shot, write_manifest
from pyreid.data.synthetic.registry import default_background, get_synthetic, make_plan
from pyreid.data.synthetic.render import Subject, render_image
from pyreid.errors import DatasetError

Progress = Callable[[int, int], None]

_CHUNK = 64


def synthesize(
    layout: str,
    root: Path | str,
    *,
    num_train_ids: int = 100,
    num_test_ids: int = 100,
    images_per_id: int = 20,
    num_cameras: int = 6,
    size: tuple[int, int] | None = None,
    num_distractors: int | None = None,
    num_junk: int | None = None,
    seed: int = 0,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ReIDDataset:
    """Draw a data set of pedestrians or vehicles and write it with a real data set's folders, names and lists.

    Identities are told apart by parts: clothes and their patterns, bags, hats, shoes; body type, decals, racks,
    stripes. About half of them come in families of four that differ in the colour of one small part. Every camera has
    its own view, light, colour cast, blur, resolution and background. Training and test identities are disjoint.
    Queries are chosen as the layout has them, each with a match under its protocol: one per test identity and camera
    (Market-1501 and others), a tracklet of those (MARS), or one per test identity (VeRi-Wild, VRIC).

    The same arguments give the same bytes with the same versions of NumPy and Pillow, whatever the number of workers.

    Args:
        layout: one of :func:`pyreid.data.list_datasets`; those of vehicles show vehicles, all others pedestrians.
        root: the folder to make. It appears complete or not at all: the files are written beside it first.
        num_train_ids: identities to train on.
        num_test_ids: identities to test on.
        images_per_id: images per identity in the training set and in the gallery.
        num_cameras: cameras; each identity is seen by at least half of them.
        size: height and width in pixels; None for 128 x 64 (pedestrians) or 128 x 128 (vehicles).
        num_distractors: gallery images of nobody (Market-1501 and MARS only); None for 15 % of the gallery.
        num_junk: gallery images of bad detections (likewise); None for 10 % of the gallery.
        seed: non-negative.
        workers: processes; None for one per available core.
        overwrite: replace ``root`` if it is a synthetic data set.
        progress: called with the images done and the total, about every 64 images.

    Returns:
        The data set as :func:`pyreid.data.load_dataset` reads it.

    Raises:
        ValueError: an argument is out of range.
        DatasetError: ``root`` is not empty and ``overwrite`` is false, or it is not a synthetic data set.
    """
    chosen = get_synthetic(layout)
    background = default_background(layout, num_test_ids, images_per_id)
    settings = Settings(
        layout=layout,
        num_train_ids=num_train_ids,
        num_test_ids=num_test_ids,
        images_per_id=images_per_id,
        num_cameras=num_cameras,
        size=chosen.size if size is None else (size[0], size[-1]),
        seed=seed,
        num_distractors=background[0] if num_distractors is None else num_distractors,
        num_junk=background[1] if num_junk is None else num_junk,
    )
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    root = Path(root)
    _check_target(root, overwrite=overwrite)
    plan = make_plan(settings)
    with _folder_written_whole(root) as folder:
        for path in sorted({Path(path).parent for shot in plan.shots for path in shot.paths}):
            (folder / path).mkdir(parents=True)
        _draw_all(folder, chosen.subject, settings, plan.shots, workers or _available_cores(), progress)
        chosen.write_side_files(folder, settings, plan)
        write_manifest(folder, settings, plan)
    return load_dataset(layout, root)


def _available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_target(root: Path, *, overwrite: bool) -> None:
    """Refuse a target that holds anything, except a synthetic data set that may be overwritten."""
    if not root.exists() and not root.is_symlink():
        return
    if root.is_symlink() or not root.is_dir():
        raise DatasetError(f"{root}: exists and is not a folder, expected a new or empty folder")
    if not any(root.iterdir()):
        return
    if not overwrite:
        raise DatasetError(f"{root}: the folder is not empty; choose another, or give --overwrite (overwrite=True)")
    if read_manifest(root) is None:
        raise DatasetError(f"{root}: is not a synthetic data set of pyreid (no synthetic.json) and is not overwritten")


@contextlib.contextmanager
def _folder_written_whole(root: Path) -> Iterator[Path]:
    """A temporary sibling of ``root`` that takes its place when the block ends well, and vanishes when it does not."""
    root.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{root.name}.", suffix=".partial", dir=root.parent))
    try:
        yield folder
        mask = os.umask(0)
        os.umask(mask)
        folder.chmod(0o777 & ~mask)  # mkdtemp makes a folder that only its owner can read
        if root.exists() and any(root.iterdir()):
            old = Path(tempfile.mkdtemp(prefix=f".{root.name}.", suffix=".old", dir=root.parent))
            root.replace(old)
            folder.replace(root)
            shutil.rmtree(old)
        else:
            folder.replace(root)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _draw_chunk(folder: Path, subject: Subject, seed: int, size: tuple[int, int], shots: Sequence[Shot]) -> int:
    for shot in shots:
        picture, quality = render_image(
            subject, seed=seed, pid=shot.pid, camera=shot.camera, number=shot.number, size=size
        )
        jpeg = encode_jpeg(picture, quality)
        for path in shot.paths:
            (folder / path).write_bytes(encode_png(jpeg) if path.endswith(".png") else jpeg)
    return len(shots)


def _ignore_interrupts() -> None:
    # Ctrl-C reaches every process of the terminal; only the parent shall react, and it stops the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _draw_all(
    folder: Path,
    subject: Subject,
    settings: Settings,
    shots: Sequence[Shot],
    workers: int,
    progress: Progress | None,
) -> None:
    chunks = [shots[i : i + _CHUNK] for i in range(0, len(shots), _CHUNK)]
    workers = min(workers, len(chunks))
    done = 0
    if progress is not None:
        progress(0, len(shots))
    if workers == 1:
        for chunk in chunks:
            done += _draw_chunk(folder, subject, settings.seed, settings.size, chunk)
            if progress is not None:
                progress(done, len(shots))
        return
    # A forked worker needs no import of the caller's main module; it only draws with Pillow and NumPy.
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("fork" if "fork" in methods else "spawn")
    executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_ignore_interrupts)
    try:
        pending: set[Future[int]] = {
            executor.submit(_draw_chunk, folder, subject, settings.seed, settings.size, chunk) for chunk in chunks
        }
        while pending:
            finished, pending = wait(pending, return_when=FIRST_COMPLETED)
            done += sum(future.result() for future in finished)
            if progress is not None:
                progress(done, len(shots))
    except BrokenProcessPool as error:
        raise DatasetError("a drawing process died (out of memory?), nothing was written; try fewer workers") from error
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
