"""Stock Android with a library and a runner that the user brings."""

import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from edgepack.bundle.golden import make_golden
from edgepack.cache import Cache, cache_directory
from edgepack.crossbuild import SOURCES
from edgepack.device.runtime.android import (
    FUNCTIONS,
    AndroidRuntime,
    check_android,
    read_android_runtime,
)
from edgepack.device.runtime.provision import RunnerChoice, provision
from edgepack.device.survey.facts import DeviceFacts, read_answer, read_facts
from edgepack.device.wire.local import LocalDevice
from edgepack.errors import ProvisionError
from edgepack.measure.bench import TimedModel
from edgepack.measure.drive import measure
from edgepack.measure.plan import BenchmarkPlan
from edgepack.measure.record import ModelIdentity
from edgepack.model import load_model
from tests.fixtures.adbd import Adbd
from tests.fixtures.commands import FLOAT_MODEL, RunCommand, listing
from tests.fixtures.elf import make_elf
from tests.fixtures.runners import NativeRunner, sample_feeds

GOLDEN = Path(__file__).parent / "golden" / "facts"
ALL = [f"TfLite{name}" for name in FUNCTIONS]
NAME = "libtensorflowlite_jni.so"


def facts_of(name: str) -> DeviceFacts:
    return read_answer((GOLDEN / f"{name}.txt").read_text(), root="/r")


def make_library(
    arch: str = "aarch64",
    *,
    needed: Sequence[str] = ("libc.so", "libm.so", "liblog.so"),
    exported: Sequence[str] = ALL,
) -> bytes:
    return make_elf(arch, needed=needed, exported=exported)


def write_aar(path: Path, entries: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {"AndroidManifest.xml": b"<manifest/>", **entries}.items():
            archive.writestr(name, content)
    return path


def write_program(path: Path, arch: str = "aarch64") -> Path:
    path.write_bytes(make_elf(arch, needed=["libc.so"], interpreter="/system/bin/linker64"))
    return path


def refusal(tmp_path: Path, entries: Mapping[str, bytes]) -> str:
    aar = write_aar(tmp_path / "litert.aar", entries)
    with pytest.raises(ProvisionError) as caught:
        read_android_runtime(aar, write_program(tmp_path / "runner"))
    assert caught.value.remedy.startswith("Give one with the TensorFlow Lite C API")
    return caught.value.message.removeprefix(f"{aar}: ")


def test_the_functions_are_those_that_the_runner_asks_for() -> None:
    source = (SOURCES / "tflite.h").read_text()
    needed, optional = source.split("#undef FIND", 1)
    assert tuple(re.findall(r"^  FIND\((\w+)\);", needed, re.MULTILINE)) == FUNCTIONS
    assert "XNNPackDelegateCreate" in optional


def test_the_library_of_the_runners_architecture_is_taken(tmp_path: Path) -> None:
    library = make_library()
    aar = write_aar(
        tmp_path / "litert-1.4.0.aar",
        {
            f"jni/armeabi-v7a/{NAME}": make_library("armv7l"),
            "jni/arm64-v8a/libother.so": make_library(exported=["Java_x"]),
            f"jni/arm64-v8a/{NAME}": library,
            f"jni/x86_64/{NAME}": make_library("x86_64"),
        },
    )
    program = write_program(tmp_path / "runner")
    runtime = read_android_runtime(aar, program)
    assert runtime == AndroidRuntime(
        label="litert-1.4.0.aar",
        arch="aarch64",
        library_name=NAME,
        library=library,
        program=program.read_bytes(),
    )
    assert re.fullmatch(r"tensorflow-lite-c-android-[0-9a-f]{12}", runtime.folder_name)
    assert replace(runtime, program=b"other").folder_name != runtime.folder_name


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, "it holds no jni/arm64-v8a/*.so"),
        ({"jni/x86/liba.so": b""}, "it holds no jni/arm64-v8a/*.so"),
        (
            {"jni/arm64-v8a/libLiteRt.so": make_library(exported=["LiteRtCreateModel"])},
            "libLiteRt.so: it has no TfLiteVersion and 20 more functions",
        ),
        (
            {f"jni/arm64-v8a/{NAME}": make_library(exported=ALL[:-1])},
            f"{NAME}: it has no TfLiteTensorName",
        ),
        ({f"jni/arm64-v8a/{NAME}": make_library("x86_64")}, f"{NAME}: it is for x86_64"),
        (
            {f"jni/arm64-v8a/{NAME}": make_library(needed=["libc.so.6"])},
            f"{NAME}: it is not made for Android's C library",
        ),
        (
            {f"jni/arm64-v8a/{NAME}": make_library(needed=["libc.so", "libc++_shared.so"])},
            f"{NAME}: it needs libc++_shared.so, which Android does not have",
        ),
        (
            {f"jni/arm64-v8a/{NAME}": b"#!/bin/sh\n"},
            f"{NAME}: not a little-endian ELF file of a known architecture",
        ),
    ],
)
def test_an_aar_without_a_usable_library(
    tmp_path: Path, entries: Mapping[str, bytes], message: str
) -> None:
    assert refusal(tmp_path, entries) == f"no library the runner can use: {message}"


def test_a_hostile_archive_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, {"../../x.so": b""}) == ("2 entries, or paths that leave the archive")
    aar = tmp_path / "broken.aar"
    aar.write_bytes(b"PK\x03\x04 nothing more")
    with pytest.raises(ProvisionError, match=r"broken\.aar: not an AAR: "):
        read_android_runtime(aar, write_program(tmp_path / "runner"))


