"""What `transport.Device` promises, kept by every wire."""

import hashlib
import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgepack.device.wire.connect import ConnectOptions, open_device
from edgepack.device.wire.transport import Device
from edgepack.errors import DeviceError, DeviceTimeoutError
from tests.fixtures.adbd import AdbServer, start_adbd, without_rights
from tests.fixtures.sshd import SshServer, SshServers

IS_ROOT = os.geteuid() == 0
NOBODY = 65534
WIRES = [
    "local",
    pytest.param("adb", marks=pytest.mark.adb),
    pytest.param("ssh", marks=pytest.mark.sshd),
]


@pytest.fixture(scope="module", params=WIRES)
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    if request.param == "local":
        with open_device("local:") as opened:
            yield opened
        return
    if request.param == "adb":
        server = request.getfixturevalue("adb_server")
        assert isinstance(server, AdbServer)
        with server.in_use(), start_adbd() as phone, open_device(phone.address) as opened:
            yield opened
        return
    server = request.getfixturevalue("ssh_server")
    assert isinstance(server, SshServer)
    options = ConnectOptions(ssh_config=server.ssh_config)
    with open_device(server.address, options=options) as opened:
        yield opened


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """A folder of this user's alone, made before its rights are given up."""
    tmp_path.chmod(0o700)
    return tmp_path


@pytest.fixture(params=WIRES)
def powerless(request: pytest.FixtureRequest) -> Iterator[Device]:
    """A device whose login has no rights of root's, so that the system refuses it something."""
    if not IS_ROOT:
        pytest.skip("giving up rights needs some; CI is root")
    if request.param == "local":
        os.seteuid(NOBODY)
        try:
            with open_device("local:") as opened:
                yield opened
        finally:
            os.seteuid(0)
        return
    if request.param == "adb":
        server = request.getfixturevalue("adb_server")
        assert isinstance(server, AdbServer)
        with (
            server.in_use(),
            start_adbd(user_id=NOBODY) as phone,
            open_device(phone.address) as opened,
        ):
            yield opened
        return
    servers = request.getfixturevalue("ssh_servers")
    assert isinstance(servers, SshServers)
    words = " ".join(without_rights(NOBODY))
    login = servers.start(f'ForceCommand exec {words} sh -c "$SSH_ORIGINAL_COMMAND"')
    options = ConnectOptions(ssh_config=login.ssh_config)
    with open_device(login.address, options=options) as opened:
        yield opened


def subject(device: Device) -> str:
    """How messages begin."""
    return device.name if device.name == "local:" else f"{device.name}:"


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in {"Z", "X"}


def await_end(pid: int) -> bool:
    """Tell whether a process ends within 5 s."""
    deadline = time.monotonic() + 5
    while is_alive(pid) and time.monotonic() < deadline:
        threading.Event().wait(0.02)
    return not is_alive(pid)


def test_output_and_exit_code(device: Device) -> None:
    result = device.run(["sh", "-c", "echo out; echo err >&2; exit 7"], timeout_seconds=10)
    assert (result.exit_code, result.stdout, result.stderr) == (7, b"out\n", "err\n")
    assert result.text == "out\n"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_signal_is_128_and_its_number(device: Device, number: signal.Signals) -> None:
    result = device.run(["sh", "-c", f"kill -{number.value} $$"], timeout_seconds=10)
    assert result.exit_code == 128 + number


def test_a_missing_program_is_127(device: Device) -> None:
    result = device.run(["no-such-program-here", "x"], timeout_seconds=10)
    assert result.exit_code == 127
    assert "no-such-program-here: not found" in result.stderr


def test_a_file_that_is_no_program_is_126(device: Device, tmp_path: Path) -> None:
    path = tmp_path / "plain"
    path.write_text("echo no")
    result = device.run([str(path)], timeout_seconds=10)
    assert result.exit_code == 126
    assert "Permission denied" in result.stderr


@pytest.mark.parametrize("word", ["exit", "A=b", "if", "cd"])
def test_a_word_of_the_shell_is_no_program(device: Device, word: str) -> None:
    assert device.run([word, "3"], timeout_seconds=10).exit_code == 127


def test_stdin_reaches_the_command(device: Device) -> None:
    data = bytes(range(256)) * 40_000  # more than any pipe or window holds
    result = device.run(["cat"], stdin=data, timeout_seconds=60)
    assert result.stdout == data


def test_stdin_is_closed_when_empty(device: Device) -> None:
    assert device.run(["cat"], timeout_seconds=10).stdout == b""


