"""k-reciprocal re-ranking of given distance matrices: a drop-in for the published function and torchreid's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyreid.ops._checks import FLOAT_TYPES, upcast
from pyreid.ops.distance_tiles import as_tensor, tile_rows
from pyreid.ops.k_reciprocal import re_rank_strip
from pyreid.ops.set_neighbors import SetNeighbors
from pyreid.retrieval.encoding import check_parameters, encode, list_length


def re_ranking(
    q_g_dist: Any, q_q_dist: Any, g_g_dist: Any, k1: int = 20, k2: int = 6, lambda_value: float = 0.3
) -> np.ndarray:
    """Re-ranked distances from the three matrices of distances: a drop-in for the function of this name.

    The function of zhunzhong07/person-re-ranking, which torchreid has, too, bit for bit as far as the exponential
    function and fused multiplication allow: the distances are squared (float16 and bfloat16 as float32: there squares
    of float16 overflow from 256 on), cast to float32, and each divided by the maximum of its column; the matrix that
    results is transposed. (So give it Euclidean distances. torchreid's evaluation gives it squared ones.) As there,
    ``q_q_dist`` and ``g_g_dist`` should be symmetric, and are read by columns if not. Unlike there, ties are in the
    order of the indices, a column of zeros gives distances 0 instead of NaN, NaN is an error, and of the (Q + G) x (Q +
    G) matrix only a strip of 64 MiB, or 32 rows, exists at a time.

    :func:`pyreid.k_reciprocal` computes the same from features, without these matrices.

    Args:
        q_g_dist: (Q, G) distances: a floating-point array or tensor, or anything with DLPack. A tensor on another
            device is copied to the CPU.
        q_q_dist: (Q, Q).
        g_g_dist: (G, G).
        k1: neighbors, beside the item itself, among which reciprocal ones are looked for.
        k2: neighbors, the item itself included, whose encodings are averaged; 1: none.
        lambda_value: weight of the original distance, from 0 to 1.

    Returns:
        (Q, G) float32.

    Raises:
        TypeError: if a matrix is not floating-point or a parameter is not a number.
        ValueError: if shapes do not fit, a parameter is out of range, or distances are NaN, or infinite when squared.
    """
    check_parameters(k1, k2, lambda_value)
    q_g = _as_distances("q_g_dist", q_g_dist, None)
    num_query, num_gallery = q_g.shape
    blocks = _Blocks(
        _as_distances("q_q_dist", q_q_dist, (num_query, num_query)),
        q_g,
        _as_distances("g_g_dist", g_g_dist, (num_gallery, num_gallery)),
    )
    if q_g.numel() == 0:
        return np.empty((num_query, num_gallery), dtype=np.float32)
    items = num_query + num_gallery
    maxima, cpu = blocks.maxima(), torch.device("cpu")
    lists = SetNeighbors.empty(items, list_length(k1, k2, items, "official"), torch.float32, cpu)
    out = torch.empty((num_query, num_gallery), dtype=torch.float32, device=cpu)
    for rows, values in blocks.strips(maxima):
        lists.add(rows, values, 0)
        if rows.start < num_query:
            queries = slice(rows.start, min(rows.stop, num_query))
            out[queries] = values[: queries.stop - queries.start, num_query:]
    encoding = encode(lists.indices, num_query, k1, k2, lambda starts, columns: blocks.entries(starts, columns, maxima))
    every = slice(0, num_query)
    re_rank_strip(out, encoding.queries(every), encoding.gallery, lambda_value=float(lambda_value))
    return out.numpy()


class _Blocks:
    """The matrix [[q_q, q_g], [q_g^T, g_g]] read by columns: row i of what follows is its column i."""

    def __init__(self, q_q: Tensor, q_g: Tensor, g_g: Tensor) -> None:
        self._q_q, self._q_g, self._g_g = q_q, q_g, g_g
        self._num_query = len(q_q)
        self._items = len(q_q) + len(g_g)

    def _squares(self, begin: int, end: int) -> Tensor:
        """Columns [begin, end) as rows, squared and cast."""
        return torch.cat([_squared(part) for _, part in self._parts(begin, end)], dim=1)

    def _parts(self, begin: int, end: int) -> tuple[tuple[str, Tensor], tuple[str, Tensor]]:
        """Columns [begin, end) as rows, by the matrix that they come from."""
        q = self._num_query
        if end <= q:
            return ("q_q_dist", self._q_q[:, begin:end].t()), ("q_g_dist", self._q_g[begin:end])
        columns = slice(begin - q, end - q)
        return ("q_g_dist", self._q_g[:, columns].t()), ("g_g_dist", self._g_g[:, columns].t())

    def _slices(self) -> Iterator[slice]:
        """Strips that lie on one side of the border between queries and gallery."""
        for first, last in ((0, self._num_query), (self._num_query, self._items)):
            rows = tile_rows(last - first, self._items, device=torch.device("cpu"), dtype=torch.float32)
            for start in range(first, last, rows):
                yield slice(start, min(start + rows, last))

    def maxima(self) -> Tensor:
        """(N,) float32, the largest square of each column; 1 for a column of zeros.

        Raises:
            ValueError: if there are infinite ones.
        """
        maxima = torch.empty(self._items, dtype=torch.float32, device="cpu")
        for rows in self._slices():
            maxima[rows] = self._squares(rows.start, rows.stop).amax(dim=1)
        wrong = (~torch.isfinite(maxima)).nonzero()
        if len(wrong):
            item, q = int(wrong[0]), self._num_query
            place = f"query {item}" if item < q else f"gallery item {item - q}"
            name = next(n for n, part in self._parts(item, item + 1) if bool(_squared(part).isinf().any()))
            raise ValueError(f"{name}: squared distances overflow float32, the first those of {place}")
        return torch.where(maxima > 0, maxima, 1)

    def strips(self, maxima: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """The normalised rows."""
        for rows in self._slices():
            yield rows, self._squares(rows.start, rows.stop).div_(maxima[rows, None])

    def entries(self, starts: Tensor, columns: Tensor, maxima: Tensor) -> Tensor:
        """The normalised values of the entries of sparse rows."""
        q = self._num_query
        i = torch.arange(self._items, device="cpu").repeat_interleave(starts.diff())
        j = columns.long()
        squares = torch.empty(len(i), dtype=torch.float32, device="cpu")
        for block, row, column, here in (
            (self._q_q, j, i, (i < q) & (j < q)),
            (self._q_g, i, j - q, (i < q) & (j >= q)),
            (self._q_g, j, i - q, (i >= q) & (j < q)),
            (self._g_g, j - q, i - q, (i >= q) & (j >= q)),
        ):
            squares[here] = _squared(block[row[here], column[here]])
        return squares.div_(maxima[i])


def _squared(distances: Tensor) -> Tensor:
    """As float32: of float64 squared before the cast, as the published code does; squares of halves would overflow."""
    return upcast(distances).square().float()


def _as_distances(name: str, matrix: Any, shape: tuple[int, int] | None) -> Tensor:
    tensor = as_tensor(name, matrix).cpu()
    if tensor.dtype not in FLOAT_TYPES:
        raise TypeError(f"{name}: expected float16, bfloat16, float32 or float64, got {tensor.dtype}")
    if tensor.dim() != 2:
        raise ValueError(f"{name}: expected a 2-D matrix, got shape {tuple(tensor.shape)}")
    if shape is not None and tensor.shape != shape:
        raise ValueError(f"{name}: expected shape {shape} to match q_g_dist, got {tuple(tensor.shape)}")
    nans = tensor.isnan()
    if bool(nans.any()):
        row, column = nans.nonzero()[0].tolist()
        raise ValueError(f"{name}: {int(nans.sum())} NaN distances, the first at row {row}, column {column}")
    return tensor
