"""Environments are created by the real pip, once, whole or not at all."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from edgepack.errors import ToolchainError
from edgepack.toolchains import Origin, Toolchain, environment, installation, run_worker
from edgepack.toolchains.builds import PLAIN_BUILDS
from edgepack.toolchains.catalog import ToolchainSpec
from edgepack.toolchains.environment import (
    ensure_environment,
    find_environments,
    read_environment,
    remove_environments,
)
from edgepack.toolchains.interpreter import probe_interpreter
from tests.fixtures.toolchains import WriteWorker

# A program of its own that creates the environment of `six_spec`, as another EdgePack would.
CREATE = """
import sys
from pathlib import Path
from edgepack.toolchains.catalog import ToolchainSpec
from edgepack.toolchains.environment import ensure_environment
spec = ToolchainSpec(name="six", purpose="tests", lock=Path(sys.argv[1]), modules=("six",),
                     reported=("six",), installed_mib=1)
ensure_environment(spec, on_progress=lambda line: print(line, flush=True))
"""

# A package pip can have nowhere but from an index.
ABSENT_LOCK = f"edgepack-absent==1.0 --hash=sha256:{'0' * 64}\n"


@pytest.fixture(scope="module")
def bare_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bare") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    return folder


@pytest.fixture
def bare_environment(bare_folder: Path) -> Iterator[Path]:
    """Give an environment with nothing but pip."""
    yield bare_folder
    shutil.rmtree(bare_folder / "tmp")  # what _build removes when _install fails


def start_creation(spec: ToolchainSpec) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CREATE, str(spec.lock)], stdout=subprocess.PIPE, text=True
    )


def folders(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if path.is_dir())


class TestCreation:
    def test_creates_reuses_and_removes(
        self,
        toolchain_cache: Path,
        six_spec: ToolchainSpec,
        tmp_path: Path,
        write_worker: WriteWorker,
    ) -> None:
        lines: list[str] = []
        made = ensure_environment(six_spec, on_progress=lines.append)
        assert made.versions == (("six", "1.17.0"),)
        assert made.folder.parent == toolchain_cache
        assert lines[0].startswith("creating the six toolchain with Python 3.")
        assert "six: Installing collected packages" in lines
        assert lines[-1] == "the six toolchain is ready"
        assert {path.name[:6] for path in (made.folder / "bin").iterdir()} == {"python"}
        assert folders(toolchain_cache) == [made.folder.name]

        # It works where it now is.
        own = Toolchain(name="six", python=made.python, versions=(), origin=Origin.ISOLATED)
        worker = write_worker("import six; answer({'ok': {'file': six.__file__}})")
        (tmp_path / "work").mkdir()  # what a worker leaves in its folder is removed
        answer = run_worker(own, worker, {}, folder=tmp_path / "work", timeout_seconds=30)
        assert Path(str(answer["file"])).is_relative_to(made.folder)

        lines.clear()
        assert ensure_environment(six_spec, on_progress=lines.append) == made
        assert lines == []

        assert remove_environments(six_spec)
        assert folders(toolchain_cache) == []
        assert not remove_environments(six_spec)

    def test_two_processes_at_once_build_once(
        self, toolchain_cache: Path, six_spec: ToolchainSpec
    ) -> None:
        processes = [start_creation(six_spec) for _ in range(2)]
        outputs = [process.communicate(timeout=120)[0] for process in processes]
        assert [process.returncode for process in processes] == [0, 0]
        assert sum("creating the six toolchain" in output for output in outputs) == 1
        assert len(folders(toolchain_cache)) == 1

    def test_a_killed_build_counts_for_nothing_and_is_cleaned_up(
        self, toolchain_cache: Path, six_spec: ToolchainSpec
    ) -> None:
        with start_creation(six_spec) as process:
            assert process.stdout
            assert process.stdout.readline().startswith("creating the six toolchain")
            process.kill()
        assert find_environments(six_spec) == ()
        made = ensure_environment(six_spec, on_progress=lambda _line: None)
        assert folders(toolchain_cache) == [made.folder.name]

    def test_ctrl_c_leaves_nothing(self, toolchain_cache: Path, six_spec: ToolchainSpec) -> None:
        with start_creation(six_spec) as process:
            assert process.stdout
            process.stdout.readline()
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
        assert process.returncode == -signal.SIGINT
        assert folders(toolchain_cache) == []

    def test_a_broken_environment_counts_for_nothing_and_is_built_anew(
        self, toolchain_cache: Path, six_spec: ToolchainSpec
    ) -> None:
        made = ensure_environment(six_spec, on_progress=lambda _line: None)
        record = made.folder / "edgepack-toolchain.json"
        whole = record.read_text()
        for broken in ("", "[]", json.dumps({"name": 3}), whole[:-5]):
            record.write_text(broken)
            assert read_environment(made.folder) is None
        record.write_text(whole)
        assert read_environment(made.folder) == made
        for path in (made.folder / "bin").iterdir():
            path.unlink()
            path.symlink_to("/gone")  # as when the system's Python is removed
        assert find_environments(six_spec) == ()
        assert ensure_environment(six_spec, on_progress=lambda _line: None) == made
        assert folders(toolchain_cache) == [made.folder.name]

    def test_another_lock_or_other_arguments_are_another_environment(
        self, six_spec: ToolchainSpec
    ) -> None:
        before = six_spec.digest()
        assert replace(six_spec, pip_args=("--pre",)).digest() != before
        assert six_spec.lock
        six_spec.lock.write_text(f"# renewed\n{six_spec.lock.read_text()}")
        assert six_spec.digest() != before


class TestFailures:
    @staticmethod
    def fail(spec: ToolchainSpec) -> ToolchainError:
        with pytest.raises(ToolchainError) as caught:
            ensure_environment(spec, on_progress=lambda _line: None)
        return caught.value

    @staticmethod
    def fail_to_install(lock: str, spec: ToolchainSpec, folder: Path) -> ToolchainError:
        assert spec.lock
        spec.lock.write_text(lock)
        with pytest.raises(ToolchainError) as caught:
            installation.install(
                spec,
                folder,
                probe_interpreter(Path(sys.executable)),
                PLAIN_BUILDS,
                lambda _line: None,
            )
        assert caught.value.message.startswith("installing the six toolchain with pip failed")
        return caught.value

    def test_an_index_that_cannot_be_reached(
        self, six_spec: ToolchainSpec, bare_environment: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PIP_INDEX_URL", "http://user:secret@127.0.0.1:9/simple")
        monkeypatch.setenv("PIP_RETRIES", "1")
        error = self.fail_to_install(ABSENT_LOCK, six_spec, bare_environment)
        assert "edgepack-absent==1.0" in error.message
        assert "secret" not in error.message
        assert error.remedy == (
            "Connect to the network, or tell pip where the packages are (PIP_INDEX_URL for a "
            "mirror; PIP_NO_INDEX=1 and PIP_FIND_LINKS for a folder of wheels), or name an "
            "environment that has the framework with --toolchain-python."
        )

    def test_no_index_at_all(
        self, six_spec: ToolchainSpec, bare_environment: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        error = self.fail_to_install(ABSENT_LOCK, six_spec, bare_environment)
        assert "No matching distribution found for edgepack-absent==1.0" in error.message
        assert "--toolchain-python" in error.remedy

    def test_a_file_with_another_hash_is_refused(
        self, six_spec: ToolchainSpec, bare_environment: Path
    ) -> None:
        lock = f"six==1.17.0 --hash=sha256:{'0' * 64}\n"
        error = self.fail_to_install(lock, six_spec, bare_environment)
        assert "DO NOT MATCH THE HASHES" in error.message
        assert "serves other files than the lock names" in error.remedy

    def test_an_environment_without_what_it_is_for_is_refused(
        self, toolchain_cache: Path, six_spec: ToolchainSpec
    ) -> None:
        error = self.fail(replace(six_spec, modules=("six", "seven")))
        assert error.message == (
            "the new six environment was expected to hold six, seven, but lacks seven"
        )
        assert folders(toolchain_cache) == []

    def test_too_little_space(self, toolchain_cache: Path, six_spec: ToolchainSpec) -> None:
        error = self.fail(replace(six_spec, installed_mib=10**9))
        assert error.message.startswith(
            f"the six toolchain needs 1000000000 MiB in {toolchain_cache}, which has "
        )

    def test_a_cache_that_cannot_be_written(
        self, six_spec: ToolchainSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        error = self.fail(six_spec)
        assert error.message == (
            f"the six toolchain cannot be created in {tmp_path}/file/edgepack/toolchains: "
            "Not a directory"
        )

    @pytest.mark.usefixtures("toolchain_cache")
    def test_no_python_in_range(self, six_spec: ToolchainSpec) -> None:
        error = self.fail(replace(six_spec, pythons=((3, 99), (3, 99))))
        assert error.message.startswith(
            "the six toolchain needs Python 3.99 to 3.99 on PATH, with the modules venv and "
            "ensurepip: "
        )
        running = ".".join(map(str, sys.version_info[:3]))
        assert f"{sys.executable} is Python {running}" in error.message

    @pytest.mark.usefixtures("toolchain_cache")
    def test_an_unsupported_platform(
        self, six_spec: ToolchainSpec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("platform.machine", lambda: "riscv64")
        assert self.fail(six_spec).message == (
            "expected one of the platforms linux-x86_64, linux-aarch64, darwin-arm64 for an "
            f"isolated six toolchain, not {sys.platform}-riscv64"
        )


def test_a_waiting_process_says_so(toolchain_cache: Path, six_spec: ToolchainSpec) -> None:
    toolchain_cache.mkdir(parents=True)
    lines: list[str] = []

    def lock() -> None:
        with environment._locked(toolchain_cache, six_spec, lines.append):
            pass

    with ThreadPoolExecutor(1) as pool:
        with environment._locked(toolchain_cache, six_spec, lines.append):
            future = pool.submit(lock)
            while not lines:
                os.sched_yield()
            assert not future.done()
        future.result(timeout=30)
    assert lines == ["waiting for another EdgePack that works on the six toolchain"]
