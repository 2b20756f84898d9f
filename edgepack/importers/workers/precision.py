"""Does a source of low precision answer in float32 as it does itself?

Runs inside a toolchain on its own interpreter.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from exchange import (  # type: ignore[import-not-found] # a sibling, outside any package here
    RefusedError,
)

# As of TensorFlow's sources of half precision: what is less is no rounding.
_LEAST_AGREEMENT_DB = 20
_ROUNDING = 1e-3
_LEAST_EQUAL = 0.5


def check_precision(
    names: Sequence[str], own: Sequence[Sequence[Any]], wide: Sequence[Sequence[Any]]
) -> None:
    """Refuse a source whose own answers in half precision are far from those in float32.

    Both by sample, then by output. Ids that are not as near as numbers must be mostly the same:
    rounding decides between two that are as likely.
    """
    faults: list[str] = []
    for index, name in enumerate(names):
        pairs = [
            (np.asarray(a[index]), np.asarray(b[index])) for a, b in zip(own, wide, strict=True)
        ]
        if any(ours.shape != theirs.shape for ours, theirs in pairs):
            faults.append(f"{name} (of another shape)")
            continue
        ours = np.concatenate([each.ravel() for each, _ in pairs]).astype(np.float64)
        theirs = np.concatenate([each.ravel() for _, each in pairs]).astype(np.float64)
        same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
        difference = np.subtract(ours, theirs, out=np.zeros_like(ours), where=~same)
        noise = np.sum(np.square(difference))
        signal = np.sum(np.square(theirs, out=np.zeros_like(theirs), where=np.isfinite(theirs)))
        if noise <= signal * 10 ** (-_LEAST_AGREEMENT_DB / 10) + ours.size * _ROUNDING**2:
            continue
        if pairs[0][1].dtype.kind != "f" and np.mean(same) >= _LEAST_EQUAL:
            continue
        faults.append(f"{name} (largest difference {np.max(np.abs(difference)):.3g})")
    if faults:
        raise RefusedError(
            "model",
            "expected a model of half precision to answer in float32 as it does itself, within "
            f"{_LEAST_AGREEMENT_DB} dB, but these outputs differ: {', '.join(faults)}",
            "Export the model in float32.",
        )
