"""A command is confined to its folder, bounded, and nothing of it is left running or lying."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgepack.sandbox import Bounds, Ended, Limit, default_memory_bytes, run_bounded
from edgepack.sandbox.launch import landlock_abi

needs_landlock = pytest.mark.skipif(landlock_abi() < 1, reason="the kernel has no Landlock")
_IMPORTS = "import os, pathlib, signal, socket, subprocess, sys, time\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "working"
    path.mkdir()
    return path


def run(
    body: str,
    folder: Path,
    *,
    seconds: float = 30,
    memory_bytes: int = 1 << 30,
    file_bytes: int = 1 << 30,
    own_code: bool = False,
) -> Ended:
    """Run Python code in the sandbox; what it prints goes to the file `log` beside the folder."""
    with (folder.parent / "log").open("w+b") as log:
        return run_bounded(
            [sys.executable, "-c", _IMPORTS + body],
            folder=folder,
            log=log,
            bounds=Bounds(
                timeout_seconds=seconds, memory_bytes=memory_bytes, file_bytes=file_bytes
            ),
            own_code=own_code,
        )


def log_of(folder: Path) -> str:
    return (folder.parent / "log").read_text()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@needs_landlock
class TestConfinement:
    ATTEMPTS = (
        "open({outside!r} + '/new', 'w')",
        "open({outside!r} + '/kept', 'a').write('x')",
        "os.truncate({outside!r} + '/kept', 0)",
        "os.remove({outside!r} + '/kept')",
        "os.rename({outside!r} + '/kept', {outside!r} + '/moved')",
        "os.rename({outside!r} + '/kept', 'taken')",
        "os.link({outside!r} + '/kept', 'linked')",
        "os.mkdir({outside!r} + '/made')",
        "os.symlink('x', {outside!r} + '/link')",
        "os.mkfifo({outside!r} + '/pipe')",
        "os.symlink({outside!r}, 'way'); open('way/new', 'w')",
        "os.symlink({outside!r} + '/kept', 'way'); open('way', 'w')",
        "open('../' + os.path.basename({outside!r}) + '/new', 'w')",
        "import shutil; subprocess.run(['/bin/cp', sys.executable, {outside!r}], check=True)",
        "os.fork() or open({outside!r} + '/new', 'w'); sys.exit(os.wait()[1] and 1)",
        "open(os.path.expanduser('~') + '/.edgepack-probe', 'w')",
        "open('/tmp/edgepack-probe', 'w')",
        "open('/dev/shm/edgepack-probe', 'w')",
        "socket.socket(socket.AF_UNIX).bind({outside!r} + '/socket')",
    )

    @pytest.mark.parametrize("attempt", ATTEMPTS)
    def test_nothing_outside_the_folder_changes(
        self, folder: Path, tmp_path: Path, attempt: str
    ) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "kept").write_text("mine")
        ended = run(attempt.format(outside=str(outside)), folder)
        assert ended.exit_code == 1
        assert any(
            word in log_of(folder) for word in ("Permission denied", "Invalid cross-device link")
        )
        assert [path.name for path in outside.iterdir()] == ["kept"]
        assert (outside / "kept").read_text() == "mine"

    def test_the_folder_is_free(self, folder: Path) -> None:
        body = (
            "os.makedirs('a/b'); open('a/b/f', 'w').write('x'); os.rename('a/b/f', 'g')\n"
            "os.truncate('g', 0); os.rmdir('a/b'); os.link('g', 'h'); os.remove('g')\n"
            "open(os.devnull, 'w').write('x'); import tempfile; tempfile.mkstemp(dir='.')"
        )
        assert run(body, folder).exit_code == 0
        assert (folder / "h").is_file()

    def test_what_lies_outside_can_be_read(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "model").write_text("weights")
        assert run("os.write(3, open('../model', 'rb').read())", folder).answer == b"weights"

    def test_processes_outside_get_no_signals(self, folder: Path) -> None:
        if landlock_abi() < 6:
            pytest.skip("the kernel's Landlock knows no signals")
        ended = run(f"os.kill({os.getpid()}, signal.SIGTERM)", folder)
        assert (ended.exit_code, "Operation not permitted" in log_of(folder)) == (1, True)

    def test_no_connection_is_made_unless_allowed(self, folder: Path) -> None:
        if landlock_abi() < 4:
            pytest.skip("the kernel's Landlock knows no network")
        with socket.create_server(("127.0.0.1", 0)) as server:
            body = f"socket.create_connection(('127.0.0.1', {server.getsockname()[1]}))"
            assert run(body, folder).exit_code == 1
            assert "Permission denied" in log_of(folder)
            assert run(body, folder, own_code=True).exit_code == 0

    def test_the_users_own_code_may_use_locks_of_processes(self, folder: Path) -> None:
        body = "import multiprocessing; multiprocessing.Lock()"
        assert run(body, folder, own_code=True).exit_code == 0
        assert run(body, folder).exit_code == 1


class TestBounds:
    def test_memory_of_all_processes_counts_together(self, folder: Path) -> None:
        body = (
            "for _ in range(4):\n"
            "    if not os.fork(): held = bytearray(80 << 20); signal.pause()\n"
            "signal.pause()"
        )
        ended = run(body, folder, memory_bytes=200 << 20)
        assert ended.limit is Limit.MEMORY
        assert 200 << 20 < ended.usage.peak_bytes < 400 << 20

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells shared pages")
    def test_pages_that_processes_share_count_once(self, folder: Path) -> None:
        body = (
            "import ctypes\n"
            "held = bytearray(150 << 20); pids = []\n"
            "for _ in range(4):\n"
            "    pid = os.fork()\n"
            "    if not pid: time.sleep(0.5); os._exit(0)\n"
            "    pids.append(pid)\n"
            "for pid in pids: os.waitpid(pid, 0)\n"
            "os.write(3, b'done')"
        )
        ended = run(body, folder, memory_bytes=300 << 20)
        assert (ended.limit, ended.answer) == (None, b"done")

    @pytest.mark.skipif(sys.platform != "linux", reason="macOS knows no RLIMIT_DATA of that kind")
    def test_a_huge_allocation_fails_at_once(self, folder: Path) -> None:
        ended = run("bytearray(1 << 38)", folder)
        assert (ended.limit, ended.exit_code) == (None, 1)
        assert log_of(folder).endswith("MemoryError\n")

    def test_reserved_address_space_is_free(self, folder: Path) -> None:
        body = "import mmap; mmap.mmap(-1, 1 << 40, prot=0, flags=mmap.MAP_PRIVATE)"
        assert run(body, folder).exit_code == 0

    def test_files_are_bounded(self, folder: Path) -> None:
        ended = run("open('f', 'wb').write(bytes(2 << 20))", folder, file_bytes=1 << 20)
        assert ended.exit_code == 1
        assert "File too large" in log_of(folder)
        assert (folder / "f").stat().st_size == 1 << 20

    def test_a_short_peak_is_seen(self, folder: Path) -> None:
        ended = run("bytearray(150 << 20)", folder)
        assert ended.usage.peak_bytes > 150 << 20

    def test_a_peak_of_our_own_is_not_the_commands(self, folder: Path) -> None:
        held = bytearray(300 << 20)
        assert run("", folder).usage.peak_bytes < 100 << 20
        del held

    def test_time_is_bounded(self, folder: Path) -> None:
        start = time.monotonic()
        assert run("signal.pause()", folder, seconds=1).limit is Limit.TIME
        assert time.monotonic() - start < 10

    def test_the_default_leaves_memory_for_others(self) -> None:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        assert 0 < default_memory_bytes() <= total * 0.75


class TestLeftovers:
    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux has subreapers")
    @pytest.mark.parametrize("after", ["", "; os.abort()", "; signal.pause()"])
    def test_a_process_that_leaves_its_session_dies_too(self, folder: Path, after: str) -> None:
        body = (
            "if not os.fork():\n"
            "    os.setsid()\n"
            "    pid = os.fork()\n"
            "    if not pid: signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.pause()\n"
            "    open('part', 'w').write(str(pid)); os.rename('part', 'pid'); os._exit(0)\n"
            "while not os.path.exists('pid'): pass\n"
            f"pass{after}"
        )
        run(body, folder, seconds=3)
        assert not is_alive(int((folder / "pid").read_text()))

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of a parent's death")
    def test_all_of_it_dies_with_edgepack(self, folder: Path) -> None:
        inner = (
            "if not os.fork(): os.setsid()\n"
            "open(f'pid-{os.getpid()}', 'w'); signal.pause()"
        )  # fmt: skip
        program = (
            "from pathlib import Path\n"
            "from tests.test_sandbox_running import run\n"
            f"run({inner!r}, Path({str(folder)!r}))"
        )
        ours = subprocess.Popen([sys.executable, "-c", program], cwd=Path(__file__).parents[1])
        deadline = time.monotonic() + 20
        while len(pids := [int(p.name[4:]) for p in folder.glob("pid-*")]) < 2:
            assert time.monotonic() < deadline
            os.sched_yield()
        ours.send_signal(signal.SIGKILL)
        ours.wait()
        while any(is_alive(pid) for pid in pids):
            assert time.monotonic() < deadline
            os.sched_yield()

    def test_a_command_cannot_end_its_supervisor(self, folder: Path) -> None:
        if landlock_abi() < 6:
            pytest.skip("the kernel's Landlock knows no signals")
        ended = run("os.kill(os.getppid(), signal.SIGKILL)", folder)
        assert (ended.exit_code, ended.limit) == (1, None)

    def test_links_pipes_and_sockets_are_taken_out(self, folder: Path) -> None:
        body = (
            "os.mkdir('d'); os.symlink('/', 'd/link'); os.symlink('/etc/hostname', 'file')\n"
            "os.mkfifo('pipe'); socket.socket(socket.AF_UNIX).bind('socket'); open('kept', 'w')"
        )
        assert run(body, folder).exit_code == 0
        assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*")) == ["d", "kept"]

    def test_what_was_made_unreadable_can_be_read_and_removed(self, folder: Path) -> None:
        body = (
            "os.makedirs('d/e'); open('d/e/f', 'w').write('x')\n"
            "os.chmod('d/e/f', 0); os.chmod('d/e', 0); os.chmod('d', 0); os.chmod('.', 0o500)"
        )
        assert run(body, folder).exit_code == 0
        assert stat.S_IMODE((folder / "d" / "e").stat().st_mode) == 0o700
        assert (folder / "d" / "e" / "f").read_text() == "x"
        shutil.rmtree(folder)
