"""Ctrl-C and SIGTERM as real signals to real processes: exit 130, and nothing left anywhere."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgepack.bundle.archive import open_bundle
from tests.fixtures.commands import DIGITS, FLOAT_MODEL, REPOSITORY, listing
from tests.fixtures.sshd import SshServer

_SIGNALS = [signal.SIGINT, signal.SIGTERM]


@contextmanager
def running(
    *arguments: str | Path, folder: Path, cache_home: Path
) -> Iterator[subprocess.Popen[str]]:
    """Run the command line in an empty folder, as a process group of its own."""
    temporary = folder.parent / "tmp"
    temporary.mkdir()
    folder.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "edgepack", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "XDG_CACHE_HOME": str(cache_home), "TMPDIR": str(temporary)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def interrupt_at(process: subprocess.Popen[str], words: str, number: signal.Signals) -> str:
    """Signal the process when it says these words; give what it said until its end."""
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if words in line:
            process.send_signal(number)
            break
    _, rest = process.communicate(timeout=60)
    return said + rest


def assert_interrupted(process: subprocess.Popen[str], said: str) -> None:
    assert process.returncode == 130, said
    assert said.endswith("edgepack: interrupted\n")
    assert "Traceback" not in said


def _processes(word: str) -> list[str]:
    """Command lines on this machine, which is the device too, that hold a word."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has just ended
            continue
        if word in line:
            found.append(line)
    return found


def await_none(find: Callable[[], list[str]]) -> None:
    """Wait until nothing is found: a device ends what its connection ran a moment later."""
    deadline = time.monotonic() + 15
    while find() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert find() == []


@pytest.mark.parametrize("number", _SIGNALS)
def test_while_variants_are_timed(number: signal.Signals, cache_home: Path, tmp_path: Path) -> None:
    arguments = ("pack", FLOAT_MODEL, "--target", "laptop-x86-64", "--data", DIGITS)
    # A share of its own makes a variant that no other test has timed.
    share = "0.11" if number is signal.SIGINT else "0.12"
    with running(
        *arguments,
        *("--recipe", "float32", "--prune", share),
        folder=tmp_path / "here",
        cache_home=cache_home,
    ) as process:
        assert_interrupted(process, interrupt_at(process, "timing ", number))
    assert listing(tmp_path / "here") == []
    assert listing(tmp_path / "tmp") == []


def test_a_search_that_has_found_something_keeps_its_best(cache_home: Path, tmp_path: Path) -> None:
    arguments = ("pack", FLOAT_MODEL, "--target", "laptop-x86-64", "--data", DIGITS)
    with running(
        *arguments, "--prune", "0.13", folder=tmp_path / "here", cache_home=cache_home
    ) as process:
        said = interrupt_at(process, "best so far: float32", signal.SIGINT)
        assert process.returncode == 130, said
        assert "the search ends here, and the best so far is kept (float32" in said
        assert (
            "warning: the search was interrupted: this is the best of 1 candidates; the same "
            "command again goes on where it was\n"
        ) in said
    (written,) = listing(tmp_path / "here")
    assert open_bundle(tmp_path / "here" / written).manifest.recipe.name == "float32"
    assert listing(tmp_path / "tmp") == []


@pytest.mark.toolchain
def test_while_a_model_is_converted(
    cache_home: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("tensorflow_toolchain")
    model = tmp_path / "other.keras"
    model.write_bytes((REPOSITORY / "examples" / "digits" / "digits.keras").read_bytes())
    with running(
        *("pack", model, "--target", "laptop-x86-64", "--allow-parity", "59"),
        # Another shape is another conversion, which is not in the cache yet.
        *("--input-shape", "pixels=1,8,8,1"),
        folder=tmp_path / "here",
        cache_home=cache_home,
    ) as process:
        assert_interrupted(process, interrupt_at(process, "converting ", signal.SIGINT))
    assert listing(tmp_path / "here") == []
    assert listing(tmp_path / "tmp") == []
    # Other tests convert at the same time, each with its own cache.
    workers = _processes("tensorflow_worker.py")
    assert [line for line in workers if str(cache_home) in line] == []


@pytest.mark.sshd
@pytest.mark.parametrize("number", _SIGNALS)
def test_during_a_push(
    number: signal.Signals, cache_home: Path, tmp_path: Path, bundle: Path, ssh_server: SshServer
) -> None:
    root = tmp_path / "root"
    with running(
        *("push", bundle, ssh_server.address, "--ssh-config", ssh_server.ssh_config),
        *("--root", root),
        folder=tmp_path / "here",
        cache_home=cache_home,
    ) as process:
        assert_interrupted(process, interrupt_at(process, "installing ", number))
    assert listing(tmp_path / "here") == []
    assert not list(root.rglob("current"))
    await_none(lambda: _processes(str(root)))
    assert [each for each in root.glob("runtimes/*/*") if each.is_file()] == []


@pytest.mark.sshd
@pytest.mark.parametrize("number", _SIGNALS)
def test_during_a_benchmark(
    number: signal.Signals, cache_home: Path, tmp_path: Path, device_root: Path,
    ssh_server: SshServer,
) -> None:  # fmt: skip
    with running(
        *("bench", FLOAT_MODEL, ssh_server.address, "--ssh-config", ssh_server.ssh_config),
        *("--root", device_root, "-o", "r.json", "--report", "r.html"),
        folder=tmp_path / "here",
        cache_home=cache_home,
    ) as process:
        assert_interrupted(process, interrupt_at(process, "launch 2 of", number))
    assert listing(tmp_path / "here") == []
    assert listing(tmp_path / "tmp") == []
    await_none(lambda: _processes(str(device_root)))
