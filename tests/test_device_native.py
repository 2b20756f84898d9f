"""The native runner on devices: for whom it is, how it gets there, what it measures."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from edgepack.bundle.golden import Golden, make_golden
from edgepack.cache import Cache, cache_directory
from edgepack.crossbuild import PROGRAM
from edgepack.device.runtime.native import NativeRuntime, choose_native, install_program
from edgepack.device.runtime.provision import (
    Engine,
    RunnerChoice,
    choose_engine,
    parse_engine,
    provision,
    to_json,
)
from edgepack.device.runtime.wheels import Runtime
from edgepack.device.store.payload import describe_file
from edgepack.device.survey.facts import DeviceFacts, read_answer, read_facts
from edgepack.device.wire.local import LocalDevice
from edgepack.device.wire.transport import Device
from edgepack.errors import ConnectError, GoldenError, ProvisionError
from edgepack.measure.bench import TimedModel
from edgepack.measure.drive import measure
from edgepack.measure.plan import BenchmarkPlan
from edgepack.measure.record import (
    Measurement,
    ModelIdentity,
    parse_measurement,
    write_measurement,
)
from edgepack.model import Model, load_model
from tests.fixtures.boards import EmulatedBoard
from tests.fixtures.bundle import write_digits_bundle
from tests.fixtures.commands import QUICK as QUICK_OPTIONS
from tests.fixtures.commands import RunCommand
from tests.fixtures.faulty_device import FaultyDevice
from tests.fixtures.measure import DATA
from tests.fixtures.runners import sample_feeds, share_program

GOLDEN = Path(__file__).parent / "golden" / "facts"
CACHE = Cache(root=cache_directory())
QUICK = BenchmarkPlan(
    num_launches=6, warmup_seconds=0.0, min_runs=10, min_seconds=0.0, max_seconds=30
)


def golden_facts(name: str) -> DeviceFacts:
    return read_answer((GOLDEN / f"{name}.txt").read_text(), root="/r")


def install(device: Device, facts: DeviceFacts, steps: list[str] | None = None) -> Engine:
    told: list[str] = [] if steps is None else steps
    return provision(
        device,
        facts,
        root=facts.root,
        cache=CACHE,
        on_progress=told.append,
        runner=RunnerChoice.NATIVE,
    )


@pytest.mark.parametrize(
    ("name", "arch", "xnnpack"),
    [
        ("raspberry-pi-4-bookworm", "aarch64", True),
        ("raspberry-pi-4-32bit-userland", "armv7l", False),
        ("laptop-ubuntu-22.04", "x86_64", True),
    ],
)
def test_the_library_of_the_userland(name: str, arch: str, *, xnnpack: bool) -> None:
    runtime = choose_native(golden_facts(name))
    assert (runtime.wheel.arch, runtime.wheel.xnnpack) == (arch, xnnpack)
    assert runtime.folder_name.startswith("tensorflow-lite-c-2.17.1-native-")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "debian-11-bullseye",
            (
                "the native runner's library, tensorflow-lite-c 2.17.1, needs glibc 2.34, but "
                "Debian GNU/Linux 11 (bullseye) has 2.31"
            ),
        ),
        ("macos-14-apple-silicon", "the native runner has no library for Darwin aarch64"),
        (
            "alpine-busybox-without-python",
            "every runtime needs glibc, but Alpine Linux v3.19 has musl",
        ),
        ("android-termux", "every runtime needs glibc, but Android 14 has bionic"),
    ],
)
def test_whom_it_cannot_serve_is_said(name: str, message: str) -> None:
    with pytest.raises(ProvisionError) as caught:
        choose_native(golden_facts(name))
    assert caught.value.message == message
    assert caught.value.remedy


def test_a_core_without_what_the_library_was_compiled_for_is_refused() -> None:
    facts = replace(
        golden_facts("raspberry-pi-4-32bit-userland"), cpu_features=("half", "neon", "vfpv3")
    )
    with pytest.raises(ProvisionError) as caught:
        choose_native(facts)
    assert caught.value.message == (
        "the native runner's library needs a core with neon, vfpv4, but that of "
        f"{facts.os_name} has no vfpv4"
    )


def test_python_comes_first_and_the_native_runner_where_none_suits() -> None:
    facts = golden_facts("raspberry-pi-4-bookworm")
    assert isinstance(choose_engine(facts), Runtime)
    assert isinstance(choose_engine(facts, runner=RunnerChoice.NATIVE), NativeRuntime)
    without = replace(facts, python=None)
    assert isinstance(choose_engine(without), NativeRuntime)
    with pytest.raises(ProvisionError, match="has no python3"):
        choose_engine(without, runner=RunnerChoice.PYTHON)
    assert facts.python is not None
    old = replace(facts.python, version=(3, 7, 3), tag="cp37")
    assert isinstance(choose_engine(replace(facts, python=old)), NativeRuntime)


def test_where_neither_fits_both_reasons_are_told() -> None:
    with pytest.raises(ProvisionError) as caught:
        choose_engine(replace(golden_facts("debian-11-bullseye"), python=None))
    assert caught.value.message == (
        "the runtime needs Python 3.9 to 3.14, but Debian GNU/Linux 11 (bullseye) has no python3; "
        "without Python: the native runner's library, tensorflow-lite-c 2.17.1, needs glibc 2.34, "
        "but Debian GNU/Linux 11 (bullseye) has 2.31"
    )
    with pytest.raises(ProvisionError) as caught:
        choose_engine(golden_facts("alpine-busybox-without-python"))
    assert caught.value.message == "every runtime needs glibc, but Alpine Linux v3.19 has musl"


def test_an_old_system_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    facts = read_facts(LocalDevice(), str(tmp_path / "root"))
    device = FaultyDevice(device=LocalDevice())
    with pytest.raises(ProvisionError, match=r"needs glibc 2\.34, but .* has 2\.31"):
        install(device, replace(facts, libc_version="2.31"))
    assert device.num_operations == 0


def test_a_system_without_the_cpp_library_is_told_how_to_get_it() -> None:
    facts = replace(golden_facts("laptop-ubuntu-22.04"), libstdcxx=None)
    with pytest.raises(ProvisionError, match=r"needs libstdc.* has none") as caught:
        choose_native(facts)
    assert caught.value.remedy.startswith("Install the C++ library, libstdc++.so.6, on the device ")


@pytest.mark.toolchain
def test_once_a_version(tmp_path: Path) -> None:
    device = FaultyDevice(device=LocalDevice())
    facts = read_facts(device, str(tmp_path / "root"))
    steps: list[str] = []
    engine = install(device, facts, steps)
    assert (engine.name, engine.version, engine.xnnpack) == ("tensorflow-lite-c", "2.17.1", True)
    assert engine.runner is RunnerChoice.NATIVE
    assert engine.python is engine.module is engine.numpy is None
    assert engine.runtime_bytes == sum(count for _, count in device.uploads) > 2**20
    assert steps[-1] == "installing tensorflow-lite-c 2.17.1 on faulty: (5 MiB)"
    assert list((tmp_path / "root" / "staging").iterdir()) == []
    assert sorted(path.name for path in Path(engine.site).iterdir()) == [
        *("LICENSE", "libtensorflowlite_c.so", "runner")
    ]
    assert parse_engine(to_json(engine)) == engine
    device.uploads.clear()
    os.utime(engine.site, (1, 1))
    assert install(device, facts) == replace(engine, runtime_bytes=0)
    assert Path(engine.site).stat().st_mtime > 1  # which says when it was used last
    assert device.uploads == []

    # A damaged one is noticed by starting it, and mended.
    assert engine.library is not None
    library = Path(engine.library)
    content = library.read_bytes()
    library.chmod(0o644)
    library.write_bytes(content[:1000])
    mended = install(device, facts)
    assert mended.runtime_bytes == len(content)
    assert library.read_bytes() == content


@pytest.mark.toolchain
def test_wherever_the_link_dies_the_next_installation_succeeds(tmp_path: Path) -> None:
    facts = read_facts(LocalDevice(), str(tmp_path / "counted"))
    counting = FaultyDevice(device=LocalDevice())
    whole = install(counting, facts)
    assert counting.num_operations > 5
    for number in range(counting.num_operations):
        facts = replace(facts, root=str(tmp_path / f"{number}"))
        dying = FaultyDevice(device=LocalDevice(), fails_at=number)
        with pytest.raises(ConnectError):
            install(dying, facts)
        runtimes = Path(facts.root, "runtimes")
        is_there = runtimes.is_dir() and list(runtimes.iterdir()) != []
        engine = install(LocalDevice(), facts)  # which starts it
        assert engine.runtime_bytes == 0 or not is_there
        assert engine.sha256 == whole.sha256
        assert list(Path(facts.root, "staging").iterdir()) == []


@contextmanager
def mounted_noexec(folder: Path) -> Iterator[None]:
    """A file system at this folder that no program may be started from."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "noexec,size=32m", "tmpfs", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True, capture_output=True)


