"""Runtimes: which wheels suit which device, what is taken of them, what ELF files need."""

import hashlib
import struct
import subprocess
import sys
import zipfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.device.runtime import wheels
from edgepack.device.runtime.wheel_files import fetch_wheel, unpack_wheel
from edgepack.device.runtime.wheels import Wheel, choose_runtime, is_kept, judge_needs, load_wheels
from edgepack.device.survey.elf import SymbolNeeds, is_elf, parse_machine, read_needs
from edgepack.device.survey.facts import DeviceFacts, read_answer
from edgepack.errors import ProvisionError

GOLDEN = Path(__file__).parent / "golden" / "facts"


def golden(name: str) -> DeviceFacts:
    return read_answer((GOLDEN / f"{name}.txt").read_text(), root="/r")


@pytest.mark.parametrize(
    ("name", "engine", "numpy"),
    [
        ("raspberry-pi-4-bookworm", ("ai-edge-litert", "2.3.0", "cp311", "aarch64"), "2.3.5"),
        ("raspberry-pi-zero-2w-bookworm", ("ai-edge-litert", "2.3.0", "cp311", "aarch64"), "2.3.5"),
        ("raspberry-pi-4-32bit-userland", ("tflite-runtime", "2.14.0", "cp311", "armv7l"), None),
        ("laptop-ubuntu-22.04", ("ai-edge-litert", "2.3.0", "cp310", "x86_64"), "2.2.6"),
        ("macos-14-apple-silicon", ("ai-edge-litert", "2.3.0", "cp312", "aarch64"), "2.3.5"),
        ("debian-11-bullseye", ("tflite-runtime", "2.14.0", "cp39", "aarch64"), "1.26.4"),
    ],
)
def test_the_best_runtime_that_loads(name: str, engine: tuple[str, ...], numpy: str | None) -> None:
    runtime = choose_runtime(golden(name))
    wheel = runtime.engine
    assert (wheel.project, wheel.version, wheel.tag, wheel.arch) == engine
    assert (runtime.numpy.version if runtime.numpy else None) == numpy
    assert runtime.folder_name.startswith(f"{engine[0]}-{engine[1]}-{engine[2]}-")


def test_old_glibc_falls_back_to_the_older_runtime() -> None:
    facts = golden("laptop-ubuntu-22.04")
    python = facts.python
    assert python is not None
    old = replace(
        facts,
        libc_version="2.28",
        libstdcxx="3.4.25",
        python=replace(python, version=(3, 9, 2), tag="cp39"),
    )
    runtime = choose_runtime(old)
    assert (runtime.engine.version, runtime.engine.needs.glibc) == ("2.11.0", (2, 27))


@pytest.mark.parametrize(
    ("name", "message", "remedy"),
    [
        (
            "alpine-busybox-without-python",
            "every runtime needs glibc, but Alpine Linux v3.19 has musl",
            "Run a system with glibc there, such as Debian or Raspberry Pi OS.",
        ),
        (
            "android-termux",
            "every runtime needs glibc, but Android 14 has bionic",
            (
                "Install a Debian with an SSH server in Termux, or bring --runtime and "
                "--runtime-program: docs/devices.md (Android)."
            ),
        ),
    ],
)
def test_what_cannot_be_served_is_said(name: str, message: str, remedy: str) -> None:
    with pytest.raises(ProvisionError) as caught:
        choose_runtime(golden(name))
    assert (caught.value.message, caught.value.remedy) == (message, remedy)


def test_no_python() -> None:
    with pytest.raises(ProvisionError) as caught:
        choose_runtime(replace(golden("raspberry-pi-4-bookworm"), python=None))
    assert caught.value.message == (
        "the runtime needs Python 3.9 to 3.14, but Debian GNU/Linux 12 (bookworm) has no python3"
    )


