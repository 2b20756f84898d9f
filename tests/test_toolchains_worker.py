"""Workers answer, fail and die in every way; the caller sees a result or one clear error."""

import _thread
import os
import re
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from edgepack.errors import ConversionError, EdgePackError, ModelError, ToolchainError
from edgepack.sandbox import Bounds, Usage
from edgepack.toolchains import Origin, Toolchain, run_worker, worker
from tests.fixtures.toolchains import WriteWorker


class Room:
    """Runs workers in a folder of its own."""

    def __init__(self, toolchain: Toolchain, folder: Path, write: WriteWorker) -> None:
        self.toolchain = toolchain
        self.folder = folder
        self.write = write
        self.usages = list[Usage]()

    def run(
        self,
        body: str,
        *,
        timeout_seconds: float = 30,
        memory_bytes: int | None = None,
        **request: object,
    ) -> dict[str, object]:
        return run_worker(
            self.toolchain,
            self.write(body),
            request,
            folder=self.folder,
            timeout_seconds=timeout_seconds,
            memory_bytes=memory_bytes,
            on_usage=self.usages.append,
        )


@pytest.fixture
def room(own_toolchain: Toolchain, tmp_path: Path, write_worker: WriteWorker) -> Room:
    folder = tmp_path / "room"
    folder.mkdir()
    return Room(own_toolchain, folder, write_worker)


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that waits to be reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until_dead(pid: int) -> None:
    deadline = time.monotonic() + 10
    while is_alive(pid):
        assert time.monotonic() < deadline, f"process {pid} outlived its worker"
        os.sched_yield()


class TestAnswers:
    def test_gives_the_ok_object(self, room: Room) -> None:
        assert room.run("answer({'ok': {'sum': sum(request['n'])}})", n=[1, 2]) == {"sum": 3}

    def test_large_requests_and_answers_pass(self, room: Room) -> None:
        text = "x" * 3_000_000
        assert room.run("answer({'ok': {'t': request['t']}})", t=text) == {"t": text}

    def test_prints_go_to_the_log_and_not_to_the_answer(self, room: Room) -> None:
        body = "print('out'); os.system('echo child >&2'); answer({'ok': {}})"
        assert room.run(body) == {}
        assert set((room.folder / "worker.log").read_text().split()) == {"out", "child"}

    def test_a_crash_after_the_whole_answer_is_no_failure(self, room: Room) -> None:
        assert room.run("answer({'ok': {'done': True}}); os.abort()") == {"done": True}

    def test_the_script_folder_does_not_shadow_modules(self, room: Room, tmp_path: Path) -> None:
        (tmp_path / "numpy.py").write_text("raise SystemExit('shadowed')")
        body = "import numpy; answer({'ok': {'file': numpy.__file__}})"
        assert str(room.run(body)["file"]).endswith("__init__.py")


