"""The same pushes on a Dask cluster: a scheduler and two real workers on this machine."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from edgepack.fleet import cluster
from tests.fixtures.bundle import built_in_profile, write_digits_bundle
from tests.fixtures.commands import RunCommand


@contextmanager
def _cluster(folder: Path) -> Iterator[str]:
    """Run a scheduler and two workers; give the scheduler's address."""
    address = folder / "scheduler.json"
    options = ("--interface", "lo", "--no-dashboard")
    with ExitStack() as stack:

        def start(*argv: str) -> "subprocess.Popen[str]":
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "distributed.cli." + argv[0], *argv[1:]],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                    env={**os.environ, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"},
                    cwd=folder,
                )
            )
            stack.callback(process.kill)
            return process

        scheduler = start(
            "dask_scheduler", *options, "--port", "0", "--scheduler-file", str(address)
        )
        _await(scheduler, "Scheduler at:")
        for number in range(2):
            worker = start(
                "dask_worker", "--scheduler-file", str(address), *options, "--no-nanny",
                "--nthreads", "2", "--name", f"w{number}",
            )  # fmt: skip
            _await(worker, "Starting established connection")
        yield str(json.loads(address.read_text())["address"])


def _await(process: "subprocess.Popen[str]", words: str) -> None:
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if words in line:
            return
    pytest.fail(said)


def test_workers_push_and_the_journal_is_the_same(run: RunCommand, tmp_path: Path) -> None:
    bundle = write_digits_bundle(
        tmp_path / "digits.edgepack", target=built_in_profile("laptop-x86-64")
    )
    journal = tmp_path / "journal.jsonl"
    arguments = ("push", bundle.path, "local:", "dead@127.0.0.1:1", "--bundle-only")
    options = ("--root", tmp_path / "root", "--journal", journal, "--json")
    with _cluster(tmp_path) as address:
        ran = run(*arguments, *options, "--scheduler", address)
    assert ran.code == 1, ran.err
    done, dead = ran.json()
    assert done["release"] == bundle.release
    assert (tmp_path / "root/bundles/digits/current").resolve().name == bundle.release
    assert dead["error"]["kind"] == "connect"
    assert dead["tries"] == 3
    states = {
        each["device"]: each["state"]
        for each in map(json.loads, journal.read_text().splitlines()[1:])
    }
    assert states == {"local:": "done", "dead@127.0.0.1:1": "failed"}
    # What a cluster began is gone on with without one.
    again = run(*arguments, *options, "--resume").json()
    assert again[0]["already_done"]


def test_what_fails_in_the_cluster_is_no_bug_of_the_task(tmp_path: Path) -> None:
    with _cluster(tmp_path) as address, cluster.open_cluster(address) as reached:
        assert reached.num_threads == 4
        submit = reached.executor.submit
        assert submit(abs, -3).result(timeout=60) == 3
        with pytest.raises(ZeroDivisionError):
            submit(divmod, 1, 0).result(timeout=60)
        with pytest.raises(BrokenExecutor, match=r"^ModuleNotFoundError: No module named 'none_'$"):
            submit(importlib.import_module, "none_").result(timeout=60)
        # A worker that dies: of two one is left.
        with pytest.raises(BrokenExecutor, match=r"^KilledWorker: "):
            submit(os._exit, 1).result(timeout=60)
        assert submit(abs, -3).result(timeout=60) == 3


def test_no_scheduler_is_told(
    run: RunCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_CONNECT_SECONDS", 1)
    bundle = write_digits_bundle(tmp_path / "digits.edgepack")
    ran = run("push", bundle.path, "local:", "--scheduler", "tcp://127.0.0.1:1")
    assert ran.code == 1
    assert ran.err.splitlines()[0] == ("edgepack: no Dask scheduler answers at tcp://127.0.0.1:1")