def with_python(name: str, version: tuple[int, int, int], **more: object) -> DeviceFacts:
    facts = golden(name)
    assert facts.python is not None
    tag = f"cp{version[0]}{version[1]}"
    python = replace(facts.python, version=version, tag=tag)
    return replace(facts, python=replace(python, **more))  # type: ignore[arg-type]  # any field


def test_old_python() -> None:
    with pytest.raises(ProvisionError) as caught:
        choose_runtime(with_python("raspberry-pi-4-bookworm", (3, 7, 3)))
    assert caught.value.message == (
        "the runtime needs CPython 3.9 to 3.14, but Debian GNU/Linux 12 (bookworm) has cp37 (3.7.3)"
    )


def test_python_of_another_width() -> None:
    with pytest.raises(ProvisionError) as caught:
        choose_runtime(with_python("raspberry-pi-4-bookworm", (3, 11, 2), bits=32))
    assert caught.value.message == "/usr/bin/python3 is a 32-bit Python in a aarch64 system"


def test_armv7_without_numpy_says_how_to_get_it() -> None:
    with pytest.raises(ProvisionError) as caught:
        choose_runtime(with_python("raspberry-pi-4-32bit-userland", (3, 11, 2), numpy=None))
    assert "tflite-runtime 2.14.0 needs numpy 1.x, which has no wheel; the device has no numpy" in (
        caught.value.message
    )
    assert caught.value.remedy == (
        "Run `sudo apt install python3-numpy` on the device, then repeat."
    )


def test_armv7_with_numpy_2_cannot_run_the_old_runtime() -> None:
    with pytest.raises(ProvisionError, match=r"the device has numpy 2\.2\.4"):
        choose_runtime(with_python("raspberry-pi-4-32bit-userland", (3, 11, 2), numpy="2.2.4"))


def test_every_reason_is_told_when_nothing_loads() -> None:
    with pytest.raises(ProvisionError) as caught:
        choose_runtime(replace(golden("raspberry-pi-4-bookworm"), libc_version="2.24"))
    assert caught.value.message == (
        "no runtime fits Debian GNU/Linux 12 (bookworm) with Python 3.11.2 on aarch64: "
        "ai-edge-litert 2.3.0 needs glibc 2.34, but Debian GNU/Linux 12 (bookworm) has 2.24; "
        "tflite-runtime 2.14.0 needs glibc 2.27, but Debian GNU/Linux 12 (bookworm) has 2.24; "
        "tflite-runtime 2.11.0 has no wheel for cp311 on Linux aarch64"
    )


@pytest.mark.parametrize(
    ("needs", "unmet"),
    [
        (SymbolNeeds(), ""),
        (SymbolNeeds(glibc=(2, 36)), ""),
        (SymbolNeeds(glibc=(2, 37)), "needs glibc 2.37, but Pi has 2.36"),
        (SymbolNeeds(glibcxx=(3, 4, 30), cxxabi=(1, 3, 13)), ""),
        (
            SymbolNeeds(glibcxx=(3, 4, 31)),
            "needs libstdc++ with GLIBCXX_3.4.31, but Pi has 3.4.30",
        ),
        (
            SymbolNeeds(glibcxx=(3, 4, 5), cxxabi=(1, 3, 15)),
            "needs libstdc++ with GLIBCXX_3.4.33, but Pi has 3.4.30",
        ),
    ],
)
def test_judging_symbol_versions(needs: SymbolNeeds, unmet: str) -> None:
    facts = replace(golden("raspberry-pi-4-bookworm"), os_name="Pi")
    assert judge_needs(needs, facts) == unmet


@pytest.mark.parametrize(
    ("changes", "unmet"),
    [
        ({"libc_version": None}, ""),
        ({"libc_version": "<2.33"}, "needs glibc 2.34, but Pi has one older than 2.33"),
        ({"libstdcxx": "3.4"}, ""),
        ({"libstdcxx": None}, "needs libstdc++ with GLIBCXX_3.4.30, but Pi has none"),
    ],
)
def test_what_a_device_does_not_tell_and_what_it_lacks(
    changes: dict[str, str | None], unmet: str
) -> None:
    facts = replace(golden("raspberry-pi-4-bookworm"), os_name="Pi", **changes)  # type: ignore[arg-type]  # any field
    assert judge_needs(SymbolNeeds(glibc=(2, 34), glibcxx=(3, 4, 30)), facts) == unmet