def test_a_damaged_entry_is_refused(tmp_path: Path) -> None:
    path = write_aar(tmp_path / "litert.aar", {f"jni/arm64-v8a/{NAME}": make_library()})
    content = bytearray(path.read_bytes())
    at = content.index(NAME.encode()) + len(NAME) + 20
    content[at : at + 20] = bytes(20)
    path.write_bytes(content)
    with pytest.raises(ProvisionError, match=r"litert\.aar: not an AAR: "):
        read_android_runtime(path, write_program(tmp_path / "runner"))


OTHER = "expected a program for Android, which asks for /system/bin/linker64; this one is for"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"#!/bin/sh\n",
            "expected a program for Android: not a little-endian ELF file of a known architecture",
        ),
        (
            make_elf("aarch64", needed=["libc.so.6"], interpreter="/lib/ld-linux-aarch64.so.1"),
            f"{OTHER} aarch64 and asks for /lib/ld-linux-aarch64.so.1",
        ),
        (make_elf("x86_64", needed=["libc.so"]), f"{OTHER} x86_64 and asks for no loader"),
    ],
)
def test_a_runner_for_something_else(tmp_path: Path, content: bytes, message: str) -> None:
    program = tmp_path / "runner"
    program.write_bytes(content)
    with pytest.raises(ProvisionError) as caught:
        read_android_runtime(tmp_path / "absent.aar", program)
    assert caught.value.message == f"{program}: {message}"
    assert caught.value.remedy.startswith("Build it with the NDK from ")


def make_runtime(arch: str) -> AndroidRuntime:
    return AndroidRuntime(
        label="litert.aar", arch=arch, library_name=NAME, library=b"l", program=b"p"
    )


def test_it_is_for_stock_android_of_its_architecture_alone() -> None:
    check_android(facts_of("android-termux"), make_runtime("aarch64"))
    with pytest.raises(ProvisionError) as caught:
        check_android(facts_of("android-termux"), make_runtime("armv7l"))
    assert caught.value.message == ("the runner given is for armv7l, but Android 14 is aarch64")
    with pytest.raises(ProvisionError) as caught:
        check_android(facts_of("raspberry-pi-5-bookworm"), make_runtime("aarch64"))
    assert caught.value.message == (
        "litert.aar is for stock Android, but Debian GNU/Linux 12 (bookworm) has glibc"
    )


@pytest.mark.toolchain
def test_what_the_user_brings_is_installed_and_measured(
    tmp_path: Path, native_runner: NativeRunner
) -> None:
    # No phone is at hand: glibc's runner and library go the same way on this machine.
    device = LocalDevice()
    facts = replace(read_facts(device, str(tmp_path / "root")), libc="bionic")
    runtime = AndroidRuntime(
        label="litert.aar",
        arch="x86_64",
        library_name=native_runner.library.name,
        library=native_runner.library.read_bytes(),
        program=native_runner.program.read_bytes(),
    )
    cache = Cache(root=cache_directory())
    steps: list[str] = []
    engines = [
        provision(
            *(device, facts),
            root=facts.root,
            cache=cache,
            on_progress=steps.append,
            android=runtime,
        )
        for _ in range(2)
    ]
    assert [engine.runtime_bytes for engine in engines] == [
        len(runtime.library) + len(runtime.program), 0
    ]  # fmt: skip
    assert steps == ["installing the runtime of litert.aar on local: (5 MiB)"]
    engine = engines[0]
    assert (engine.version, engine.runner) == ("2.17.1", RunnerChoice.NATIVE)
    model = load_model(FLOAT_MODEL)
    timed = TimedModel(
        path=str(FLOAT_MODEL),
        identity=ModelIdentity(name="digits", sha256=model.sha256, num_bytes=model.num_bytes),
        signature=model.signature,
        is_quantized=False,
        is_stream=False,
        golden=make_golden(model, model, sample_feeds(model, 2), num_samples=2),
    )
    plan = BenchmarkPlan(
        num_launches=2, warmup_seconds=0.0, min_runs=5, min_seconds=0.0, max_seconds=20
    )
    measured = measure(
        device, engine=engine, facts=facts, model=timed, plan=plan, root=facts.root,
        on_progress=steps.append,
    )  # fmt: skip
    assert measured.golden is not None
    assert measured.golden.passed
    assert measured.engine.runner == "native"


@pytest.mark.adb
def test_what_does_not_start_on_the_phone_is_not_in_use(
    run: RunCommand, phone: Adbd, tmp_path: Path
) -> None:
    assert phone.root is not None
    library = {f"jni/x86_64/{NAME}": make_library("x86_64")}
    ran = run(
        *("bench", FLOAT_MODEL, phone.address, "--runtime", write_aar(tmp_path / "a.aar", library)),
        *("--runtime-program", write_program(tmp_path / "runner", "x86_64")),
    )
    assert ran.code == 1
    assert (
        f"edgepack: {phone.address}: the runtime of a.aar was sent, but it does not start there: "
        in ran.err
    )
    runtimes = phone.root / "data/local/tmp/.edgepack/runtimes"
    assert listing(runtimes) == []


def test_the_two_go_together(run: RunCommand, tmp_path: Path) -> None:
    aar = write_aar(tmp_path / "a.aar", {})
    ran = run("bench", FLOAT_MODEL, "local:", "--runtime", aar)
    assert ran.code == 2
    message, remedy = ran.err.splitlines()[-2:]
    assert message == (
        "edgepack: --runtime-program: expected with --runtime: a library for Android and a runner "
        "for it go together"
    )
    assert remedy == "  Give both; docs/devices.md (Android) tells where they come from."
    program = write_program(tmp_path / "runner")
    ran = run(
        *("bench", FLOAT_MODEL, "local:", "--runner", "python"),
        *("--runtime", aar, "--runtime-program", program),
    )
    assert ran.code == 2
    assert "a runtime that --runtime brings has no Python" in ran.err
