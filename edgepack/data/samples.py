"""Samples: named arrays that fit a model's inputs, and the checks that make sure of it."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack._fields import join_faults, nearest
from edgepack.errors import DataError
from edgepack.model import TensorSpec

LABELS: Final = "labels"
# numpy.savez names an array given without a keyword so.
_UNNAMED: Final = "arr_0"
_MINIMUM_TO_SPLIT: Final = 2


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Samples:
    """Inputs of a model, in the source model's names, layout and element types.

    Attributes:
        arrays: name and array of each input, in the model's order; an array's shape is
            (num_samples, *spec.shape), so a batch axis of 1 stays.
        labels: (num_samples,) int64 class ids, or whatever a metric of the user's judges by,
            (num_samples, ...); or None.
        digest: sha256 hex digest over names, element types, shapes, values and labels.
        num_samples: how many there are, at least one.
    """

    arrays: tuple[tuple[str, NDArray[Any]], ...]
    labels: NDArray[Any] | None
    digest: str
    num_samples: int


def make_samples(
    arrays: Sequence[tuple[str, NDArray[Any]]], *, labels: NDArray[Any] | None = None
) -> Samples:
    """Make samples of arrays that were checked before, and digest their content."""
    digest = hashlib.sha256()
    for name, array in (*arrays, *(((LABELS, labels),) if labels is not None else ())):
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        digest.update(repr((name, str(array.dtype), array.shape)).encode())
        digest.update(little.reshape(-1).view(np.uint8).data)
    return Samples(
        arrays=tuple(arrays),
        labels=labels,
        digest=digest.hexdigest(),
        num_samples=len(arrays[0][1]) if arrays else 0,
    )


def split_samples(samples: Samples) -> tuple[Samples, Samples]:
    """Split samples by index: even ones for calibration, odd ones for evaluation.

    Raises:
        DataError: there are fewer than two.
    """
    return _take(samples, slice(0, None, 2)), _take(samples, slice(1, None, 2))


def halve_samples(samples: Samples) -> tuple[Samples, Samples]:
    """Split the samples of a stream: its first half calibrates, its second half evaluates.

    Every other step of a stream would be another stream.

    Raises:
        DataError: there are fewer than two.
    """
    middle = samples.num_samples // 2
    return _take(samples, slice(middle)), _take(samples, slice(middle, None))


def _take(samples: Samples, part: slice) -> Samples:
    if samples.num_samples < _MINIMUM_TO_SPLIT:
        raise DataError(
            "expected at least 2 samples, as one half calibrates and the other evaluates, but "
            f"got {samples.num_samples}",
            remedy="Give more samples, or evaluation data of their own with --eval-data.",
        )
    return make_samples(
        [(name, array[part]) for name, array in samples.arrays],
        labels=None if samples.labels is None else samples.labels[part],
    )


def check_samples(
    given: Mapping[str, NDArray[Any]],
    *,
    inputs: tuple[TensorSpec, ...],
    labels: NDArray[Any] | None,
    source: str,
    are_classes: bool = True,
) -> Samples:
    """Bring arrays to a model's inputs: names, counts, shapes, element types, finite values.

    Args:
        given: arrays by name; `labels` stands for class ids unless an input is called so.
        inputs: the source model's inputs.
        labels: class ids from elsewhere.
        source: what the arrays came from, for messages.
        are_classes: whether labels are class ids; of others only the count is checked.

    Raises:
        DataError: something does not fit; all faults are listed.
    """
    faults: list[str] = []
    arrays, labels = _match_names(dict(given), inputs, labels, faults)
    fitted: list[tuple[str, NDArray[Any]]] = []
    for spec in inputs:
        if spec.name in arrays:
            array = _fit(arrays[spec.name], spec, faults)
            if array is not None:
                fitted.append((spec.name, array))
    counts = {name: len(array) for name, array in fitted}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name!r} {count}" for name, count in counts.items())
        faults.append(f"expected as many samples of every input, but got {listed}")
    elif 0 in counts.values():
        faults.append("expected at least one sample, but got none")
    count = next(iter(counts.values()), None)
    ids = (_fit_labels if are_classes else _count_labels)(labels, count, faults)
    if faults:
        raise DataError(
            join_faults(source, faults),
            remedy="Give arrays with the names, shapes and element types of the source model's "
            "inputs: " + "; ".join(describe_input(spec) for spec in inputs) + ".",
        )
    return make_samples(fitted, labels=ids)


def describe_input(spec: TensorSpec) -> str:
    """Say what an array for an input looks like, such as `'pixels' float32 (N, 8, 8, 1)`."""
    return f"{spec.name!r} {spec.dtype} {_describe_shape(spec)}"


def _describe_shape(spec: TensorSpec) -> str:
    shape = spec.shape[1:] if spec.shape[:1] == (1,) else spec.shape
    return f"({', '.join(['N', *(str(size) for size in shape)])})"


def _match_names(
    given: dict[str, NDArray[Any]],
    inputs: tuple[TensorSpec, ...],
    labels: NDArray[Any] | None,
    faults: list[str],
) -> tuple[dict[str, NDArray[Any]], NDArray[Any] | None]:
    names = [spec.name for spec in inputs]
    if LABELS in given and LABELS not in names:
        if labels is not None:
            faults.append("labels are given twice: in the data and in a file of their own")
        labels = given.pop(LABELS)
    if len(names) == 1 and set(given) == {_UNNAMED}:
        given = {names[0]: given[_UNNAMED]}
    unknown = [name for name in given if name not in names]
    faults += [
        f"missing array {name!r}{nearest(name, unknown)}" for name in names if name not in given
    ]
    faults += [f"unknown array {name!r}{nearest(name, [*names, LABELS])}" for name in unknown]
    return given, labels


def _fit(array: NDArray[Any], spec: TensorSpec, faults: list[str]) -> NDArray[Any] | None:
    if array.ndim == len(spec.shape) and spec.shape[:1] == (1,):
        # The samples' axis stands where the batch axis of 1 is.
        array = array[:, np.newaxis] if array.shape[1:] == spec.shape[1:] else array
    if array.ndim != len(spec.shape) + 1 or array.shape[1:] != spec.shape:
        faults.append(
            f"input {spec.name!r}: expected shape {_describe_shape(spec)}, but got {array.shape}"
        )
        return None
    cast = _cast(array, spec, faults)
    if cast is None:
        return None
    if np.issubdtype(cast.dtype, np.floating):
        finite = np.isfinite(cast).all(axis=tuple(range(1, cast.ndim)))
        if not finite.all():
            bad = np.flatnonzero(~finite)
            kind = "NaN" if np.isnan(cast[bad[0]]).any() else "an infinity"
            more = f"; {bad.size} samples are not finite" if bad.size > 1 else ""
            faults.append(
                f"input {spec.name!r}: expected finite values, but sample {bad[0]} (counting "
                f"from 0) holds {kind}{more}"
            )
            return None
    return cast


def _cast(array: NDArray[Any], spec: TensorSpec, faults: list[str]) -> NDArray[Any] | None:
    """Bring an array to the input's element type when no value is lost."""
    dtype = np.dtype(spec.dtype)
    if array.dtype == dtype:
        return array
    both_float = np.issubdtype(array.dtype, np.floating) and np.issubdtype(dtype, np.floating)
    from_integer = np.issubdtype(array.dtype, np.integer) and dtype != np.bool_
    if not both_float and not from_integer:
        faults.append(f"input {spec.name!r}: expected {dtype}, but got {array.dtype}")
        return None
    with np.errstate(over="ignore"):
        cast = array.astype(dtype)
    if from_integer and _leaves_range(array, cast):
        lossless = False
    elif both_float and dtype != np.float16:
        # Rounding to float32 is what every framework does; leaving its range is not.
        lossless = bool(np.all(np.isfinite(cast) == np.isfinite(array)))
    else:
        lossless = bool(np.array_equal(cast.astype(array.dtype), array)) and not _wraps(array, cast)
    if not lossless:
        faults.append(
            f"input {spec.name!r}: expected {dtype}, but got {array.dtype} with values that "
            f"{dtype} cannot hold"
        )
        return None
    return cast