@pytest.mark.toolchain
def test_a_root_that_nothing_may_be_started_from(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    with mounted_noexec(tmp_path / "root"):
        facts = read_facts(LocalDevice(), str(tmp_path / "root"))
        with pytest.raises(ProvisionError) as caught:
            install(LocalDevice(), facts)
        assert list((tmp_path / "root" / "runtimes").iterdir()) == []
    assert caught.value.message.startswith(
        "local: tensorflow-lite-c 2.17.1 was sent, but it does not start there: "
    )
    assert caught.value.message.endswith("runner: Permission denied")
    assert caught.value.remedy == (
        "Give a --root on a file system that programs may be started from (not noexec); nothing "
        "of the runtime is in use."
    )


def test_a_program_whose_loader_is_not_there(tmp_path: Path) -> None:
    """As a static BusyBox says it of a program that asks for glibc's loader."""
    with pytest.raises(ProvisionError) as caught:
        install_program(
            LocalDevice(),
            root=str(tmp_path / "root"),
            folder_name="runtime",
            library_name="library.so",
            label="the runtime",
            version=None,
            load_files=lambda: (describe_file(PROGRAM, b"#!/nowhere/ld-linux.so.3\n"),),
            on_progress=lambda _: None,
            on_transfer=None,
        )
    assert caught.value.message.startswith(
        "local: the runtime was sent, but it does not start there: "
    )
    assert caught.value.remedy == (
        "The loader that the program names is not there; run a system with its C library; nothing "
        "of the runtime is in use."
    )
    assert list((tmp_path / "root" / "runtimes").iterdir()) == []


@pytest.fixture(scope="module")
def digits() -> tuple[Model, Golden]:
    model = load_model(DATA / "digits.tflite")
    return model, make_golden(model, model, sample_feeds(model, 2), num_samples=2)


def measure_digits(
    device: Device, engine: Engine, facts: DeviceFacts, *, path: str, model: Model, golden: Golden
) -> Measurement:
    return measure(
        device,
        engine=engine,
        facts=facts,
        model=TimedModel(
            path=path,
            identity=ModelIdentity(name="digits", sha256=model.sha256, num_bytes=model.num_bytes),
            signature=model.signature,
            is_quantized=False,
            golden=golden,
        ),
        plan=QUICK,
        root=facts.root,
        on_progress=lambda _: None,
    )


@pytest.mark.toolchain
def test_answers_are_checked_before_anything_is_timed(
    tmp_path: Path, digits: tuple[Model, Golden]
) -> None:
    model, golden = digits
    facts = read_facts(LocalDevice(), str(tmp_path / "root"))
    engine = install(LocalDevice(), facts)
    path = str(DATA / "digits.tflite")
    result = measure_digits(LocalDevice(), engine, facts, path=path, model=model, golden=golden)
    assert result.golden is not None
    assert result.golden.passed
    assert (result.engine.name, result.engine.version) == ("tensorflow-lite-c", "2.17.1")
    assert (result.engine.runner, result.engine.python) == ("native", None)
    assert result.engine.xnnpack is True
    assert result.engine.sha256 == engine.sha256
    assert len(result.launches) == 6
    assert [op.name for op in result.profile.ops if not op.xnnpack] == [
        *("SHAPE", "STRIDED_SLICE", "PACK", "RESHAPE")
    ]
    assert parse_measurement(json.loads(write_measurement(result))) == result

    wrong = replace(golden, host=(bytes(len(golden.host[0])),))
    with pytest.raises(GoldenError, match="the model answers otherwise on local:"):
        measure_digits(LocalDevice(), engine, facts, path=path, model=model, golden=wrong)


@pytest.mark.toolchain
def test_what_was_timed_is_not_lost_for_a_profile(
    tmp_path: Path, digits: tuple[Model, Golden]
) -> None:
    model, golden = digits
    facts = read_facts(LocalDevice(), str(tmp_path / "root"))
    engine = install(LocalDevice(), facts)
    fragile = tmp_path / "fragile"
    fragile.write_text(
        f'#!/bin/sh\ncase $3 in *profile*) exit 139;; esac\nexec {engine.program} "$@"\n'
    )
    fragile.chmod(0o755)
    result = measure_digits(
        LocalDevice(),
        replace(engine, program=str(fragile)),
        facts,
        path=str(DATA / "digits.tflite"),
        model=model,
        golden=golden,
    )
    assert len(result.launches) == 6
    assert result.profile.ops == ()
    assert result.profile.reason is not None
    assert result.profile.reason.startswith("the runner on local: died without a result: ")


@pytest.mark.toolchain
def test_push_and_bench_without_python(
    run: RunCommand, bundle: Path, device_root: Path, cache_home: Path
) -> None:
    share_program(cache_home, "x86_64")
    options = ("local:", "--root", device_root, "--runner", "native", "--json")
    pushed = run("push", bundle, *options)
    assert pushed.code == 0, pushed.err
    assert pushed.json()["example"] is None  # which needs Python
    ran = run("bench", bundle, *options, *QUICK_OPTIONS)
    assert ran.code == 0, ran.err
    body = ran.json()
    assert body["engine"]["runner"] == "native"
    assert body["engine"]["name"] == "tensorflow-lite-c"
    assert body["golden"]["passed"] is True
    assert run("bench", bundle, "local:", "--runner", "swift").code == 2


@pytest.mark.emulated
@pytest.mark.toolchain
@pytest.mark.xdist_group("boards")
@pytest.mark.timeout(900)
def test_on_an_arm_board(
    run: RunCommand, pi4_board: EmulatedBoard, cache_home: Path, tmp_path: Path
) -> None:
    """A Raspberry Pi 4: checked and measured by the compiled runner."""
    share_program(cache_home, "aarch64")
    bundle = write_digits_bundle(tmp_path / "digits.edgepack")
    ran = run(
        *("bench", bundle.path, pi4_board.address, "--ssh-config", pi4_board.ssh_config),
        *("--root", "~/native", "--runner", "native", "--launches", "1", "--runs", "5", "--json"),
    )
    assert ran.code == 0, ran.err
    body = ran.json()
    assert body["device"]["arch"] == "aarch64"
    assert (body["engine"]["runner"], body["engine"]["xnnpack"]) == ("native", True)
    assert body["golden"]["passed"] is True
    assert any(op["xnnpack"] for op in body["profile"]["ops"])
    assert all(launch["peak_memory_bytes"] for launch in body["launches"])
