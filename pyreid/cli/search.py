"""``pyreid search``: the nearest gallery rows of each query, over feature files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

if TYPE_CHECKING:
    from pyreid.ops._checks import Metric


def search(
    query: Annotated[Path, typer.Option(help="Features of the queries: .npy, .npz or .safetensors.")],
    gallery: Annotated[Path, typer.Option(help="Features of the gallery, likewise.")],
    neighbors: Annotated[
        int | None, typer.Option("-k", "--k", min=1, help="Neighbors of each query. (Default: 10, or all if fewer.)")
    ] = None,
    metric: Annotated[str, typer.Option(help="euclidean, sqeuclidean or cosine.")] = "euclidean",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write distances and indices (Q, k) as .npz.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; by default cpu.")] = None,
) -> None:
    """Find the nearest gallery rows of each query, exactly: no matrix of all distances, files mapped into memory.

    Of a file with several arrays, the one named query or gallery or features is taken. Without --output, the first
    results are printed.

    Example: pyreid search --query query.npy --gallery gallery.npy -k 10 --output neighbors.npz
    """
    from pyreid.cli.features import (
        METRICS,
        check_columns,
        check_device,
        check_options,
        naming,
        open_matrix,
        print_neighbors,
        save_arrays,
        time_left,
    )

    check_options(metric=(metric, METRICS))
    if output is not None and output.suffix != ".npz":
        raise typer.BadParameter(f"--output: expected a file that ends in .npz, got {output}")
    if device is not None:
        check_device(device)
    import torch

    from pyreid.ops._checks import computing_dtype
    from pyreid.retrieval.search import search_strips

    queries, rows = open_matrix("query", query), open_matrix("gallery", gallery)
    check_columns(queries, rows, gallery)
    k = min(10, len(rows)) if neighbors is None else neighbors
    if k > len(rows):
        raise ValueError(f"-k: expected 1 to {len(rows)}, the rows of --gallery {gallery}, got {k}")
    chosen = torch.device(device or "cpu")
    dtype = computing_dtype(queries, rows)
    distances = torch.empty(len(queries), k, dtype=dtype)
    indices = torch.empty(len(queries), k, dtype=torch.int64)
    with naming(query=query, gallery=gallery), time_left("Searching", len(queries)) as advance:
        strips = search_strips(queries, rows, k, metric=cast("Metric", metric), device=chosen)
        for strip, nearest, found in strips:
            distances[strip], indices[strip] = nearest, found
            advance(strip.stop - strip.start)
    if output is None:
        print_neighbors(distances.numpy(), indices.numpy(), gallery)
    else:
        save_arrays(output, {"distances": distances.numpy(), "indices": indices.numpy()})
        print(f"{output}: distances and indices of {len(distances)} queries, {k} neighbors each")