def _leaves_range(array: NDArray[Any], cast: NDArray[Any]) -> bool:
    """Tell whether rounding led beyond the integers' type, from where no cast leads back."""
    if not np.issubdtype(cast.dtype, np.floating):
        return False
    limits = np.iinfo(array.dtype)
    return bool(np.any(cast.astype(np.float64) >= float(limits.max) + 1.0))


def _wraps(array: NDArray[Any], cast: NDArray[Any]) -> bool:
    # -1 as uint8 is 255 and back again -1: equal after the round trip, yet another number.
    return bool(np.any((array < 0) != (cast < 0)))


def _count_labels(
    labels: NDArray[Any] | None, count: int | None, faults: list[str]
) -> NDArray[Any] | None:
    if labels is not None and count is not None and labels.shape[:1] != (count,):
        faults.append(f"labels: expected shape ({count}, ...), but got {labels.shape}")
    return labels


def _fit_labels(
    labels: NDArray[Any] | None, count: int | None, faults: list[str]
) -> NDArray[np.int64] | None:
    if labels is None:
        return None
    flat = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels  # noqa: PLR2004 - a column
    if flat.ndim != 1 or (count is not None and len(flat) != count):
        expected = "(N,)" if count is None else f"({count},)"
        faults.append(f"labels: expected shape {expected}, but got {labels.shape}")
        return None
    whole = np.issubdtype(flat.dtype, np.integer) or (
        np.issubdtype(flat.dtype, np.floating)
        and bool(np.all(np.isfinite(flat)) and np.all(flat == np.trunc(flat)))
    )
    if not whole:
        faults.append(f"labels: expected whole numbers, but got {flat.dtype}")
        return None
    if flat.size and flat.min() < 0:
        faults.append(f"labels: expected class ids from 0, but got {int(flat.min())}")
        return None
    ids: NDArray[np.int64] = flat.astype(np.int64)
    return ids
