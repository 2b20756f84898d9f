"""A crew of processes: real pushes in it, its steps, its death and its end."""

import os
import signal
import socket
import threading
from concurrent.futures import BrokenExecutor
from pathlib import Path

import pytest

from edgepack.device.wire.connect import ConnectOptions
from edgepack.errors import BundleError, ConnectError
from edgepack.fleet.crew import Crew
from edgepack.workflow.delivery import PushTask, ReachOptions, push_task
from tests.fixtures.bundle import write_digits_bundle


def _task(folder: Path, address: str, *, sha256: str | None = None) -> PushTask:
    bundle = write_digits_bundle(folder / "digits.edgepack")
    return PushTask(
        bundle=bundle.path,
        sha256=sha256 or bundle.sha256,
        address=address,
        root=str(folder / "root"),
        reach=ReachOptions(connect=ConnectOptions(), cache_root=folder / "cache"),
        bundle_only=True,
    )


def test_pushes_run_in_other_processes_and_say_what_they_do(tmp_path: Path) -> None:
    said: list[tuple[object, str]] = []
    task = _task(tmp_path, "local:")
    other = _task(tmp_path, "local:", sha256="0" * 64)
    with Crew(num_processes=2, num_threads=2, on_step=lambda *step: said.append(step)) as crew:
        assert os.getpid() not in crew.pids
        pushed, wrong = crew.submit(push_task, task), crew.submit(push_task, other)
        done = pushed.result(timeout=60)
        # An error comes whole out of the other process.
        with pytest.raises(BundleError) as caught:
            wrong.result(timeout=60)
    assert done.deployment.sent_bytes > 0
    link = tmp_path / "root/bundles/digits/current"
    assert link.resolve().name == done.deployment.release == done.deployment.path[-12:]
    assert caught.value.message.startswith(
        f"{task.bundle}: expected the bundle with sha256 000000000000, but it is "
    )
    name = f"digits {done.deployment.release}"
    assert said == [(task, "connecting to local:"), (task, f"pushing {name} to local:")]


def test_a_process_that_dies_breaks_what_it_was_at_and_no_more(tmp_path: Path) -> None:
    started = threading.Event()
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        hanging = _task(tmp_path, f"nobody@127.0.0.1:{silent.getsockname()[1]}")
        with Crew(num_processes=2, num_threads=1, on_step=lambda *_: started.set()) as crew:
            first = crew.submit(push_task, hanging)
            assert started.wait(60)
            os.kill(crew.pids[0], signal.SIGKILL)
            with pytest.raises(BrokenExecutor, match=r"^signal 9$"):
                first.result(timeout=60)
            again = crew.submit(push_task, _task(tmp_path, "local:"))
            assert again.result(timeout=60).device == "local:"
            os.kill(crew.pids[1], signal.SIGKILL)
            last = crew.submit(push_task, hanging)
            with pytest.raises(BrokenExecutor):
                last.result(timeout=60)


def test_leaving_breaks_off(tmp_path: Path) -> None:
    started = threading.Event()
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"nobody@127.0.0.1:{silent.getsockname()[1]}"
        with Crew(num_processes=1, num_threads=1, on_step=lambda *_: started.set()) as crew:
            (pid,) = crew.pids
            future = crew.submit(push_task, _task(tmp_path, address))
            assert started.wait(60)
        with pytest.raises(BrokenExecutor):
            future.result(timeout=0)
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_bug_comes_with_its_traceback(tmp_path: Path) -> None:
    with Crew(num_processes=1, num_threads=1, on_step=lambda *_: None) as crew:
        future = crew.submit(push_task, "no task")  # type: ignore[arg-type]  # that is the bug
        with pytest.raises(RuntimeError, match="AttributeError: 'str' object has no attribute"):
            future.result(timeout=60)
        good = crew.submit(push_task, _task(tmp_path, "nobody@127.0.0.1:1"))
        with pytest.raises(ConnectError, match="Connection refused"):
            good.result(timeout=60)
