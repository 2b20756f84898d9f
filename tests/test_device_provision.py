"""Provisioning: a runtime is installed from here, proved by an import, and sent once."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edgepack.cache import Cache, cache_directory
from edgepack.device.runtime import wheels
from edgepack.device.runtime.provision import Engine, parse_engine, provision, to_json
from edgepack.device.store.deploy import place_files
from edgepack.device.store.packing import (
    cut_by_shell,
    cut_command,
    index_by_digest,
    index_by_offset,
    join_pack,
)
from edgepack.device.store.payload import describe_file
from edgepack.device.survey.facts import DeviceFacts, read_facts
from edgepack.device.wire.connect import ConnectOptions, open_device
from edgepack.device.wire.local import LocalDevice
from edgepack.device.wire.transport import Device
from edgepack.errors import ConnectError, ProvisionError
from tests.fixtures.bundle import DATA
from tests.fixtures.faulty_device import FaultyDevice
from tests.fixtures.sshd import SshServer

# The user's own cache: 40 MB of wheels are not downloaded anew for each run.
CACHE = Cache(root=cache_directory())

INVOKE = """
import sys
sys.path.insert(0, sys.argv[1])
import importlib
interpreter = importlib.import_module(sys.argv[2]).Interpreter(sys.argv[3], num_threads=1)
interpreter.allocate_tensors()
interpreter.invoke()
print(interpreter.get_output_details()[0]["shape"].tolist())
"""


def install(device: Device, facts: DeviceFacts, steps: list[str] | None = None) -> Engine:
    told: list[str] = [] if steps is None else steps
    return provision(device, facts, root=facts.root, cache=CACHE, on_progress=told.append)


def answer(device: Device, engine: Engine, model: str) -> str:
    assert engine.python is not None
    assert engine.module is not None
    result = device.run(
        [engine.python, "-I", "-c", INVOKE, engine.site, engine.module, model],
        timeout_seconds=120,
    )
    assert result.exit_code == 0, result.stderr
    return result.text.strip()


def test_once_a_version(tmp_path: Path) -> None:
    device = FaultyDevice(device=LocalDevice())
    facts = read_facts(device, str(tmp_path / "root"))
    steps: list[str] = []
    engine = install(device, facts, steps)
    site = Path(engine.site)
    assert engine.name == "ai-edge-litert"
    assert engine.xnnpack is True
    assert engine.runtime_bytes == sum(count for _, count in device.uploads) > 2**20
    assert steps[-1].startswith("installing ai-edge-litert 2.3.0 on faulty: (")
    assert list((tmp_path / "root" / "staging").iterdir()) == []
    assert not list(site.rglob("*WebGpu*"))
    assert len(device.uploads) < 10
    device.uploads.clear()
    os.utime(site.parent, (1, 1))
    again = install(device, facts)
    assert site.parent.stat().st_mtime > 1  # which says when it was used last
    assert (again.runtime_bytes, device.uploads) == (0, [])
    assert again == replace(engine, runtime_bytes=0)
    assert parse_engine(to_json(engine)) == engine
    assert answer(device, engine, str(DATA / "digits.tflite")) == "[1, 10]"

    # A damaged one is noticed by importing it, and mended.
    (site / "ai_edge_litert" / "interpreter.py").unlink()
    mended = install(device, facts)
    assert 0 < mended.runtime_bytes < 2**20
    assert (site / "ai_edge_litert" / "interpreter.py").is_file()


def test_the_older_runtime_works_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "_ENGINES", wheels._ENGINES[1:])
    facts = read_facts(LocalDevice(), str(tmp_path / "root"))
    if facts.python is None or facts.python.tag not in {"cp39", "cp310", "cp311"}:
        pytest.skip("tflite-runtime has wheels for Python 3.9 to 3.11 only")
    engine = install(LocalDevice(), facts)
    assert (engine.name, engine.version, engine.numpy) == ("tflite-runtime", "2.14.0", "1.26.4")
    assert answer(LocalDevice(), engine, str(DATA / "digits.tflite")) == "[1, 10]"


def test_a_link_that_dies_leaves_no_runtime_and_the_next_installation_goes_on(
    tmp_path: Path,
) -> None:
    """The native runtime, which is small, is cut at every operation: tests/test_device_native."""
    facts = read_facts(LocalDevice(), str(tmp_path / "root"))
    device = FaultyDevice(device=LocalDevice(), fails_at=5)
    with pytest.raises(ConnectError):
        install(device, facts)
    runtimes = tmp_path / "root" / "runtimes"
    assert list(runtimes.iterdir()) == []
    engine = install(LocalDevice(), facts)
    assert [str(path) for path in runtimes.iterdir()] == [engine.site.removesuffix("/site")]
    assert answer(LocalDevice(), engine, str(DATA / "digits.tflite")) == "[1, 10]"
    assert list((tmp_path / "root" / "staging").iterdir()) == []


def test_what_does_not_import_is_not_installed(tmp_path: Path) -> None:
    """The last word is the device's: this one has too little memory to load the libraries."""
    facts = read_facts(LocalDevice(), str(tmp_path / "root"))
    assert facts.python is not None
    small = tmp_path / "python3"
    small.write_text(f'#!/bin/sh\nulimit -v 45000\nexec {facts.python.path} "$@"\n')
    small.chmod(0o755)
    short = replace(facts, python=replace(facts.python, path=str(small)))
    with pytest.raises(ProvisionError) as caught:
        install(LocalDevice(), short)
    assert f"local: ai-edge-litert 2.3.0 was sent, but {small} cannot import it: " in (
        caught.value.message
    )
    assert list((tmp_path / "root" / "runtimes").iterdir()) == []
    assert list((tmp_path / "root" / "staging").iterdir()) == []


