"""What ELF files link, of this machine and of others."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.device.runtime.linkage import read_linkage
from tests.fixtures.elf import make_elf


def test_this_machines_python() -> None:
    linkage = read_linkage(Path(sys.executable).resolve().read_bytes())
    assert linkage.interpreter is not None
    assert linkage.interpreter.startswith("/lib")
    assert "libc.so.6" in linkage.needed
    assert not linkage.is_bionic


def test_a_library_of_this_machine() -> None:
    (path,) = Path(np.__file__).parent.glob("_core/_multiarray_umath.*.so")
    linkage = read_linkage(path.read_bytes())
    assert linkage.interpreter is None
    assert "PyInit__multiarray_umath" in linkage.exported
    assert "malloc" not in linkage.exported
    assert not linkage.is_bionic


@pytest.mark.parametrize("arch", ["aarch64", "armv7l", "x86_64", "i686"])
def test_a_library_for_android(arch: str) -> None:
    content = make_elf(
        arch, needed=["libc.so", "liblog.so"], exported=["TfLiteVersion"], wanted=["malloc"]
    )
    linkage = read_linkage(content)
    assert (linkage.arch, linkage.interpreter) == (arch, None)
    assert linkage.needed == ("libc.so", "liblog.so")
    assert linkage.exported == {"TfLiteVersion"}
    assert linkage.is_bionic


@pytest.mark.parametrize("arch", ["aarch64", "armv7l"])
@pytest.mark.parametrize(
    ("interpreter", "is_bionic"),
    [("/system/bin/linker64", True), ("/system/bin/linker", True), ("/lib/ld-linux.so.3", False)],
)
def test_a_program_asks_for_its_loader(arch: str, interpreter: str, *, is_bionic: bool) -> None:
    linkage = read_linkage(make_elf(arch, needed=["libc.so"], interpreter=interpreter))
    assert linkage.interpreter == interpreter
    assert linkage.is_bionic is is_bionic


WHOLE = make_elf(
    "aarch64",
    needed=["libc.so"],
    exported=["TfLiteVersion"],
    interpreter="/system/bin/linker64",
)


@given(
    length=st.integers(0, len(WHOLE)),
    changes=st.dictionaries(st.integers(0, len(WHOLE) - 1), st.integers(0, 255), max_size=8),
)
def test_a_damaged_file_is_read_or_refused(length: int, changes: dict[int, int]) -> None:
    content = bytearray(WHOLE)
    for at, value in changes.items():
        content[at] = value
    try:
        read_linkage(bytes(content[:length]))
    except ValueError as error:
        assert str(error)  # noqa: PT017 - both outcomes are right
