"""Result files: a measurement, or those of a fleet with the devices that gave none."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgepack.errors import MeasureError
from edgepack.measure.record import GIVE_RESULT, Measurement, parse_measurement

# Of a fleet: half a megabyte a result is usual.
_MAXIMUM_FILE_BYTES: Final = 2 * 2**30


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A device of which there is no measurement, and why."""

    device: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredResults:
    """What one run on one or more devices gave; a file of it holds a measurement at least.

    Attributes:
        measured: its measurements.
        failed: devices that could not be measured.
    """

    measured: tuple[Measurement, ...]
    failed: tuple[Failure, ...]


def load_measurements(path: Path) -> tuple[Measurement, ...]:
    """Read a result file: one measurement, or a list in which failed devices are passed over.

    Raises:
        MeasureError: as `load_results`.
    """
    return load_results(path).measured


def load_results(path: Path) -> StoredResults:
    """Read a result file, with the devices of which there is no measurement.

    Raises:
        MeasureError: unreadable, too large, not JSON, without a measurement, or faulty.
    """
    try:
        size = path.stat().st_size
        if size > _MAXIMUM_FILE_BYTES:
            raise MeasureError(
                f"{path}: expected a result of at most {_MAXIMUM_FILE_BYTES} bytes, not {size}",
                remedy=GIVE_RESULT,
            )
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise MeasureError(
            f"{path}: the result cannot be read: {error.strerror}", remedy="Check the path."
        ) from error
    except (ValueError, RecursionError) as error:
        raise MeasureError(
            f"{path}: expected a result in JSON: {error}", remedy=GIVE_RESULT
        ) from error
    items = value if isinstance(value, list) else [value]
    tables = [item for item in items if isinstance(item, dict)]
    failed = [table for table in tables if set(table) == {"device", "error"}]
    measured = [table for table in tables if table not in failed]
    if len(tables) < len(items) or not measured:
        raise MeasureError(
            f"{path}: expected a result or a list of results, but there is none in it",
            remedy=GIVE_RESULT,
        )
    try:
        return StoredResults(
            measured=tuple(parse_measurement(table) for table in measured),
            failed=tuple(
                Failure(device=str(table["device"]), reason=_reason(table["error"]))
                for table in failed
            ),
        )
    except MeasureError as error:
        raise MeasureError(f"{path}: {error.message}", remedy=error.remedy) from error


def _reason(error: object) -> str:
    """Give the message of an error as `bench` stores it."""
    message = error.get("message") if isinstance(error, dict) else error
    return message if isinstance(message, str) and message else "the result does not say why"
