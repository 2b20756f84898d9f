"""Temporary folders, and what interrupts leave of them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgepack.scratch import open_scratch, open_scratch_file

# The first use of `tempfile` tries the folder with a file: Ctrl-C comes right after that file
# was made, from within the call that makes it.
_INTERRUPTED = """
import os, signal, threading
# A thread that signals may be given to, as numpy has some.
threading.Thread(target=threading.Event().wait, daemon=True).start()
real, (told, tells) = os.open, os.pipe()
os.set_blocking(tells, False)
signal.set_wakeup_fd(tells)
def opened(path, *rest):
    made = real(path, *rest)
    os.kill(os.getpid(), {number})
    os.read(told, 1)  # until it has arrived, in whichever thread
    return made
os.open = opened
signal.signal({number}, signal.default_int_handler)
from edgepack.scratch import open_scratch, open_scratch_file
with {call}:
    print("inside", flush=True)
"""


@pytest.mark.parametrize("call", ['open_scratch("test")', "open_scratch_file()"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_on_the_first_use_leaves_nothing(
    tmp_path: Path, number: signal.Signals, call: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _INTERRUPTED.format(number=int(number), call=call)],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "KeyboardInterrupt" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_named_after_its_purpose_and_goes_with_what_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = signal.getsignal(signal.SIGINT)
    with open_scratch("test") as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "file").write_bytes(b"data")
        assert folder.parent == tmp_path
        assert folder.name.startswith("edgepack-test-")
        assert signal.pthread_sigmask(signal.SIG_BLOCK, set()) == set()
        assert signal.getsignal(signal.SIGINT) is before
    assert list(tmp_path.iterdir()) == []


def test_the_file_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with open_scratch_file() as file:
        file.write(b"data")
        assert list(tmp_path.iterdir()) == []


def test_the_signals_are_as_before_after_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(FileNotFoundError), open_scratch("test"):
        raise AssertionError("there is no folder to be in")
    assert signal.pthread_sigmask(signal.SIG_BLOCK, set()) == set()
    assert signal.getsignal(signal.SIGINT) is before