def test_stdin_nobody_reads_is_no_fault(device: Device) -> None:
    assert device.run(["true"], stdin=b"x" * 10_000_000, timeout_seconds=30).exit_code == 0


def test_much_stderr_stops_nothing(device: Device) -> None:
    script = "head -c 5000000 /dev/zero | tr '\\0' e >&2; echo done"
    result = device.run(["sh", "-c", script], timeout_seconds=60)
    assert result.stdout == b"done\n"
    assert 0 < len(result.stderr) <= 65536


def test_too_much_output_stops_the_command(device: Device) -> None:
    with pytest.raises(DeviceError) as caught:
        device.run(["cat", "/dev/zero"], timeout_seconds=30, max_output_bytes=100_000)
    assert caught.value.message == (
        f"{subject(device)} cat /dev/zero wrote more than 100000 bytes; it was stopped."
    )


def test_output_up_to_the_bound_is_taken(device: Device) -> None:
    argv = ["head", "-c", "100000", "/dev/zero"]
    result = device.run(argv, timeout_seconds=30, max_output_bytes=100_000)
    assert len(result.stdout) == 100_000


def test_a_command_that_hangs_is_named_and_stopped(device: Device, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"sleep 600 & echo $! > {pids}; sleep 601"
    with pytest.raises(DeviceTimeoutError) as caught:
        device.run(["sh", "-c", script], timeout_seconds=1)
    shown = shlex.join(["sh", "-c", script])
    shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
    assert caught.value.message == (
        f"{subject(device)} {shown} did not end within 1 s; it was stopped."
    )
    assert caught.value.remedy == "See whether the device is overloaded, or allow more time."
    assert await_end(int(pids.read_text()))


def test_a_command_that_ignores_term_is_killed(device: Device, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"trap '' TERM; echo $$ > {pids}; while :; do sleep 600; done"
    with pytest.raises(DeviceTimeoutError):
        device.run(["sh", "-c", script], timeout_seconds=1)
    assert await_end(int(pids.read_text()))


def test_lines_come_as_they_are_written(device: Device, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    script = f"echo one; read line < {fifo}; printf 'two %s' \"$line\""
    with device.stream(["sh", "-c", script], timeout_seconds=20) as lines:
        assert next(lines) == b"one"  # although the command still waits
        fifo.write_text("go\n")
        assert list(lines) == [b"two go"]


def test_empty_and_long_lines(device: Device) -> None:
    script = "echo; echo; head -c 300000 /dev/zero; echo; echo end"
    with device.stream(["sh", "-c", script], timeout_seconds=20) as lines:
        assert list(lines) == [b"", b"", b"\0" * 300_000, b"end"]


def test_a_line_too_long_is_refused(device: Device) -> None:
    with (
        pytest.raises(DeviceError) as caught,
        device.stream(["cat", "/dev/zero"], timeout_seconds=20, max_line_bytes=1000) as lines,
    ):
        list(lines)
    assert caught.value.message == (
        f"{subject(device)} cat /dev/zero wrote a line of more than 1000 bytes; it was stopped."
    )


def test_a_stream_that_fails_says_why(device: Device) -> None:
    script = "echo one; echo broken >&2; exit 3"
    with (
        pytest.raises(DeviceError) as caught,
        device.stream(["sh", "-c", script], timeout_seconds=20) as lines,
    ):
        list(lines)
    assert caught.value.message == (
        f"{subject(device)} sh -c 'echo one; echo broken >&2; exit 3' "
        "ended with exit code 3: broken"
    )


def test_a_stream_that_hangs_is_stopped(device: Device) -> None:
    with (
        pytest.raises(DeviceTimeoutError, match="did not end within 1 s; it was stopped"),
        device.stream(["sh", "-c", "echo one; sleep 600"], timeout_seconds=1) as lines,
    ):
        list(lines)


def test_leaving_a_stream_early_stops_the_command(device: Device) -> None:
    script = "echo $$; sleep 600 & echo $!; wait"
    with device.stream(["sh", "-c", script], timeout_seconds=60) as lines:
        pids = [int(next(lines)), int(next(lines))]
        assert all(is_alive(pid) for pid in pids)
    assert all(await_end(pid) for pid in pids)


def test_an_interrupt_stops_the_command(device: Device, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"echo $$ > {pids}; echo on; sleep 600"

    def interrupted() -> None:
        with device.stream(["sh", "-c", script], timeout_seconds=60) as lines:
            next(lines)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert await_end(int(pids.read_text()))


ODD = [
    "", " ", "a b", "'", '"', "it's", "$HOME", "`id`", "$(id)", "\\", "\\\\n", "!", "!!", "a!b",
    "\n", "a\nb\n", "\t", "*", "?", "[a]", "{a,b}", "~", "#", "-n", "--", ";", "&", "|", "<>", "()",
    "%s", "%", "é", "日本語", "😀", "a=b", "\r", "\x01", "\x7f", "'\\''", "\\'", "$n",
    '"$n"', "^a^b",
]  # fmt: skip


def test_odd_arguments_arrive_as_they_are(device: Device) -> None:
    result = device.run(["printf", "%s\\0", *ODD], timeout_seconds=20)
    assert result.stdout.decode().split("\0")[:-1] == ODD


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    arguments=st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), max_size=5
    )
)
def test_any_arguments_arrive_as_they_are(device: Device, arguments: list[str]) -> None:
    result = device.run(["printf", "%s\\0", "first", *arguments], timeout_seconds=20)
    assert result.stdout.decode().split("\0")[1:-1] == arguments


def test_a_nul_or_an_empty_argv_is_our_own_fault(device: Device) -> None:
    with pytest.raises(ValueError, match=r"NUL|null"):
        device.run(["echo", "a\0b"], timeout_seconds=10)
    with pytest.raises(ValueError, match="empty argv"):
        device.run([], timeout_seconds=10)


@pytest.mark.parametrize("num_bytes", [0, 1, 262_144, 3_000_001])
@pytest.mark.parametrize("kind", ["bytes", "file"])
def test_upload(device: Device, tmp_path: Path, num_bytes: int, kind: str) -> None:
    data = os.urandom(num_bytes)
    source: bytes | Path = data
    if kind == "file":
        source = tmp_path / "source"
        source.write_bytes(data)
    target = tmp_path / "it's a target"
    sent: list[int] = []
    digest = device.upload(source, str(target), timeout_seconds=30, on_progress=sent.append)
    assert digest == hashlib.sha256(data).hexdigest()
    assert target.read_bytes() == data
    assert sum(sent) == num_bytes
    assert {path.name for path in tmp_path.iterdir()} <= {"source", "it's a target"}


@pytest.mark.parametrize("mode", [0o644, 0o755, 0o600])
def test_upload_sets_the_mode(device: Device, tmp_path: Path, mode: int) -> None:
    target = tmp_path / "target"
    device.upload(b"x", str(target), timeout_seconds=10, mode=mode)
    assert target.stat().st_mode & 0o7777 == mode


def test_upload_leaves_readers_what_they_read(device: Device, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("old")
    with target.open() as reader:
        device.upload(b"new", str(target), timeout_seconds=10)
        assert reader.read() == "old"
    assert target.read_text() == "new"


def test_upload_without_a_folder(device: Device, tmp_path: Path) -> None:
    target = tmp_path / "absent" / "target"
    with pytest.raises(DeviceError) as caught:
        device.upload(b"x" * 5_000_000, str(target), timeout_seconds=10)
    assert caught.value.message.startswith(f"{subject(device)} {target} could not be stored: ")
    assert caught.value.remedy == "Make the folder on the device first."


def test_upload_without_permission(private: Path, powerless: Device) -> None:
    target = f"{private}/target"
    with pytest.raises(DeviceError) as caught:
        powerless.upload(b"x", target, timeout_seconds=10)
    assert caught.value.message.startswith(f"{subject(powerless)} {target} could not be stored: ")
    assert caught.value.message.endswith("Permission denied")
    assert caught.value.remedy == (
        "Choose a --root the user may write to, or log in as another user."
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder that holds one MiB."""
    if not IS_ROOT:
        pytest.skip("mounting a small disk needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_upload_to_a_full_disk(device: Device, small_disk: Path) -> None:
    (small_disk / "target").write_text("old")
    with pytest.raises(DeviceError) as caught:
        device.upload(b"x" * 20_000_000, str(small_disk / "target"), timeout_seconds=30)
    assert "No space left on device" in caught.value.message
    assert caught.value.remedy == "Free space on the device, or choose another --root."
    assert {path.name: path.read_text() for path in small_disk.iterdir()} == {"target": "old"}


def test_upload_to_a_read_only_disk(device: Device, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(DeviceError) as caught:
        device.upload(b"x", str(small_disk / "target"), timeout_seconds=30)
    assert "Read-only file system" in caught.value.message
    assert caught.value.remedy == "Choose a --root on a file system that can be written."
