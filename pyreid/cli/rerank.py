"""``pyreid rerank``: k-reciprocal re-ranked distances or neighbors, over feature files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

SHOWN = 10


def rerank(
    query: Annotated[Path, typer.Option(help="Features of the queries: .npy, .npz or .safetensors.")],
    gallery: Annotated[Path, typer.Option(help="Features of the gallery, likewise.")],
    k1: Annotated[int, typer.Option(help="Neighbors among which reciprocal ones are looked for.")] = 20,
    k2: Annotated[int, typer.Option(help="Neighbors whose encodings are averaged.")] = 6,
    lambda_value: Annotated[float, typer.Option(help="Weight of the original distance, 0 to 1.")] = 0.3,
    compat: Annotated[str, typer.Option(help="Whose results: official, torchreid or fastreid.")] = "official",
    metric: Annotated[str, typer.Option(help="euclidean, sqeuclidean or cosine.")] = "euclidean",
    topk: Annotated[
        int | None, typer.Option(min=1, help="Only the nearest of each query; without it, all distances (Q, G).")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help=".npz: distances, with --topk also indices. .npy: distances without --topk."
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; by default cpu.")] = None,
) -> None:
    """Re-rank the gallery for each query by k-reciprocal encoding (Zhong et al., CVPR 2017).

    Distances of all pairs go to a .npy file strip by strip and are never held in memory as a whole. Without --output,
    the first results are printed.

    Example: pyreid rerank --query query.npy --gallery gallery.npy --topk 50 --output reranked.npz
    """
    from pyreid.cli.features import (
        COMPAT,
        METRICS,
        check_columns,
        check_device,
        check_options,
        naming,
        open_matrix,
        print_neighbors,
        re_ranker,
        save_arrays,
    )

    check_options(metric=(metric, METRICS), compat=(compat, COMPAT))
    if output is not None and output.suffix not in ((".npy", ".npz") if topk is None else (".npz",)):
        expected = ".npy or .npz" if topk is None else ".npz with --topk"
        raise typer.BadParameter(f"--output: expected a file that ends in {expected}, got {output}")
    if device is not None:
        check_device(device)
    import numpy as np
    import torch

    from pyreid._files import write_atomically
    from pyreid.ops._checks import computing_dtype
    from pyreid.retrieval.k_reciprocal import nearest_in_strips

    method = re_ranker(k1=k1, k2=k2, lambda_value=lambda_value, compat=compat)
    queries, rows = open_matrix("query", query), open_matrix("gallery", gallery)
    check_columns(queries, rows, gallery)
    if topk is not None and topk > len(rows):
        raise ValueError(f"--topk: expected 1 to {len(rows)}, the rows of --gallery {gallery}, got {topk}")
    chosen, dtype = torch.device(device or "cpu"), computing_dtype(queries, rows)

    def strips() -> Iterator[tuple[slice, Tensor]]:
        with naming(query=query, gallery=gallery):
            found = method.strips(queries, rows, metric=metric, device=chosen)  # type: ignore[arg-type]
            yield from _with_progress(found, len(queries))

    if output is not None and any(output.exists() and output.samefile(given) for given in (query, gallery)):
        raise ValueError(f"--output: {output} is one of the inputs")
    if topk is None and output is not None:
        kind = np.float64 if dtype == torch.float64 else np.float32
        shape = (len(queries), len(rows))

        def write(temporary: Path) -> None:
            if output.suffix == ".npz":
                dense = np.empty(shape, dtype=kind)
                for strip, values in strips():
                    dense[strip] = values.cpu().numpy()
                np.savez(temporary, distances=dense)
                return
            # Strip by strip in their order, not through a map: on a full disk a map ends the process by a signal.
            header = {"descr": np.lib.format.dtype_to_descr(np.dtype(kind)), "fortran_order": False, "shape": shape}
            try:
                with temporary.open("wb") as file:
                    np.lib.format.write_array_header_1_0(file, header)
                    for _, values in strips():
                        file.write(np.ascontiguousarray(values.cpu().numpy(), dtype=kind).data)
            except OSError as error:
                raise OSError(error.errno, f"{output}: cannot be written ({error.strerror})") from error

        write_atomically(output, write)
        print(f"{output}: distances ({shape[0]}, {shape[1]})")
        return
    count = min(SHOWN, len(rows)) if topk is None else topk
    distances, indices = nearest_in_strips(strips(), len(queries), count, dtype=dtype, device=chosen)
    distances, indices = distances.cpu(), indices.cpu()
    if output is None:
        print_neighbors(distances.numpy(), indices.numpy(), gallery)
    else:
        save_arrays(output, {"distances": distances.numpy(), "indices": indices.numpy()})
        print(f"{output}: distances and indices of {len(distances)} queries, {count} neighbors each")


def _with_progress(strips: Iterator[tuple[slice, Tensor]], total: int) -> Iterator[tuple[slice, Tensor]]:
    """The strips, with a bar that runs without an end while neighbors are searched, before the first strip."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("Searching neighbors", total=None)
        first = True
        for strip, values in strips:
            if first:
                bar.remove_task(task)
                task, first = bar.add_task("Re-ranking", total=total), False
            yield strip, values
            bar.advance(task, strip.stop - strip.start)