def short_of_memory(folder: Path, case: str) -> tuple[Path, DeviceFacts]:
    """Give a Python that ends at some commands, and facts of this machine that name it."""
    facts = read_facts(LocalDevice(), str(folder / "root"))
    assert facts.python is not None
    python = folder / "python3"
    python.write_text(f'#!/bin/sh\ncase "$*" in {case} ;; esac\nexec {facts.python.path} "$@"\n')
    python.chmod(0o755)
    return python, replace(facts, python=replace(facts.python, path=str(python)))


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("kill -s KILL $$", "it was killed"),
        ("echo MemoryError >&2; exit 1", "MemoryError"),
    ],
)
def test_a_device_without_memory_for_the_import(tmp_path: Path, end: str, said: str) -> None:
    python, facts = short_of_memory(tmp_path, f"*staging*ai_edge_litert*) {end}")
    with pytest.raises(ProvisionError) as caught:
        install(LocalDevice(), facts)
    assert caught.value.message == (
        f"local: ai-edge-litert 2.3.0 was sent, but {python} cannot import it: {said}"
    )
    assert caught.value.remedy == (
        "Free memory on the device, or use `--runner native`, which needs less; "
        "nothing of the runtime is in use."
    )
    assert list((tmp_path / "root" / "runtimes").iterdir()) == []


def test_a_runtime_that_is_there_is_not_sent_anew_where_memory_is_lacking(tmp_path: Path) -> None:
    python, facts = short_of_memory(tmp_path, "*ai_edge_litert*) kill -s KILL $$")
    device = FaultyDevice(device=LocalDevice())
    with pytest.raises(ProvisionError) as caught:
        install(device, facts)
    assert caught.value.message == (
        f"faulty: {python} cannot import ai-edge-litert 2.3.0: it was killed"
    )
    assert caught.value.remedy == (
        "Free memory on the device, or use `--runner native`, which needs less."
    )
    assert device.uploads == []


def test_unserved_devices_are_refused_before_anything_is_sent(tmp_path: Path) -> None:
    facts = read_facts(LocalDevice(), str(tmp_path / "root"))
    device = FaultyDevice(device=LocalDevice())
    with pytest.raises(ProvisionError, match="needs glibc"):
        install(device, replace(facts, libc="musl"))
    assert device.num_operations == 0


def cut(pack: Path, folder: Path, index: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        cut_command(sys.executable, str(pack), str(folder)),
        input=index,
        capture_output=True,
        check=False,
    )


def test_packs_are_cut_apart(tmp_path: Path) -> None:
    files = [describe_file("a", b"1" * 10), describe_file("b", b""), describe_file("c", b"3")]
    out, pack = tmp_path / "out", tmp_path / "pack"
    out.mkdir()
    pack.write_bytes(join_pack(files))
    assert cut(pack, out, index_by_digest(files)).returncode == 0
    expected = {"a": b"1" * 10, "b": b"", "c": b"3"}
    assert {path.name: path.read_bytes() for path in out.iterdir()} == expected
    assert not pack.exists()


@pytest.mark.parametrize("shell", ["dash", "bash --posix", "busybox sh"])
def test_packs_are_cut_apart_without_python(tmp_path: Path, shell: str) -> None:
    contents = {"a b": b"1" * 10, "b": b"", "c": bytes(range(256)) * 999, "$(x)": b"last"}
    files = [describe_file(path, content) for path, content in contents.items()]
    out, pack = tmp_path / "out", tmp_path / "pack"
    out.mkdir()
    pack.write_bytes(join_pack(files))
    argv = (*shell.split(), *cut_by_shell(str(pack), str(out))[1:])
    result = subprocess.run(argv, input=index_by_offset(files), capture_output=True, check=True)
    assert result.stdout.decode().splitlines() == [f"{file.sha256} {file.path}" for file in files]
    assert {path.name: path.read_bytes() for path in out.iterdir()} == contents
    assert not pack.exists()


@pytest.mark.parametrize("path", ["../escaped", "/tmp/escaped", "link/escaped"])  # noqa: S108
def test_packs_cannot_leave_the_folder(tmp_path: Path, path: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "link").symlink_to(tmp_path)
    pack = tmp_path / "pack"
    pack.write_bytes(b"x")
    file = describe_file("x", b"x")
    result = cut(pack, out, json.dumps([[path, file.sha256, 1]]).encode())
    assert (result.returncode, result.stderr.strip()) == (1, b"a path leaves its folder")
    assert not (tmp_path / "escaped").exists()


def test_damaged_packs_are_refused(tmp_path: Path) -> None:
    files = [describe_file("a", b"1" * 10)]
    content, index = join_pack(files), index_by_digest(files)
    pack = tmp_path / "pack"
    pack.write_bytes(content[:-1] + b"2")
    (tmp_path / "out").mkdir()
    assert cut(pack, tmp_path / "out", index).stderr.strip() == b"a file was damaged on the way"
    pack.write_bytes(content + b"more")
    assert b"more bytes than files" in cut(pack, tmp_path / "out", index).stderr


@pytest.mark.sshd
def test_over_ssh(tmp_path: Path, ssh_server: SshServer) -> None:
    options = ConnectOptions(ssh_config=ssh_server.ssh_config)
    with open_device(ssh_server.address, options=options) as device:
        facts = read_facts(device, str(tmp_path))
        engine = install(device, facts)
        assert engine.runtime_bytes > 2**20
        folder = place_files(device, {"m.tflite": DATA / "digits.tflite"}, root=facts.root)
        assert answer(device, engine, f"{folder}/m.tflite") == "[1, 10]"
        assert install(device, facts).runtime_bytes == 0
