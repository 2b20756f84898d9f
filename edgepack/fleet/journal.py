"""The journal of a fleet: a line of JSON for each device that is finished, on the disk at once.

What it says of a device happened; of a device it does not name nothing is known. A line that was
cut off by a power failure is the last one, and counts as not written.
"""

import contextlib
import datetime as dt
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

from edgepack._fields import Fields, join_faults
from edgepack.errors import EdgePackError, JournalError

SCHEMA: Final = 1
# Half a megabyte is what a benchmark of a device takes, raw samples and all.
MAXIMUM_BYTES: Final = 2**30
_GIVE_ANOTHER: Final = "Begin a new one: leave --resume out, or name another file with --journal."


class State(StrEnum):
    """How it went with a device."""

    DONE = "done"
    FAILED = "failed"
    NOT_STARTED = "not_started"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A finished device.

    Attributes:
        device: its address.
        state: done or failed.
        num_tries: connections that were tried.
        time: when it was finished, UTC, ISO 8601.
        error: kind, message and remedy where it failed.
        result: what came of it as JSON, where the verb cannot ask the device for it again.
    """

    device: str
    state: State
    num_tries: int
    time: str
    error: Mapping[str, str] | None = None
    result: object = None


def make_entry(
    device: str,
    state: State,
    *,
    num_tries: int,
    error: EdgePackError | None = None,
    result: object = None,
) -> Entry:
    """Make the entry of a device that is finished now."""
    fault = None
    if error is not None:
        fault = {"kind": error.kind, "message": error.message, "remedy": error.remedy}
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    return Entry(
        device=device,
        state=state,
        num_tries=num_tries,
        time=now.isoformat(),
        error=fault,
        result=result,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Past:
    """What a journal says.

    Attributes:
        entries: the last one of each device, by its address.
        num_bytes: length of its whole lines; what follows was cut off.
    """

    entries: Mapping[str, Entry]
    num_bytes: int

    @property
    def done(self) -> frozenset[str]:
        """The devices that were done."""
        return frozenset(key for key, each in self.entries.items() if each.state is State.DONE)


class Journal:
    """An open journal, which no other run writes to meanwhile; made by `open_journal`."""

    def __init__(self, path: Path, file: BinaryIO, past: Past) -> None:
        self._path = path
        self._file = file
        self.past = past

    def append(self, entry: Entry) -> None:
        """Write an entry; it is on the disk when this returns.

        Raises:
            JournalError: it is not.
        """
        try:
            _write(self._file, _encode(_entry_to_json(entry)))
        except OSError as error:
            raise _unwritable(self._path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def open_journal(path: Path, *, subject: str, resume: bool) -> Journal:
    """Open a journal, a new one or one to go on from.

    A new one takes the place of an earlier one of the same name only when it is on the disk.

    Args:
        path: where it is.
        subject: what is being done, such as a verb and a digest; to go on, it must be the same.
        resume: whether to go on from it.

    Raises:
        JournalError: none there to go on from, of something else, damaged, in use by another
            run, or not to be written.
    """
    try:
        return _open(path, subject, resume=resume)
    except OSError as error:
        raise _unwritable(path, error) from error


def _open(path: Path, subject: str, *, resume: bool) -> Journal:
    if not resume:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _make(path, {"journal": SCHEMA, "subject": subject})
        return Journal(path, file, Past(entries={}, num_bytes=0))
    try:
        file = path.open("r+b", buffering=0)
    except FileNotFoundError:
        raise JournalError(
            f"{path}: expected the journal of an earlier run, but there is none",
            remedy="Leave --resume out to begin one.",
        ) from None
    try:
        _lock(path, file)
        _check_same(path, file)
        past = read_journal(file.read(MAXIMUM_BYTES + 1), subject=subject, name=str(path))
        file.truncate(past.num_bytes)
        file.seek(past.num_bytes)
    except BaseException:
        file.close()
        raise
    return Journal(path, file, past)


def _make(path: Path, header: Mapping[str, object]) -> BinaryIO:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    file = os.fdopen(handle, "r+b", buffering=0)
    try:
        _lock(path, file)
        _write(file, _encode(header))
        _put_in_place(Path(name), path)
        _sync_folder(path.parent)
    except BaseException:
        file.close()
        Path(name).unlink(missing_ok=True)
        raise
    return file


def _put_in_place(made: Path, path: Path) -> None:
    """Give a new journal its name, unless another run has one of that name."""
    try:
        earlier = path.open("rb")
    except FileNotFoundError:
        try:
            os.link(made, path)  # fails where another run was quicker
        except FileExistsError:
            raise _in_use(path) from None
        except OSError:  # FAT knows no second name
            made.replace(path)
        else:
            made.unlink()
        return
    with earlier:
        _lock(path, earlier)  # a run that is under way keeps its journal
        _check_same(path, earlier)
        _check_replaceable(path, earlier)
        made.replace(path)


def _check_same(path: Path, file: BinaryIO) -> None:
    """Refuse a file whose name another run gave to its own before this one was locked."""
    try:
        is_same = os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        is_same = False
    if not is_same:
        raise _in_use(path)


def _check_replaceable(path: Path, file: BinaryIO) -> None:
    head = file.read(64)
    if head and not head.startswith(b'{"journal": '):
        raise JournalError(
            f"{path}: expected a free name or an earlier journal, but another file is there",
            remedy="Give another name with --journal, or move that file away.",
        )


def _lock(path: Path, file: BinaryIO) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _in_use(path) from None


def _in_use(path: Path) -> JournalError:
    return JournalError(
        f"{path}: another run is writing this journal",
        remedy="Wait until it is done, or name another file with --journal.",
    )


def _write(file: BinaryIO, line: bytes) -> None:
    start = file.tell()
    try:
        while line:  # a file without a buffer may take a part alone
            line = line[file.write(line) :]
        os.fsync(file.fileno())
    except OSError:
        with contextlib.suppress(OSError):  # of a full disk half a line may be left
            file.truncate(start)
            file.seek(start)
        raise


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _encode(table: Mapping[str, object]) -> bytes:
    return f"{json.dumps(table, ensure_ascii=False, allow_nan=False)}\n".encode()


def _entry_to_json(entry: Entry) -> dict[str, object]:
    table: dict[str, object] = {
        "device": entry.device,
        "state": entry.state.value,
        "tries": entry.num_tries,
        "time": entry.time,
    }
    if entry.error is not None:
        table["error"] = dict(entry.error)
    if entry.result is not None:
        table["result"] = entry.result
    return table


def encode_entry(entry: Entry) -> bytes:
    """Give an entry as its line."""
    return _encode(_entry_to_json(entry))


def read_journal(data: bytes, *, subject: str, name: str) -> Past:
    """Read the bytes of a journal.

    Args:
        data: all of them.
        subject: what it must be of.
        name: what it is called in messages.

    Raises:
        JournalError: of something else, too long, or damaged anywhere but at its end.
    """
    if len(data) > MAXIMUM_BYTES:
        raise JournalError(
            f"{name}: expected a journal of at most {MAXIMUM_BYTES} bytes", remedy=_GIVE_ANOTHER
        )
    whole = data[: data.rfind(b"\n") + 1]
    lines = list(_tables(whole, name))
    if not lines:
        raise JournalError(f"{name}: expected a journal, but it is empty", remedy=_GIVE_ANOTHER)
    header, *rest = lines
    fields = Fields(header)
    schema, found = fields.integer("journal"), fields.text("subject")
    if not fields.faults and schema != SCHEMA:
        fields.fault("journal", f"expected {SCHEMA}, not {schema}")
    if fields.faults:
        raise JournalError(join_faults(f"{name}: line 1", fields.faults), remedy=_GIVE_ANOTHER)
    if found != subject:
        raise JournalError(
            f"{name}: expected the journal of {subject!r}, but it is of {found!r}",
            remedy=_GIVE_ANOTHER,
        )
    entries = (_read_entry(table, f"{name}: line {line}") for line, table in enumerate(rest, 2))
    return Past(entries={each.device: each for each in entries}, num_bytes=len(whole))


def _tables(data: bytes, name: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(data.splitlines(), 1):
        try:
            table = json.loads(line)
        except (ValueError, RecursionError):
            table = None
        if not isinstance(table, dict):
            raise JournalError(f"{name}: line {number} is damaged", remedy=_GIVE_ANOTHER)
        yield table


def _read_entry(table: Mapping[str, object], where: str) -> Entry:
    fields = Fields(table)
    error = fields.table("error") if fields.has("error") else None
    entry = Entry(
        device=fields.text("device"),
        state=fields.choice("state", State),
        num_tries=fields.integer("tries", minimum=0),
        time=fields.text("time"),
        error=None
        if error is None
        else {key: error.text(key, empty=True) for key in ("kind", "message", "remedy")},
        result=fields.raw("result"),
    )
    fields.close()
    if fields.faults:
        raise JournalError(join_faults(where, fields.faults[:5]), remedy=_GIVE_ANOTHER)
    return entry


def _unwritable(path: Path, error: OSError) -> JournalError:
    return JournalError(
        f"{path}: the journal cannot be written: {error.strerror or error}",
        remedy="Give another place with --journal, on a disk with room.",
    )
