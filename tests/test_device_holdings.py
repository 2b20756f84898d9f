"""Bare models, inputs and runtimes on a device: what was used last stays, and what is in use."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.device.runtime.native import VERSION
from edgepack.device.runtime.provision import fitting_runtimes
from edgepack.device.store.deploy import place_files
from edgepack.device.store.holdings import (
    Holding,
    HoldingKind,
    choose_surplus,
    list_holdings,
)
from edgepack.device.store.layout import Layout
from edgepack.device.store.lock import LockOptions, hold_device
from edgepack.device.store.removal import remove_releases
from edgepack.device.survey.facts import read_facts
from edgepack.device.wire.local import LocalDevice
from edgepack.errors import DeployError

# Maps the file it is given, says so, and ends with its standard input.
_MAP = """
import mmap, sys
with open(sys.argv[1], "rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
print("mapped", flush=True)
sys.stdin.read()
"""


def place(root: Path, content: bytes, name: str = "model.tflite") -> str:
    return Path(place_files(LocalDevice(), {name: content}, root=str(root))).name


def install(root: Path, name: str) -> Path:
    library = root / "runtimes" / name / "site/library.so"
    library.parent.mkdir(parents=True)
    library.write_bytes(b"library")
    return library


def age(root: Path) -> None:
    """Let all folders' dates lie an hour back."""
    for folder in (*(root / "models").glob("*"), *(root / "runtimes").glob("*")):
        then = folder.stat().st_mtime - 3600
        os.utime(folder, (then, then))


def listed(root: Path) -> list[str]:
    return [each.name for each in list_holdings(LocalDevice(), Layout(root=str(root)))]


def prune(root: Path, *, keep: int, runtimes: tuple[str, ...] = ()) -> list[str]:
    layout = Layout(root=str(root))
    present = list_holdings(LocalDevice(), layout)
    surplus = choose_surplus(present, keep=keep, runtimes=runtimes)
    pruned = remove_releases(LocalDevice(), layout, (), holdings=surplus)
    assert list((root / "staging").glob("*")) == []
    return [each.name for each in pruned.holdings]


def test_what_was_used_last_stays(tmp_path: Path) -> None:
    names = []
    for number in range(3):
        names.append(place(tmp_path, b"model %d" % number))
        age(tmp_path)
    inputs = place(tmp_path, b"input", "input_0.bin")
    assert listed(tmp_path) == [*names, inputs]
    age(tmp_path)
    assert place(tmp_path, b"model 0") == names[0]  # a use, which sends nothing
    assert listed(tmp_path) == [names[1], names[2], inputs, names[0]]
    assert prune(tmp_path, keep=2) == [names[1]]
    assert prune(tmp_path, keep=2) == []
    assert prune(tmp_path, keep=1) == [names[2]]
    assert set(listed(tmp_path)) == {names[0], inputs}
    assert (tmp_path / "models" / names[0] / "model.tflite").read_bytes() == b"model 0"


def test_a_runtime_that_is_mapped_or_fits_stays(tmp_path: Path) -> None:
    libraries = []
    for name in ("a-1.0-cp39-111111111111", "a-2.0-cp39-222222222222", "b-1.0-native-333333333333"):
        libraries.append(install(tmp_path, name))
        age(tmp_path)
    oldest, middle, newest = (path.parents[1].name for path in libraries)
    with subprocess.Popen(
        [sys.executable, "-c", _MAP, libraries[0]], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"mapped\n"
        assert prune(tmp_path, keep=1) == [middle]
        process.communicate()
    assert prune(tmp_path, keep=1, runtimes=(oldest,)) == []
    assert prune(tmp_path, keep=1) == [oldest]
    assert listed(tmp_path) == [newest]


def test_what_is_the_users_is_left_alone(tmp_path: Path) -> None:
    root, shared = tmp_path / "root", tmp_path / "shared"
    model = place(root, b"model")
    for name in ("a-1.0-cp39-111111111111", "b-1.0-cp39-222222222222"):
        install(shared, name)
    (root / "runtimes").symlink_to(shared / "runtimes")
    (root / "models/my own\nfiles").mkdir()
    (root / "models" / ("0" * 64)).symlink_to(root / "models" / model)
    assert listed(root) == [model]
    shutil.rmtree(root / "models")
    assert listed(root) == []
    assert listed(tmp_path / "none") == []


def test_who_lost_the_device_removes_nothing(tmp_path: Path) -> None:
    for number in range(2):
        place(tmp_path, b"%d" % number)
    options = LockOptions(purpose="prune", wait_seconds=0)
    with hold_device(LocalDevice(), root=str(tmp_path), options=options) as held:
        with hold_device(LocalDevice(), root=f"{tmp_path}/other", options=options):
            (theirs,) = (tmp_path / "other/lock").iterdir()
            shutil.copy(theirs, tmp_path / "lock" / "2", follow_symlinks=False)
        layout = Layout(root=str(tmp_path))
        surplus = choose_surplus(list_holdings(held, layout), keep=1, runtimes=())
        assert len(surplus) == 1
        with pytest.raises(DeployError, match="another host has taken the device over"):
            remove_releases(held, layout, (), holdings=surplus, fence=held.fence)
    assert len(listed(tmp_path)) == 2


def test_both_runtimes_of_a_device_fit_it(tmp_path: Path) -> None:
    runtimes = sorted(fitting_runtimes(read_facts(LocalDevice(), str(tmp_path))))
    assert len(runtimes) == 2
    assert runtimes[0].startswith("ai-edge-litert-2.3.0-cp3")
    assert runtimes[1].startswith(f"tensorflow-lite-c-{VERSION}-native-")


@given(
    st.lists(st.tuples(st.sampled_from(HoldingKind), st.sampled_from("pqrstu")), unique=True),
    st.sets(st.sampled_from("pqrstu")),
    st.integers(1, 5),
)
def test_what_may_go(parts: list[tuple[HoldingKind, str]], fitting: set[str], keep: int) -> None:
    present = [Holding(kind=kind, name=name, disk_bytes=1) for kind, name in parts]
    surplus = choose_surplus(present, keep=keep, runtimes=fitting)
    assert set(surplus) <= set(present)
    for kind in HoldingKind:
        of_kind = [each for each in present if each.kind is kind]
        gone = [each for each in surplus if each.kind is kind]
        left = [each for each in of_kind if each not in gone]
        assert left[-1:] == of_kind[-1:]  # used last
        fits = [each for each in of_kind if kind is HoldingKind.RUNTIME and each.name in fitting]
        assert set(fits) <= set(left)
        assert len(left) >= min(len(of_kind), keep)
        assert len(left) <= max(keep, len({*fits, *left[-1:]}))
        # Whatever stays beside what must was used later than whatever goes.
        others = [each for each in left if each not in fits]
        assert not gone or gone == [each for each in of_kind if each in gone]
        assert not (gone and others) or of_kind.index(gone[-1]) < of_kind.index(others[0])