class TestErrors:
    def test_the_worker_names_the_class(self, room: Room) -> None:
        body = (
            "answer({'error': {'kind': 'conversion', 'message': 'no op \\x1b[31mFOO\\x07', "
            "'remedy': 'Drop it.'}})"
        )
        with pytest.raises(ConversionError) as caught:
            room.run(body)
        assert (caught.value.message, caught.value.remedy) == ("no op FOO", "Drop it.")

    def test_each_kind_finds_its_class(self, room: Room) -> None:
        with pytest.raises(ModelError):
            room.run("answer({'error': {'kind': 'model', 'message': 'x', 'remedy': ''}})")

    def test_an_unknown_kind_is_the_toolchains(self, room: Room) -> None:
        with pytest.raises(ToolchainError, match=r"^x"):
            room.run("answer({'error': {'kind': 'SystemExit', 'message': 'x'}})")

    @pytest.mark.parametrize(
        "text",
        ["garbage", "[1]", '{"ok": 1}', '{"error": {"kind": 1}}', "{}", "[" * 200_000, "\xff"],
    )
    def test_another_answer_is_refused(self, room: Room, text: str) -> None:
        with pytest.raises(ToolchainError) as caught:
            room.run("os.write(3, request['t'].encode('latin-1'))", t=text)
        assert caught.value.message.startswith(
            "expected a JSON object with `ok` or `error` from the worker probe of the own "
            "toolchain, which ended with exit code 0, but "
        )
        assert len(caught.value.message) < 500

    def test_an_oversized_answer_is_refused_and_the_worker_ended(self, room: Room) -> None:
        body = "while True: os.write(3, bytes(1 << 20))"
        with pytest.raises(ToolchainError) as caught:
            room.run(body)
        assert caught.value.message == (
            "the worker probe of the own toolchain answered with more than 16 MiB"
        )

    def test_an_exception_shows_what_was_raised_and_no_stack(self, room: Room) -> None:
        with pytest.raises(ToolchainError) as caught:
            room.run("print('at op 7')\ntry: 1 / 0\nfinally: raise ValueError('does not fit')")
        assert caught.value.message == (
            "the worker probe of the own toolchain ended with exit code 1 before it answered:\n"
            "  ValueError: does not fit"
        )
        assert "ZeroDivisionError" in (room.folder / "worker.log").read_text()

    @pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGKILL"])
    def test_a_death_by_signal_is_named(self, room: Room, name: str) -> None:
        body = f"print('at op 7', flush=True); os.kill(os.getpid(), signal.{name})"
        with pytest.raises(ToolchainError) as caught:
            room.run(body)
        assert f"was killed by {name} before it answered:\n  at op 7" in caught.value.message
        assert ("memory" in caught.value.remedy) is (name == "SIGKILL")

    def test_a_timeout_ends_the_whole_group(self, room: Room) -> None:
        body = (
            "child = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'])\n"
            "print('child', child.pid, flush=True); signal.pause()"
        )
        with pytest.raises(ToolchainError) as caught:
            room.run(body, timeout_seconds=1.5)
        found = re.fullmatch(
            r"the worker probe of the own toolchain did not answer within 1\.5 s \(its peak was "
            r"\d+ MiB of memory\):\n  child (\d+)",
            caught.value.message,
        )
        assert found
        wait_until_dead(int(found[1]))

    def test_a_child_left_behind_neither_blocks_nor_survives(self, room: Room) -> None:
        body = (
            "child = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'],\n"
            "    pass_fds=[3])\n"
            "answer({'ok': {'child': child.pid}})"
        )
        start = time.monotonic()
        pid = room.run(body)["child"]
        assert time.monotonic() - start < 15
        assert isinstance(pid, int)
        wait_until_dead(pid)

    def test_ctrl_c_ends_the_worker(self, room: Room) -> None:
        pid_file = room.folder / "pid"
        body = (
            "open('pid.partial', 'w').write(str(os.getpid())); os.rename('pid.partial', 'pid')\n"
            "signal.pause()"
        )

        def interrupt() -> None:
            while not pid_file.exists():
                os.sched_yield()
            _thread.interrupt_main()

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            room.run(body)
        thread.join()
        assert not is_alive(int(pid_file.read_text()))

    def test_memory_is_bounded(self, room: Room) -> None:
        body = "held = [bytearray(64 << 20) for _ in range(6)]; signal.pause()"
        with pytest.raises(ToolchainError) as caught:
            room.run(body, memory_bytes=200 << 20)
        found = re.fullmatch(
            r"the worker probe of the own toolchain was stopped after \d+ s, with a peak of "
            r"(\d+) MiB of memory: its limit is 200 MiB",
            caught.value.message,
        )
        assert found
        assert 200 < int(found[1]) < 600
        assert re.fullmatch(
            r"Allow more with --convert-memory \(this machine has \d+\.\d GiB\), or take a smaller "
            r"model or smaller shapes with --input-shape\.",
            caught.value.remedy,
        )

    def test_a_worker_that_prints_without_end_is_stopped(
        self, room: Room, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(worker, "Bounds", partial(Bounds, log_bytes=1 << 20))
        # Where the log ends is the kernel's choice, so its last lines may begin within one.
        shown = r"it printed more than 1 MiB:\n(  y{1,4000}(\.\.\.)?(\n|$))+"
        with pytest.raises(ToolchainError, match=shown):
            room.run("while True: print('y' * 9999)")

    def test_a_worker_that_breeds_is_stopped(
        self, room: Room, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(worker, "Bounds", partial(Bounds, num_processes=4))
        body = "for _ in range(6): os.fork() or signal.pause()\nsignal.pause()"
        with pytest.raises(ToolchainError, match="it started more than 4 processes\n"):
            room.run(body)

    def test_what_a_worker_took_is_told(self, room: Room) -> None:
        body = "held = bytearray(100 << 20); answer({'ok': {}})"
        room.run(body)
        assert [100 << 20 < usage.peak_bytes < 300 << 20 for usage in room.usages] == [True]
        assert 0 < room.usages[0].seconds < 20

    def test_what_a_failed_worker_took_is_told_too(self, room: Room) -> None:
        with pytest.raises(ToolchainError):
            room.run("held = bytearray(100 << 20); os.abort()")
        assert [usage.peak_bytes > 100 << 20 for usage in room.usages] == [True]

    def test_a_python_that_is_gone(self, room: Room, tmp_path: Path) -> None:
        room.toolchain = Toolchain(
            name="own", python=tmp_path / "gone", versions=(), origin=Origin.ISOLATED
        )
        with pytest.raises(ToolchainError) as caught:
            room.run("")
        assert caught.value.message == (
            f"{tmp_path}/gone of the own toolchain cannot be started: No such file or directory"
        )

    def test_no_error_is_anything_else(self, room: Room) -> None:
        for signal_number in (signal.SIGTERM, signal.SIGBUS):
            with pytest.raises(EdgePackError):
                room.run(f"os.kill(os.getpid(), {int(signal_number)})")


class TestSurroundings:
    BODY = "answer({'ok': {'environment': dict(os.environ), 'cwd': os.getcwd(), 'path': sys.path}})"

    def test_nothing_of_the_users_leaks(self, room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("AWS_SECRET_ACCESS_KEY", "HTTPS_PROXY", "PYTHONPATH", "SSH_AUTH_SOCK"):
            monkeypatch.setenv(name, "secret")
        answer = room.run(self.BODY)
        environment = answer["environment"]
        assert isinstance(environment, dict)
        assert "secret" not in environment.values()
        assert environment["HOME"] == environment["TMPDIR"] == answer["cwd"] == str(room.folder)
        assert environment["CUDA_VISIBLE_DEVICES"] == "-1"
        assert environment["TF_CPP_MIN_LOG_LEVEL"] == "2"

    def test_the_users_own_environment_keeps_its_search_path(
        self, room: Room, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "layers"))
        room.toolchain = Toolchain(
            name="own", python=Path(sys.executable), versions=(), origin=Origin.GIVEN
        )
        path = room.run(self.BODY)["path"]
        assert isinstance(path, list)
        assert str(tmp_path / "layers") in path

    def test_a_secret_is_in_no_open_file(self, room: Room, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("x")
        with (tmp_path / "secret").open() as file:
            os.set_inheritable(file.fileno(), True)
            body = (
                "found = [d for d in range(4, 256) if os.path.exists(f'/dev/fd/{d}')]\n"
                "answer({'ok': {'open': found}})"
            )
            assert room.run(body) == {"open": []}
