"""Results of earlier measurements, kept in the user's own SQLite file.

Each result is a row of figures; the newest also keep everything that was measured, packed, so that
they can be compared and gated later. SQLite makes each addition whole or not at all, also when two
programs add at once.
"""

import contextlib
import json
import os
import sqlite3
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, Self

import platformdirs

from edgepack.errors import HistoryError
from edgepack.measure.likeness import tell_conditions
from edgepack.measure.record import Measurement, parse_measurement, write_measurement

NUM_WHOLE: Final = 200
"""Results that keep all their samples; older ones keep their figures."""

_SCHEMA: Final = 2
_SCHEMA_WITHOUT_CONDITIONS: Final = 1
_WAIT_SECONDS: Final = 30.0
_MOST_BYTES: Final = 512 * 2**20
_REMEDY: Final = "Move that file away; the next measurement begins a new one."


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A result's figures.

    Attributes:
        id: its number in the history, from 1.
        time: when it was measured, UTC, ISO 8601.
        device: what the user called it.
        board: what it says it is.
        model: name of the bundle or the file.
        model_sha256: of the `.tflite` that ran.
        recipe: what it was made by.
        bundle_sha256: of the bundle it came from.
        engine: the runtime and its version.
        runner: `python` or `native`.
        num_threads: of the inference.
        conditions: what must be alike in results that are compared, as a table in JSON; None of
            those that a version without it kept.
        num_launches: fresh processes.
        num_samples: timed runs of all launches.
        median_ns: the median of the launches' medians.
        median_low_ns: lower end of its 95% interval.
        median_high_ns: upper end.
        p90_ns: over all samples.
        p99_ns: likewise.
        peak_memory_bytes: largest of any launch.
        verdict: `valid`, `noisy`, `throttled` or `contended`.
        tool_version: of EdgePack.
    """

    id: int
    time: str
    device: str
    board: str | None
    model: str
    model_sha256: str
    recipe: str | None
    bundle_sha256: str | None
    engine: str
    runner: str | None
    num_threads: int
    conditions: str | None
    num_launches: int
    num_samples: int
    median_ns: int
    median_low_ns: int | None
    median_high_ns: int | None
    p90_ns: int
    p99_ns: int | None
    peak_memory_bytes: int | None
    verdict: str
    tool_version: str

    @property
    def interval_ns(self) -> tuple[int, int] | None:
        """The median's 95% interval."""
        if self.median_low_ns is None or self.median_high_ns is None:
            return None
        return self.median_low_ns, self.median_high_ns

    @property
    def told_conditions(self) -> Mapping[str, str] | None:
        """The conditions, name by name; None where they were not kept."""
        if self.conditions is None:
            return None
        try:
            table = json.loads(self.conditions)
        except (ValueError, TypeError):
            table = None
        # What is damaged tells nothing; the figures beside it are what is shown.
        items = table.items() if isinstance(table, dict) else ()
        return {name: str(value) for name, value in items}


COLUMNS: Final = tuple(each.name for each in fields(Entry))


def history_path() -> Path:
    """Give the history's file below `$XDG_DATA_HOME/edgepack`, or in the platform's place."""
    configured = os.environ.get("XDG_DATA_HOME", "")
    if Path(configured).is_absolute():
        return Path(configured) / "edgepack" / "history.sqlite"
    return Path(platformdirs.user_data_dir("edgepack", appauthor=False)) / "history.sqlite"