def test_an_old_glibc_of_unknown_version_still_gets_the_older_runtime() -> None:
    runtime = choose_runtime(replace(golden("debian-11-bullseye"), libc_version="<2.33"))
    assert (runtime.engine.project, runtime.engine.needs.glibc) == ("tflite-runtime", (2, 27))


def test_a_device_without_the_cpp_library() -> None:
    with pytest.raises(ProvisionError) as caught:
        choose_runtime(replace(golden("laptop-ubuntu-22.04"), libstdcxx=None, os_name="Lap"))
    assert "ai-edge-litert 2.3.0 needs libstdc++ with GLIBCXX_3.4.24, but Lap has none" in (
        caught.value.message
    )
    assert caught.value.remedy == (
        "Install the C++ library, libstdc++.so.6, on the device (`sudo apt install libstdc++6` on "
        "Debian), then repeat."
    )
    # On 64-bit Arm the older runtime has one of its own.
    older = choose_runtime(replace(golden("raspberry-pi-4-bookworm"), libstdcxx=None))
    assert (older.engine.project, older.engine.version) == ("tflite-runtime", "2.14.0")


def test_pins_are_whole() -> None:
    pins = load_wheels()
    assert len({wheel.file for wheel in pins}) == len(pins) == 51
    for wheel in pins:
        assert len(wheel.sha256) == 64
        assert wheel.file.startswith(
            f"{wheel.project.replace('-', '_')}-{wheel.version}-{wheel.tag}-"
        )
        assert wheel.platform in wheel.file
    arm32 = [wheel for wheel in pins if wheel.arch == "armv7l"]
    assert {wheel.xnnpack for wheel in arm32} == {False}


def test_needs_of_a_real_library_agree_with_readelf() -> None:
    path = Path(sys.modules["numpy._core._multiarray_umath"].__file__ or "")
    content = path.read_bytes()
    listed = subprocess.run(
        ["readelf", "-V", path], check=True, capture_output=True, text=True
    ).stdout
    needs = read_needs(content)
    for name, version in (("GLIBC_", needs.glibc), ("CXXABI_", needs.cxxabi)):
        words = {word for word in listed.split() if word.startswith(name)}
        numbers = [tuple(map(int, word.removeprefix(name).split("."))) for word in words]
        assert version == max(numbers)
    assert is_elf(content)


@given(st.data())
def test_damaged_elf_files_are_refused_not_followed(data: st.DataObject) -> None:
    content = bytearray(minimal_elf())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with suppress(ValueError):
        read_needs(bytes(content[: data.draw(st.integers(0, len(content)))]))


def minimal_elf() -> bytes:
    """A 64-bit file with one string table and one version need of GLIBC_2.34."""
    strings = b"\0GLIBC_2.34\0libc.so.6\0"
    needs = struct.pack("<HHIII", 1, 1, 12, 16, 0) + struct.pack("<IHHII", 0, 0, 2, 1, 0)
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head += struct.pack("<HHIQQQIHHHHHH", 3, 183, 1, 0, 0, 64, 0, 64, 0, 0, 64, 2, 0)
    at = 64 + 2 * 64
    sections = struct.pack("<IIQQQQIIQQ", 0, 3, 0, 0, at, len(strings), 0, 0, 1, 0)
    sections += struct.pack(
        "<IIQQQQIIQQ", 0, 0x6FFFFFFE, 0, 0, at + len(strings), len(needs), 0, 1, 4, 0
    )
    return head + sections + strings + needs


