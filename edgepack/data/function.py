"""Samples from the user's own Python: `module:function`, yielding one dict a sample."""

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack._fields import join_faults
from edgepack.data.arrays import MAXIMUM_BYTES
from edgepack.data.own_code import find_function, own_code
from edgepack.errors import DataError

MAXIMUM_SAMPLES: Final = 10_000


def read_function(source: str) -> Mapping[str, NDArray[Any]]:
    """Call a function and stack what it yields: each item a dict of one sample's arrays.

    Raises:
        DataError: no such module or function, an exception inside it, items that are no
            dicts of arrays, unlike keys or shapes, or more than 10,000 samples or 4 GiB.
    """
    with own_code(
        source,
        remedy="Mend the function; it is imported from the current directory and called without "
        "arguments.",
    ):
        function = find_function(source, Path.cwd())
        items = list(itertools.islice(_bounded(source, function()), MAXIMUM_SAMPLES + 1))
    if len(items) > MAXIMUM_SAMPLES:
        raise DataError(
            f"{source}: expected at most {MAXIMUM_SAMPLES} samples, but it goes on yielding",
            remedy="End the function after some hundred samples, as with itertools.islice.",
        )
    if not items:
        raise DataError(
            f"{source}: expected at least one sample, but it yields none",
            remedy="Check what the function iterates over.",
        )
    return _stack(source, items)


def _bounded(source: str, items: Any) -> Iterator[dict[str, NDArray[Any]]]:  # noqa: ANN401 - whatever the user returns
    total = 0
    for index, item in enumerate(items):
        if not isinstance(item, Mapping):
            raise DataError(
                f"{source}: sample {index}: expected a dict of input name and array, but got "
                f"{type(item).__name__}",
                remedy="Yield one dict a sample, such as {'pixels': array}.",
            )
        arrays = {str(name): np.asarray(value) for name, value in item.items()}
        total += sum(array.nbytes for array in arrays.values())
        if total > MAXIMUM_BYTES:
            raise DataError(
                f"{source}: expected at most {MAXIMUM_BYTES // 2**30} GiB of samples, but sample "
                f"{index} leads beyond",
                remedy="End the function after some hundred samples, as with itertools.islice.",
            )
        yield arrays


def _stack(source: str, items: list[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    faults: list[str] = []
    first = items[0]
    for index, item in enumerate(items):
        if set(item) != set(first):
            faults.append(f"sample {index}: expected keys {sorted(first)}, but got {sorted(item)}")
            continue
        faults += [
            f"sample {index}: {name!r} expected shape {first[name].shape} as in sample 0, but got "
            f"{array.shape}"
            for name, array in item.items()
            if array.shape != first[name].shape
        ]
        if any(array.dtype.hasobject for array in item.values()):
            faults.append(f"sample {index}: expected numbers, but got Python objects")
    if faults:
        shown = faults[:5] + ([f"and {len(faults) - 5} more"] if len(faults) > 5 else [])  # noqa: PLR2004 - one screen
        raise DataError(
            join_faults(source, shown),
            remedy="Yield the same keys and shapes with every sample.",
        )
    return {name: np.stack([item[name] for item in items]) for name in first}
