"""k-reciprocal re-ranking as the paper and the published code define it: sets, dictionaries and loops, in float64."""

from __future__ import annotations

import math

import numpy as np

Row = dict[int, float]


def squared_distances(x: np.ndarray) -> np.ndarray:
    differences = x[:, None].astype(np.float64) - x[None].astype(np.float64)
    return (differences**2).sum(2)


def normalised(powers: np.ndarray) -> np.ndarray:
    """Each column divided by its largest element, 0 if that is 0; then transposed."""
    out = np.zeros_like(powers)
    for column in range(len(powers)):
        largest = powers[:, column].max()
        for row in range(len(powers)):
            out[column, row] = powers[row, column] / largest if largest > 0 else 0.0
    return out


def naive_re_ranking(
    squared: np.ndarray,
    num_query: int,
    *,
    k1: int,
    k2: int,
    lambda_value: float,
    compat: str = "official",
    final_scale: float = 1.0,
) -> np.ndarray:
    """(Q, G) from the (N, N) squared distances of the joint set, Q queries first."""
    n = len(squared)
    if compat == "fastreid":
        d = squared.T
        lists = [np.argsort(row, kind="stable")[:k1].tolist() for row in d]
    else:
        d = normalised(squared**2 if compat == "torchreid" else squared)
        lists = [np.argsort(row, kind="stable").tolist() for row in d]

    def reciprocal(i: int, k: int) -> list[int]:
        return [j for j in lists[i][:k] if i in lists[j][:k]]

    half = int(np.around(k1 / 2)) + 1
    encodings: list[Row] = []
    for i in range(n):
        own = reciprocal(i, k1 + 1)
        expanded = set(own)
        for candidate in own:
            theirs = reciprocal(candidate, half)
            if len(set(theirs) & set(own)) > 2 / 3 * len(theirs):
                expanded |= set(theirs)
        least = min((d[i, j] for j in expanded), default=0.0)  # cancels, but keeps far items from underflow
        weights = {j: math.exp(least - d[i, j]) for j in expanded}
        total = math.fsum(weights.values())
        encodings.append({j: weight / total for j, weight in weights.items()})
    if k2 != 1:
        means: list[Row] = []
        for i in range(n):
            nearest = lists[i][:k2]
            columns = {column for j in nearest for column in encodings[j]}
            means.append({c: math.fsum(encodings[j].get(c, 0.0) for j in nearest) / len(nearest) for c in columns})
        encodings = means

    final = np.empty((num_query, n - num_query))
    for q in range(num_query):
        for g in range(num_query, n):
            common = encodings[q].keys() & encodings[g].keys()
            m = math.fsum(min(encodings[q][c], encodings[g][c]) for c in common)
            final[q, g - num_query] = (1 - lambda_value) * (1 - m / (2 - m)) + lambda_value * final_scale * d[q, g]
    return final


def tolerance(dtype: type, x: np.ndarray, k2: int, *, exact: bool = False, compat: str = "official") -> float:
    """Largest absolute error of a re-ranked distance whose discrete decisions are right.

    In units: a distance summed from dim products has an error of 2 (dim + 4) relative to the largest sum of two squared
    norms, divided by what distances are divided by, and twice that if squared; nothing if all products are exact. A
    weight has this and 8 (exponential, sum, quotient). Averaging k2 rows adds k2 + 1, adding up the overlaps one for
    each item. All are relative to terms whose sum m is at most 1, and J = 1 - m / (2 - m) falls by at most 2 per unit
    of m. The distance itself and the blend add the distance's error and 8, relative to at most the largest distance.
    """
    items, dim = x.shape
    squared = squared_distances(x)
    divisor = 1.0 if compat == "fastreid" else squared.max(axis=1)
    smallest = np.where(divisor > 0, divisor, 1).min()
    norms = 2 * float((x.astype(np.float64) ** 2).sum(1).max()) / smallest
    distance = 0.0 if exact else 2 * (dim + 4) * norms * (2 if compat == "torchreid" else 1)
    largest = max(1.0, float(squared.max())) if compat == "fastreid" else 1.0
    return float(np.finfo(dtype).eps) * (2 * (8 + distance + k2 + 1 + items) + distance + 8 * largest)
