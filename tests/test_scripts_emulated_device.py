"""`scripts/emulated-device`: a board is started, shown, logged in to, stopped."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Script = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def script(repository: Path) -> Iterator[Script]:
    """The script, with a folder of its own for its boards, which are stopped at the end."""
    with tempfile.TemporaryDirectory(prefix="edgepack-boards-") as folder:

        def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
            return subprocess.run(
                [sys.executable, repository / "scripts" / "emulated-device", *arguments],
                env={**os.environ, "XDG_RUNTIME_DIR": folder},
                capture_output=True,
                text=True,
                check=False,
                timeout=600,
            )

        yield run
        run("stop", "--all")


@pytest.mark.emulated
@pytest.mark.xdist_group("boards")
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("board_image")
def test_a_board_from_start_to_stop(script: Script) -> None:
    started = script("start", "raspberry-pi-3")
    assert started.returncode == 0, started.stderr
    address = re.search(r"^raspberry-pi-3 +(pi@127\.0\.0\.1:\d+) ", started.stdout)
    assert address is not None
    assert f"try:   edgepack bench MODEL.tflite {address[1]} --ssh-config " in started.stdout
    assert started.stdout.endswith("No latency measured on it means anything.\n")
    assert script("start", "raspberry-pi-3").stdout == started.stdout  # it runs already
    shown = script("status")
    assert shown.stdout.split()[:2] == ["raspberry-pi-3", address[1]]
    model = script("ssh", "raspberry-pi-3", "tr -d '\\0' < /proc/device-tree/model; uname -m")
    assert model.stdout == "Raspberry Pi 3 Model B Plus Rev 1.3aarch64\n"
    stopped = script("stop", "raspberry-pi-3")
    assert (stopped.returncode, stopped.stdout) == (0, "raspberry-pi-3 is off\n")
    shown = script("status")
    assert (shown.stdout, shown.stderr) == ("", "no emulated device runs\n")


def test_nothing_runs_yet(script: Script) -> None:
    refused = script("ssh", "raspberry-pi-5", "true")
    assert refused.returncode == 1
    assert refused.stderr == "emulated-device: raspberry-pi-5 does not run; start it first\n"
    stopped = script("stop", "raspberry-pi-5")
    assert (stopped.returncode, stopped.stderr) == (0, "raspberry-pi-5 does not run\n")
    assert script("start", "raspberry-pi-9").returncode == 2
