"""Facts: what captured answers of devices are read as."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.device.survey.elf import parse_machine
from edgepack.device.survey.facts import (
    DeviceFacts,
    PythonFacts,
    parse_facts,
    read_answer,
    read_facts,
    to_json,
)
from edgepack.device.wire.local import LocalDevice
from edgepack.errors import DeviceError, UsageError

GOLDEN = Path(__file__).parent / "golden" / "facts"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.txt"))


def golden(name: str) -> DeviceFacts:
    return read_answer((GOLDEN / f"{name}.txt").read_text(), root="/home/pi/.edgepack")


def test_raspberry_pi_4() -> None:
    assert golden("raspberry-pi-4-bookworm") == DeviceFacts(
        system="Linux",
        arch="aarch64",
        kernel="6.6.51+rpt-rpi-v8",
        kernel_arch="aarch64",
        os_id="debian",
        os_version="12",
        os_name="Debian GNU/Linux 12 (bookworm)",
        libc="glibc",
        libc_version="2.36",
        libstdcxx="3.4.30",
        cpu="Cortex-A72",
        cpu_features=("asimd", "cpuid", "crc32", "evtstrm", "fp"),
        num_cores=4,
        ram_bytes=3885396 * 1024,
        board="Raspberry Pi 4 Model B Rev 1.5",
        python=PythonFacts(
            path="/usr/bin/python3",
            version=(3, 11, 2),
            tag="cp311",
            bits=64,
            platform="linux-aarch64",
            numpy="1.24.2",
        ),
        root="/home/pi/.edgepack",
        free_bytes=23945100 * 1024,
        clock_s=1767225600,
    )


@pytest.mark.parametrize(
    ("name", "arch", "libc", "cpu", "board"),
    [
        (
            "raspberry-pi-5-bookworm",
            "aarch64",
            "glibc",
            "Cortex-A76",
            "Raspberry Pi 5 Model B Rev 1.0",
        ),
        (
            "raspberry-pi-zero-2w-bookworm",
            "aarch64",
            "glibc",
            "Cortex-A53",
            "Raspberry Pi Zero 2 W Rev 1.0",
        ),
        (
            "raspberry-pi-4-32bit-userland",
            "armv7l",
            "glibc",
            "Cortex-A72",
            "Raspberry Pi 4 Model B Rev 1.4",
        ),
        (
            "laptop-ubuntu-22.04",
            "x86_64",
            "glibc",
            "11th Gen Intel(R) Core(TM) i7-1165G7 @ 2.80GHz",
            "ThinkPad X1 Carbon Gen 9 (20XW)",
        ),
        ("alpine-busybox-without-python", "aarch64", "musl", "Cortex-A53", None),
        ("openwrt-without-od", "armv7l", "musl", "Cortex-A7", "Linksys WRT1200AC"),
        ("android-termux", "aarch64", "bionic", "Cortex-A55", "Pixel 7"),
        ("macos-14-apple-silicon", "aarch64", "libsystem", "Apple M2", "Mac14,2"),
        ("x86-vm-debian12", "x86_64", "glibc", "AMD EPYC", None),
        ("emulated-pi4", "aarch64", "glibc", "Cortex-A72", "Raspberry Pi 4 Model B Rev 1.5"),
    ],
)
def test_what_a_device_is(name: str, arch: str, libc: str, cpu: str, board: str | None) -> None:
    facts = golden(name)
    assert (facts.arch, facts.libc, facts.cpu, facts.board) == (arch, libc, cpu, board)


def test_architecture_is_the_userlands_not_the_kernels() -> None:
    facts = golden("raspberry-pi-4-32bit-userland")
    assert (facts.kernel_arch, facts.arch) == ("aarch64", "armv7l")
    assert facts.python is not None
    assert facts.python.bits == 32


def test_dot_product_is_seen_on_a_pi_5_and_not_on_a_pi_4() -> None:
    assert "asimddp" in golden("raspberry-pi-5-bookworm").cpu_features
    assert "asimddp" not in golden("raspberry-pi-4-bookworm").cpu_features


def test_libstdcxx_of_another_architecture_does_not_count() -> None:
    assert golden("laptop-ubuntu-22.04").libstdcxx == "3.4.30"


def test_long_device_names_of_df_break_lines() -> None:
    assert golden("alpine-busybox-without-python").free_bytes == 6486956 * 1024


def answer(**sections: str) -> str:
    """What a device of these sections says."""
    given = {"uname": "Linux 6.1 aarch64", **sections, "end": ""}
    return "".join(f"\n@@{name}\n{text}\n" for name, text in given.items())


@pytest.mark.parametrize(
    ("sections", "name", "libc"),
    [
        ({"android": "14\nPixel 7", "bionic": "/system/bin/linker64"}, "Android 14", "bionic"),
        ({"bionic": "/system/bin/linker64"}, "Android", "bionic"),
        ({"android": "14", "os": "ID=debian", "glibc": "glibc 2.36"}, None, "glibc"),
        (
            {"bionic": "/system/bin/linker64", "loaders": "/lib/ld-linux-aarch64.so.1"},
            "Android",
            "glibc",
        ),
    ],
)
def test_android_has_its_own_c_library(
    sections: dict[str, str], name: str | None, libc: str
) -> None:
    facts = read_answer(answer(**sections), root="/data/local/tmp/.edgepack")
    assert (facts.os_name, facts.libc) == (name, libc)


def test_clock_of_a_board_without_a_battery() -> None:
    assert not golden("raspberry-pi-zero-2w-bookworm").clock_is_plausible
    assert golden("raspberry-pi-5-bookworm").clock_is_plausible


def test_chatter_before_the_interpreters_answer_is_passed_over() -> None:
    python = golden("macos-14-apple-silicon").python
    assert python is not None
    assert (python.path, python.tag) == ("/opt/homebrew/opt/python@3.12/bin/python3.12", "cp312")


def answer_with_pythons(*lines: str) -> DeviceFacts:
    text = (GOLDEN / "alpine-busybox-without-python.txt").read_text()
    return read_answer(
        text.replace("@@python\n", "@@python\n" + "\n".join(lines) + "\n"), root="/r"
    )


def python_line(*, version: str, bits: int = 64, **more: str) -> str:
    path, flags = more.get("path", f"/usr/bin/python{version}"), more.get("abiflags", "")
    major, minor = version.split(".")
    return (
        f'{{"path": "{path}", "version": [{major}, {minor}, 1], "bits": {bits}, '
        f'"implementation": "cpython", "abiflags": "{flags}", "platform": "linux", "numpy": null}}'
    )


@pytest.mark.parametrize(
    ("lines", "tag"),
    [
        ([python_line(version="3.7"), python_line(version="3.11")], "cp311"),
        ([python_line(version="3.15"), python_line(version="3.14")], "cp314"),
        ([python_line(version="3.13", abiflags="t"), python_line(version="3.12")], "cp312"),
        ([python_line(version="3.13", bits=32), python_line(version="3.11", bits=32)], "cp311"),
        ([python_line(version="3.7")], "cp37"),
    ],
)
def test_the_best_fitting_interpreter_is_chosen(lines: list[str], tag: str) -> None:
    python = answer_with_pythons(*lines).python
    assert python is not None
    assert python.tag == tag


@pytest.mark.parametrize(
    "line",
    [
        python_line(version="3.11", path="python3"),
        python_line(version="3.11", path="/usr/bin/py\\u001b[2Jthon"),
        '{"path": "/usr/bin/python3"}',
        "[1, 2",
        '"text"',
        python_line(version="3.11", bits=128),
    ],
)
def test_a_strange_interpreter_is_none(line: str) -> None:
    assert answer_with_pythons(line).python is None


def test_control_characters_do_not_reach_the_terminal() -> None:
    text = (GOLDEN / "raspberry-pi-4-bookworm.txt").read_text()
    facts = read_answer(
        text.replace("Raspberry Pi 4 Model B Rev 1.5", "Pi\x1b]0;owned\x07 4" + "x" * 9000),
        root="/",
    )
    assert facts.board is not None
    assert facts.board.isprintable()
    assert len(facts.board) <= 200


def test_an_answer_of_something_else_is_refused() -> None:
    with pytest.raises(DeviceError) as caught:
        read_answer("Welcome to RouterOS 7\n> ", root="/r")
    assert caught.value.message == (
        "the device did not answer the question what it is: expected a POSIX shell, "
        "got 'Welcome to RouterOS 7 >'"
    )


@pytest.mark.parametrize("name", NAMES)
def test_json_gives_the_same_facts_back(name: str) -> None:
    facts = golden(name)
    assert parse_facts(to_json(facts)) == facts


def test_changed_json_is_refused_with_all_faults() -> None:
    table = to_json(golden("raspberry-pi-4-bookworm"))
    table["arch"], table["num_cores"], table["colour"] = 3, -1, "red"
    with pytest.raises(DeviceError) as caught:
        parse_facts(table)
    assert (
        caught.value.message
        == (
            "device facts: 3 faults\n"
            "  - arch: expected a text, not a whole number (3)\n"
            "  - num_cores: expected at least 0, not -1\n"
            "  - colour: unknown key; did you mean 'clock_s'?"
        )
        or "colour: unknown key" in caught.value.message
    )


@given(st.text(max_size=400))
def test_any_section_content_is_survived(noise: str) -> None:
    text = (GOLDEN / "raspberry-pi-4-bookworm.txt").read_text()
    for section in ("shell", "os", "ldd", "cpuinfo", "python", "disk", "clock", "meminfo"):
        facts = read_answer(text.replace(f"@@{section}\n", f"@@{section}\n{noise}\n"), root="/r")
        assert facts.arch in {"aarch64", "armv7l", "x86_64"} or facts.arch.isprintable()


@given(st.binary(max_size=64))
def test_elf_headers_never_raise(header: bytes) -> None:
    parse_machine(header)
    parse_machine(b"\x7fELF" + header)


def test_this_machine(tmp_path: Path) -> None:
    facts = read_facts(LocalDevice(), str(tmp_path / "not" / "yet"))
    assert facts.root == str(tmp_path / "not" / "yet")
    assert facts.num_cores
    assert facts.free_bytes
    assert facts.python is not None
    assert Path(facts.python.path).exists()
    assert facts.clock_is_plausible


@pytest.mark.parametrize("root", ["relative", "/", "~", "/a/../b", "/a b", "/a;rm", "~root/x", ""])
def test_roots_that_could_lead_elsewhere_are_refused(root: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_facts(LocalDevice(), root)
    assert caught.value.message.startswith("deploy root: expected an absolute path")


def test_home_is_the_devices() -> None:
    facts = read_facts(LocalDevice(), "~/.edgepack-elsewhere")
    assert facts.root == str(Path.home() / ".edgepack-elsewhere")


@pytest.mark.parametrize(
    ("loaders", "libc"),
    [
        (
            (
                "/lib64/ld-linux-x86-64.so.2",
                "ld.so (Debian GLIBC 2.36-9+deb12u14) stable release version 2.36.",
                "Copyright (C) 2022 Free Software Foundation, Inc.",
            ),
            ("glibc", "2.36"),
        ),
        (("/lib/ld-linux-armhf.so.3", "sh: /lib/ld-linux-armhf.so.3: not found"), ("glibc", None)),
        (
            (
                "/lib/ld-linux-armhf.so.3",
                "ld.so: --version: cannot open shared object file",
            ),
            ("glibc", "<2.33"),
        ),
        (("/lib/ld-musl-x86_64.so.1", "musl libc (x86_64)", "Version 1.2.3"), ("musl", "1.2.3")),
    ],
)
def test_a_c_library_without_getconf_and_ldd_is_named_by_its_loader(
    loaders: tuple[str, ...], libc: tuple[str, str | None]
) -> None:
    facts = read_answer(answer(loaders="\n".join(loaders)), root="/x")
    assert (facts.libc, facts.libc_version) == libc


@pytest.mark.parametrize(
    ("sections", "libc"),
    [
        ({"libc": "/lib/aarch64-linux-gnu/libc.so.6 libc-2.31.so"}, ("glibc", "2.31")),
        ({"libc": "/lib64/libc.so.6 libc-2.17.so"}, ("glibc", "2.17")),
        ({"libc": "/lib/x86_64-linux-gnu/libc.so.6 libc-2.31.so"}, ("glibc", None)),
        ({"libc": "/lib/libc.so.6 elsewhere"}, ("glibc", None)),
        ({"python": '{"path": "/usr/bin/python3", "libc": "glibc 2.36"}'}, ("glibc", "2.36")),
    ],
)
def test_a_loader_that_tells_no_version(
    sections: dict[str, str], libc: tuple[str, str | None]
) -> None:
    loader = "/lib/ld-linux-aarch64.so.1"
    facts = read_answer(answer(loaders=loader, **sections), root="/x")
    assert (facts.libc, facts.libc_version) == libc


def test_what_python_says_of_its_c_library_counts_where_nothing_else_does() -> None:
    python = '{"path": "/nix/python3", "libc": "glibc 2.38"}'
    assert read_answer(answer(python=python), root="/x").libc_version == "2.38"
    assert read_answer(answer(), root="/x").libc is None
    told = read_answer(answer(python=python, glibc="glibc 2.36"), root="/x")
    assert told.libc_version == "2.36"


@pytest.mark.parametrize(
    ("lines", "newest"),
    [
        ((), None),
        (("/usr/lib/libstdc++.so.6",), "3.4"),
        (("/usr/lib/libstdc++.so.6 /usr/lib/libstdc++.so.6",), "3.4"),
        (("/usr/lib/libstdc++.so.6 /usr/lib/libstdc++.so.6.0.33",), "3.4.33"),
        (("/usr/lib/i386-linux-gnu/libstdc++.so.6 /usr/lib/libstdc++.so.6.0.33",), None),
    ],
)
def test_a_cpp_library_that_does_not_tell_its_version_is_there(
    lines: tuple[str, ...], newest: str | None
) -> None:
    facts = read_answer(answer(libstdcxx="\n".join(lines)), root="/x")
    assert facts.libstdcxx == newest
