"""sha256 on devices: by every program that may be there, and by none."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.device.wire.hashing import SHA256_FUNCTION, read_hashes
from edgepack.device.wire.local import LocalDevice

CONTENT = b"\0weights\n" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
PROGRAMS = {
    "sha256sum": ("sha256sum",),
    "shasum -a 256": ("shasum", "perl"),
    "openssl dgst -sha256 -r": ("openssl",),
    "busybox sha256sum": ("busybox",),
    "toybox sha256sum": ("toybox",),
    "cksum -a sha256 --untagged": ("cksum",),
    "hash_with_perl": ("perl",),
    "hash_with_python": ("python3",),
}
SHELLS = ("dash", "bash", "mksh", "busybox sh")


def install(folder: Path, *programs: str) -> None:
    for name in programs:
        source = shutil.which(name, path="/usr/bin:/bin")
        if source is None:
            pytest.skip(f"{name} is not installed")
        (folder / name).symlink_to(source)


def hash_there(folder: Path, script: str, *, shell: str = "dash") -> str:
    name, *more = shell.split()
    program = shutil.which(name, path="/usr/bin:/bin")
    if program is None:
        pytest.skip(f"{name} is not installed")
    ran = subprocess.run(
        [program, *more, "-c", SHA256_FUNCTION + script],
        env={"PATH": str(folder)},
        input=CONTENT,
        capture_output=True,
        check=True,
    )
    return ran.stdout.decode()


@pytest.mark.parametrize("program", list(PROGRAMS))
def test_each_program_alone_serves(tmp_path: Path, program: str) -> None:
    install(tmp_path, *PROGRAMS[program])
    used, told = hash_there(tmp_path, 'echo "$hash_with"; sha256').split("\n", 1)
    assert used == program
    assert told.split()[0] == DIGEST


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_reads_it(tmp_path: Path, shell: str) -> None:
    install(tmp_path, "openssl", "printf")  # which is no part of mksh
    told = hash_there(tmp_path, "sha256", shell=shell)
    assert told.split()[0] == DIGEST


def test_what_only_looks_like_a_program_is_passed_over(tmp_path: Path) -> None:
    install(tmp_path, "perl")
    for name, line in (
        ("sha256sum", "echo this build has no sha256 >&2; exit 1"),
        ("openssl", "echo 0000000000000000000000000000000000000000000000000000000000000000"),
        ("python3", "echo 'xcode-select: note: no developer tools were found' >&2; exit 1"),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    assert hash_there(tmp_path, "sha256").split()[0] == DIGEST


def test_a_preferred_program_goes_first(tmp_path: Path) -> None:
    install(tmp_path, "sha256sum", "openssl")
    script = "prefer 'openssl dgst -sha256 -r'; echo \"$hash_with\""
    assert hash_there(tmp_path, script) == "openssl dgst -sha256 -r\n"


def test_without_any_program_the_bytes_are_read_back(tmp_path: Path) -> None:
    assert hash_there(tmp_path, "sha256") == "-\n"
    (tmp_path / "a b").write_bytes(CONTENT)
    (tmp_path / "longer").write_bytes(CONTENT + b"x")
    sizes = dict.fromkeys(("a b", "longer", "absent", "known"), len(CONTENT))
    lines = ["- a b", "- longer", "- absent", "- unasked", f"{'0' * 64} known", "chatter"]
    digests = read_hashes(LocalDevice(), lines, folder=str(tmp_path), sizes=sizes)
    assert digests.keys() == {"a b", "longer", "known"}
    assert digests["a b"] == DIGEST
    assert digests["longer"] != DIGEST
    assert digests["known"] == "0" * 64


@given(lines=st.lists(st.text()), paths=st.lists(st.text(min_size=1)))
def test_a_devices_words_make_no_digest(lines: list[str], paths: list[str]) -> None:
    sizes = dict.fromkeys(paths, 1)
    told = [line for line in lines if not line.startswith("- ")]
    digests = read_hashes(LocalDevice(), told, folder="/nowhere", sizes=sizes)
    assert digests.keys() <= set(paths)
    assert all(len(digest) == 64 for digest in digests.values())
