"""Earlier results as tables for other programs: CSV, JSON Lines and Parquet."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from edgepack.errors import UsageError
from edgepack.measure.history import COLUMNS, Entry

if TYPE_CHECKING:
    from pathlib import PurePath


def export_entries(entries: Sequence[Entry], path: "PurePath") -> bytes:
    """Write results in the format that a file's name ends with: .csv, .jsonl or .parquet.

    Raises:
        UsageError: another ending, or Parquet without pyarrow.
    """
    formats = {".csv": _to_csv, ".jsonl": _to_json_lines, ".parquet": _to_parquet}
    write = formats.get(path.suffix.lower())
    if write is None:
        raise UsageError(
            f"{path}: expected a name that ends with {', '.join(formats)}",
            remedy="Choose a format by the name of the file.",
        )
    return write(entries)


def _to_csv(entries: Sequence[Entry]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(asdict, entries))
    return text.getvalue().encode()


def _to_json_lines(entries: Sequence[Entry]) -> bytes:
    lines = (json.dumps(asdict(each), ensure_ascii=False) + "\n" for each in entries)
    return "".join(lines).encode()


def _to_parquet(entries: Sequence[Entry]) -> bytes:
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra of some 120 MB
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as error:
        raise UsageError(
            "Parquet needs pyarrow, which is not installed",
            remedy="Run `pip install 'edgepack[parquet]'`, or export .csv or .jsonl.",
        ) from error
    # Types are given: a column of nothing but None has none of its own.
    texts = {
        *("time", "device", "board", "model", "model_sha256", "recipe", "bundle_sha256", "engine"),
        *("runner", "conditions", "verdict", "tool_version"),
    }
    schema = pa.schema([(name, pa.string() if name in texts else pa.int64()) for name in COLUMNS])
    table = pa.Table.from_pylist([asdict(each) for each in entries], schema=schema)
    file = pa.BufferOutputStream()
    parquet.write_table(table, file)
    return bytes(file.getvalue().to_pybytes())