class History:
    """An open history; used inside `with`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._told():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=_WAIT_SECONDS)
        try:
            self._prepare()
        except HistoryError:
            self._connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def _prepare(self) -> None:
        with self._told(), self._connection as connection:
            if self._version() == _SCHEMA:
                return
            # Two programs may meet here; the second waits, and finds that it is done.
            connection.execute("BEGIN IMMEDIATE")
            version = self._version()
            if version == 0:
                names = ", ".join(each for each in COLUMNS if each != "id")
                connection.execute(
                    "CREATE TABLE results "
                    f"(id INTEGER PRIMARY KEY AUTOINCREMENT, {names}, whole BLOB)"
                )
            elif version == _SCHEMA_WITHOUT_CONDITIONS:
                connection.execute("ALTER TABLE results ADD COLUMN conditions")
            elif version != _SCHEMA:
                raise HistoryError(
                    f"{self._path}: expected a history of schema {_SCHEMA}, not {version}",
                    remedy=_REMEDY,
                )
            connection.execute(f"PRAGMA user_version = {_SCHEMA}")

    def _version(self) -> int:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        return int(version)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise HistoryError(
                f"{self._path}: the history cannot be used: {error}", remedy=_REMEDY
            ) from error

    def add(self, measurement: Measurement) -> int:
        """Keep a result; give its number.

        Raises:
            HistoryError: the file cannot be written; it is as it was.
        """
        row = _figures(measurement)
        row["whole"] = zlib.compress(write_measurement(measurement))
        names, places = ", ".join(row), ", ".join("?" * len(row))
        with self._told(), self._connection as connection:
            cursor = connection.execute(
                f"INSERT INTO results ({names}) VALUES ({places})",  # noqa: S608 - our own names
                tuple(row.values()),
            )
            number = int(cursor.lastrowid or 0)
            connection.execute(
                "UPDATE results SET whole = NULL WHERE whole IS NOT NULL AND id <= ?",
                (number - NUM_WHOLE,),
            )
        return number

    def entries(
        self,
        *,
        device: str | None = None,
        model: str | None = None,
        recipe: str | None = None,
        limit: int | None = None,
    ) -> tuple[Entry, ...]:
        """Give results, the oldest first; with a limit, the newest of those that match.

        Raises:
            HistoryError: the file cannot be read.
        """
        wanted = {"device": device, "model": model, "recipe": recipe}
        given = {key: value for key, value in wanted.items() if value is not None}
        where = " AND ".join(f"{key} = ?" for key in given) or "1"
        query = (
            f"SELECT {', '.join(COLUMNS)} FROM results WHERE {where} "  # noqa: S608 - our own names
            "ORDER BY id DESC LIMIT ?"
        )
        with self._told():
            rows = self._connection.execute(query, (*given.values(), limit or -1)).fetchall()
        return tuple(Entry(**dict(zip(COLUMNS, row, strict=True))) for row in reversed(rows))

    def load(self, number: int) -> Measurement:
        """Give a whole result.

        Raises:
            HistoryError: there is none of this number, or its samples are gone or damaged.
        """
        with self._told():
            row = self._connection.execute(
                "SELECT whole FROM results WHERE id = ?", (number,)
            ).fetchone()
        if row is None:
            raise HistoryError(
                f"the history has no result {number}",
                remedy="`edgepack history` lists them with their numbers.",
            )
        if row[0] is None:
            raise HistoryError(
                f"result {number} keeps its figures alone: the samples of the last {NUM_WHOLE} "
                "results are kept",
                remedy="Measure again, and keep the file of `bench -o`.",
            )
        unpacker = zlib.decompressobj()
        try:
            return parse_measurement(json.loads(unpacker.decompress(row[0], _MOST_BYTES)))
        except (zlib.error, ValueError, TypeError) as error:
            raise HistoryError(
                f"{self._path}: result {number} is damaged: {error}", remedy=_REMEDY
            ) from error


def _figures(measurement: Measurement) -> dict[str, object]:
    model, engine, summary = measurement.model, measurement.engine, measurement.summary
    low, high = summary.median_ci95_ns or (None, None)
    return {
        "time": measurement.provenance.time,
        "device": measurement.device_name,
        "board": measurement.device.board,
        "model": model.name,
        "model_sha256": model.sha256,
        "recipe": model.recipe,
        "bundle_sha256": model.bundle_sha256,
        "engine": " ".join(part for part in (engine.name, engine.version) if part),
        "runner": engine.runner,
        "num_threads": engine.num_threads,
        "conditions": json.dumps(tell_conditions(measurement), ensure_ascii=False),
        "num_launches": summary.num_launches,
        "num_samples": summary.num_samples,
        "median_ns": summary.median_ns,
        "median_low_ns": low,
        "median_high_ns": high,
        "p90_ns": summary.p90_ns,
        "p99_ns": summary.p99_ns,
        "peak_memory_bytes": measurement.peak_memory_bytes,
        "verdict": measurement.validity.verdict.value,
        "tool_version": measurement.provenance.tool_version,
    }
