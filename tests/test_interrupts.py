"""Ctrl-C in the middle of something that is being made."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from edgepack.device.wire.connect import ConnectOptions, open_device
from edgepack.device.wire.local import LocalDevice
from edgepack.interrupts import enter_held
from tests.fixtures.sshd import SshServer


@contextlib.contextmanager
def ctrl_c_at_each_start() -> Iterator[None]:
    """Ctrl-C whenever this thread starts another one, before that has begun."""
    real, here = threading.Thread.start, threading.current_thread()

    def start(thread: threading.Thread) -> None:
        if threading.current_thread() is here:
            signal.raise_signal(signal.SIGINT)
        real(thread)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with patch.object(threading.Thread, "start", start):
            yield
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_command_on_this_machine_does_not_outlive_a_ctrl_c_at_its_start(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    script = f"echo $$ > {pid}; exec sleep 600"
    with ctrl_c_at_each_start(), pytest.raises(KeyboardInterrupt):
        LocalDevice().run(["sh", "-c", script], timeout_seconds=30)
    if pid.exists():  # else it was ended before it began
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid.read_text()), 0)


@pytest.mark.sshd
def test_a_connection_serves_on_after_a_ctrl_c_at_the_start_of_a_command(
    ssh_server: SshServer,
) -> None:
    options = ConnectOptions(ssh_config=ssh_server.ssh_config)
    with open_device(ssh_server.address, options=options) as device:
        with ctrl_c_at_each_start(), pytest.raises(KeyboardInterrupt):
            device.run(["cat"], stdin=b"1", timeout_seconds=30)
        assert device.run(["cat"], stdin=b"2", timeout_seconds=30).stdout == b"2"


def test_a_context_that_is_entered_as_ctrl_c_comes_is_left() -> None:
    told = []

    @contextlib.contextmanager
    def make() -> Iterator[None]:
        told.append("made")
        signal.raise_signal(signal.SIGINT)
        try:
            yield
        finally:
            told.append("left")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), enter_held(make):
            told.append("used")
    finally:
        signal.signal(signal.SIGINT, before)
    assert told == ["made", "left"]