def test_a_minimal_elf_file() -> None:
    assert parse_machine(minimal_elf()) == "aarch64"
    assert read_needs(minimal_elf()) == SymbolNeeds(glibc=(2, 34))


@pytest.mark.parametrize("length", [0, 10, 63, 100, 200])
def test_truncated_elf_files(length: int) -> None:
    with pytest.raises(ValueError, match=r"damaged|not a little-endian"):
        read_needs(minimal_elf()[:length])


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("ai_edge_litert/interpreter.py", True),
        ("ai_edge_litert/libpywrap_litert_common.so", True),
        ("ai_edge_litert/libLiteRtWebGpuAccelerator.so", False),
        ("ai_edge_litert/vendors/qualcomm/compiler/libLiteRtCompilerPlugin_Qualcomm.so", False),
        ("ai_edge_litert-2.3.0.dist-info/licenses/LICENSE", True),
        ("numpy/_core/_multiarray_umath.cpython-311-x86_64-linux-gnu.so", True),
        ("numpy/_core/tests/test_umath.py", False),
        ("numpy/f2py/crackfortran.py", False),
        ("numpy.libs/libscipy_openblas64_-1f73132b.so", True),
        ("bin/something", False),
    ],
)
def test_what_of_a_wheel_is_sent(path: str, kept: bool) -> None:  # noqa: FBT001 - a parameter
    assert is_kept(path) is kept


def write_wheel(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("name", ["../numpy/x", "/numpy/x", "numpy/../../x"])
def test_wheels_whose_paths_leave_them_are_refused(tmp_path: Path, name: str) -> None:
    path = write_wheel(tmp_path / "w.whl", {name: b""})
    with pytest.raises(ProvisionError, match="paths leave the wheel"):
        list(unpack_wheel(path))


def test_something_else_than_a_wheel(tmp_path: Path) -> None:
    path = tmp_path / "w.whl"
    path.write_bytes(b"PK\x03\x04 but no more")
    with pytest.raises(ProvisionError, match="not a wheel"):
        list(unpack_wheel(path))


def pinned(content: bytes) -> Wheel:
    wheel = next(wheel for wheel in load_wheels() if wheel.file.startswith("numpy-2.3.5-cp311"))
    return replace(wheel, sha256=hashlib.sha256(content).hexdigest())


def test_a_cached_wheel_is_used_after_its_digest_was_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nothing"))
    wheel = pinned(b"good")
    (tmp_path / wheel.file).write_bytes(b"good")
    assert fetch_wheel(wheel, tmp_path) == tmp_path / wheel.file
    (tmp_path / wheel.file).write_bytes(b"evil")
    with pytest.raises(ProvisionError) as caught:
        fetch_wheel(wheel, tmp_path)
    assert caught.value.message.startswith(f"could not download {wheel.file}: ERROR: ")
    assert caught.value.remedy == (
        f"Connect this machine to the package index once, or put the file into {tmp_path}."
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [wheel.file]


def test_an_index_that_serves_another_file_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tmp_path / "index"
    index.mkdir()
    wheel = pinned(b"good")
    metadata = b"Metadata-Version: 2.1\nName: numpy\nVersion: 2.3.5\n"
    write_wheel(
        index / wheel.file,
        {
            "numpy-2.3.5.dist-info/METADATA": metadata,
            "numpy-2.3.5.dist-info/WHEEL": b"Wheel-Version: 1.0\nTag: cp311-cp311-any\n",
        },
    )
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    with pytest.raises(ProvisionError) as caught:
        fetch_wheel(wheel, tmp_path / "cache")
    assert f"{wheel.file}: expected sha256 {wheel.sha256[:12]}" in caught.value.message
    assert list((tmp_path / "cache").iterdir()) == []


def test_digests_name_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = choose_runtime(golden("raspberry-pi-4-bookworm"))
    before = runtime.folder_name
    monkeypatch.setattr(wheels, "_LEAVE_OUT", ())
    assert runtime.folder_name != before
