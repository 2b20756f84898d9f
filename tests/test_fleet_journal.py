"""The journal: true to the last line, whatever cuts it off."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.errors import DroppedError, JournalError
from edgepack.fleet.journal import (
    Entry,
    State,
    encode_entry,
    make_entry,
    open_journal,
    read_journal,
)

_SUBJECT = "push 5d5d"
_HEADER = b'{"journal": 1, "subject": "push 5d5d"}\n'
_BUSY = DroppedError("pi@a took the connection", remedy="Try again.")


def _entry(device: str, state: State = State.DONE) -> Entry:
    error = _BUSY if state is State.FAILED else None
    return make_entry(device, state, num_tries=2, error=error)


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "journal.jsonl"
    entries = [_entry("pi@a", State.FAILED), _entry("pi@b"), _entry("pi@a")]
    with open_journal(path, subject=_SUBJECT, resume=False) as journal:
        assert journal.past.done == frozenset()
        for each in entries:
            journal.append(each)
    assert path.read_bytes() == _HEADER + b"".join(map(encode_entry, entries))
    with open_journal(path, subject=_SUBJECT, resume=True) as journal:
        assert journal.past.entries == {"pi@a": entries[2], "pi@b": entries[1]}
        journal.append(_entry("pi@b", State.FAILED))
    with open_journal(path, subject=_SUBJECT, resume=True) as journal:
        assert journal.past.done == {"pi@a"}
        assert journal.past.entries["pi@b"].error == {
            "kind": "dropped",
            "message": "pi@a took the connection",
            "remedy": "Try again.",
        }


_ENTRIES = st.lists(
    st.builds(
        Entry,
        device=st.text(min_size=1).filter(str.strip),
        state=st.sampled_from(State),
        num_tries=st.integers(0, 9),
        time=st.just("2026-11-23T17:00:00+00:00"),
        error=st.none()
        | st.fixed_dictionaries({key: st.text() for key in ("kind", "message", "remedy")}),
        result=st.none() | st.lists(st.dictionaries(st.text(), st.integers() | st.text())),
    ),
    max_size=4,
)


@given(_ENTRIES, st.data())
def test_cut_anywhere_it_holds_its_whole_lines(entries: list[Entry], data: st.DataObject) -> None:
    lines = [_HEADER, *map(encode_entry, entries)]
    whole = b"".join(lines)
    cut = data.draw(st.integers(len(_HEADER), len(whole)))
    past = read_journal(whole[:cut], subject=_SUBJECT, name="j")
    num_whole = whole[:cut].count(b"\n") - 1
    assert past.entries == {each.device: each for each in entries[:num_whole]}
    assert past.num_bytes == sum(map(len, lines[: num_whole + 1]))


@given(st.binary())
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for each in (data, _HEADER + data):
        with contextlib.suppress(JournalError):
            assert read_journal(each, subject=_SUBJECT, name="j").num_bytes <= len(each)


def test_a_line_that_was_cut_off_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(_HEADER + encode_entry(_entry("pi@a")) + b'{"device": "pi@b", "sta')
    with open_journal(path, subject=_SUBJECT, resume=True) as journal:
        assert journal.past.done == {"pi@a"}
        journal.append(_entry("pi@c"))
    assert [line[:18] for line in path.read_bytes().splitlines()] == [
        b'{"journal": 1, "su',
        b'{"device": "pi@a",',
        b'{"device": "pi@c",',
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a journal, but it is empty"),
        (b"notes\n", "line 1 is damaged"),
        (_HEADER + b"notes\n" + encode_entry(_entry("pi@a")), "line 2 is damaged"),
        (b'{"journal": 2, "subject": "x"}\n', "line 1: journal: expected 1, not 2"),
        (
            b'{"journal": 1, "subject": "push aaaa"}\n',
            "expected the journal of 'push 5d5d', but it is of 'push aaaa'",
        ),
    ],
)
def test_a_journal_of_something_else_is_no_start(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(content)
    with pytest.raises(JournalError) as caught:
        open_journal(path, subject=_SUBJECT, resume=True)
    assert caught.value.message == f"{path}: {message}"
    assert path.read_bytes() == content


def test_no_other_file_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    with pytest.raises(JournalError) as caught:
        open_journal(path, subject=_SUBJECT, resume=False)
    assert caught.value.message == (
        f"{path}: expected a free name or an earlier journal, but another file is there"
    )
    assert path.read_text() == "mine"
    with pytest.raises(JournalError, match="expected the journal of an earlier run"):
        open_journal(tmp_path / "none", subject=_SUBJECT, resume=True)


@pytest.mark.parametrize("resume", [False, True])
def test_two_runs_do_not_write_one_journal(tmp_path: Path, resume: bool) -> None:  # noqa: FBT001 - of the parametrization
    path = tmp_path / "journal.jsonl"
    with open_journal(path, subject=_SUBJECT, resume=False) as journal:
        with pytest.raises(JournalError) as caught:
            open_journal(path, subject=_SUBJECT, resume=resume)
        assert caught.value.message == f"{path}: another run is writing this journal"
        journal.append(_entry("pi@a"))
    with open_journal(path, subject=_SUBJECT, resume=True) as journal:
        assert journal.past.done == {"pi@a"}


def test_of_two_runs_that_begin_together_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal.jsonl"
    lock, link = fcntl.flock, os.link
    others = ExitStack()

    def begin_first(act: Callable[..., None], *given: object) -> None:
        """Let another run begin right before this one does what it is about to."""
        monkeypatch.undo()
        other = others.enter_context(open_journal(path, subject=_SUBJECT, resume=False))
        other.append(_entry("pi@a"))
        act(*given)

    monkeypatch.setattr(os, "link", partial(begin_first, link))
    with pytest.raises(JournalError, match="another run is writing this journal"):
        open_journal(path, subject=_SUBJECT, resume=False)
    others.close()
    for resume in (True, False):
        calls = [
            partial(begin_first, lock),
            *([] if resume else [lock]),
        ]  # its own file comes first

        def call(*given: Any, calls: list[Any] = calls) -> None:  # noqa: ANN401 - flock's own
            calls.pop()(*given)

        monkeypatch.setattr(fcntl, "flock", call)
        with pytest.raises(JournalError, match="another run is writing this journal"):
            open_journal(path, subject=_SUBJECT, resume=resume)
        others.close()
        with open_journal(path, subject=_SUBJECT, resume=True) as journal:
            assert journal.past.done == {"pi@a"}
    assert [each.name for each in tmp_path.iterdir()] == ["journal.jsonl"]


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal.jsonl"
    with open_journal(path, subject=_SUBJECT, resume=False) as journal:
        journal.append(_entry("pi@a"))
        whole = path.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", _full)
            with pytest.raises(JournalError) as caught:
                journal.append(_entry("pi@b"))
        assert caught.value.message == (
            f"{path}: the journal cannot be written: No space left on device"
        )
        assert path.read_bytes() == whole
        journal.append(_entry("pi@c"))  # there is room again
    with open_journal(path, subject=_SUBJECT, resume=True) as journal:
        assert journal.past.done == {"pi@a", "pi@c"}


def test_a_new_journal_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(_HEADER)
    monkeypatch.setattr(os, "fsync", _full)
    with pytest.raises(JournalError, match="No space left on device"):
        open_journal(path, subject="push other", resume=False)
    assert path.read_bytes() == _HEADER
    assert [each.name for each in tmp_path.iterdir()] == ["journal.jsonl"]


def _full(_handle: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
