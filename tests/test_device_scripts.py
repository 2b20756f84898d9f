"""What runs on devices is written for the plainest of them: POSIX shells, and Python 3.7."""

import ast
import importlib
import json
import pkgutil
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgepack.device
import edgepack.runner
from edgepack.device.store.packing import cut_command, index_by_digest, join_pack
from edgepack.device.store.payload import describe_file
from edgepack.device.survey.probe import PYTHON_PROBE

SHELLS = ("dash", "bash --posix", "mksh", "busybox sh")


def scripts() -> Iterator[tuple[str, str]]:
    """Name and text of each script that stands as a constant in a module of devices."""
    for module in pkgutil.walk_packages(edgepack.device.__path__, "edgepack.device."):
        found = vars(importlib.import_module(module.name))
        for name, value in found.items():
            if name.strip("_").isupper() and isinstance(value, str) and value.count("\n") > 1:
                yield f"{module.name.rpartition('.')[2]}.{name}", value


SCRIPTS = dict(scripts())
PYTHON = {
    name for name, text in SCRIPTS.items() if re.search(r"^(import|from) ", text, re.MULTILINE)
}
RUNNERS = [Path(edgepack.runner.__path__[0], name) for name in ("tflite.py",)]


def test_there_are_scripts_of_both_kinds() -> None:
    assert {"inventory._INVENTORY", "switching._SWITCH", "state.STATE_SCRIPT"} <= SCRIPTS.keys()
    assert {"probe.PYTHON_PROBE", "provision._CHECK", "packing._CUT"} <= PYTHON


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_can_read_them(shell: str) -> None:
    name, *more = shell.split()
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"{name} is not installed")
    for title in SCRIPTS.keys() - PYTHON:
        read = subprocess.run(
            [program, *more, "-n", "-c", SCRIPTS[title]],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (read.returncode, read.stderr) == (0, ""), title


def test_every_python_since_3_7_can_read_them() -> None:
    for title in PYTHON:
        ast.parse(SCRIPTS[title], feature_version=(3, 7))
    for path in RUNNERS:
        ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))


def interpreters() -> dict[str, str]:
    """Interpreters of this machine by version, this one among them."""
    found = {f"{sys.version_info[0]}.{sys.version_info[1]}": sys.executable}
    candidates = [
        *Path("/usr/bin").glob("python3.*"),
        *(Path.home() / ".pyenv" / "versions").glob("*/bin/python3.*"),
    ]
    for path in candidates:
        version = path.name.removeprefix("python")
        if re.fullmatch(r"3\.(7|8|9|\d\d)", version):
            found.setdefault(version, str(path))
    return found


def test_the_pythons_that_are_here_run_them(tmp_path: Path) -> None:
    files = [describe_file("a", b"1" * 10), describe_file("b", b"")]
    index = index_by_digest(files)
    for version, python in interpreters().items():
        asked = subprocess.run(
            [python, "-I", "-c", PYTHON_PROBE], capture_output=True, text=True, check=False
        )
        told = json.loads(asked.stdout)
        assert told["version"][:2] == [int(part) for part in version.split(".")]
        assert (asked.returncode == 0) == (tuple(told["version"][:2]) >= (3, 9))
        folder = tmp_path / version
        folder.mkdir()
        (tmp_path / "pack").write_bytes(join_pack(files))
        argv = cut_command(python, str(tmp_path / "pack"), str(folder))
        subprocess.run(argv, input=index, check=True, capture_output=True)
        assert (folder / "a").read_bytes() == b"1" * 10
