"""What only SSH has: logging in, ways there, noise, shells, and links that die."""

import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepack.device.wire import link
from edgepack.device.wire.connect import ConnectOptions, open_device
from edgepack.device.wire.remote_shell import wrap_command
from edgepack.device.wire.ssh import SshDevice
from edgepack.device.wire.transport import Device
from edgepack.errors import (
    AuthError,
    ConnectError,
    DeviceError,
    DeviceTimeoutError,
    HostKeyError,
    UsageError,
)
from tests.fixtures.sshd import SshServer, SshServers, make_key

pytestmark = pytest.mark.sshd

RIGHT = "right"


def options(server: SshServer) -> ConnectOptions:
    return ConnectOptions(ssh_config=server.ssh_config)


def check(device: Device) -> None:
    assert device.run(["echo", "here"], timeout_seconds=20).stdout == b"here\n"


class Answers:
    """Stands for a user at a terminal: gives answers in turn and keeps the questions."""

    def __init__(self, *answers: str) -> None:
        self.questions: list[str] = []
        self._answers = list(answers)

    def __call__(self, question: str) -> str:
        self.questions.append(question)
        return self._answers.pop(0)


@pytest.fixture
def locked(ssh_servers: SshServers) -> tuple[SshServer, Path]:
    """A server that takes a key with the passphrase "right"."""
    server = ssh_servers.start()
    key = make_key(server.folder / "locked", passphrase=RIGHT)
    shutil.copy(f"{key}.pub", server.folder / "authorized_keys")
    return server, key


def test_a_passphrase_is_asked_for(locked: tuple[SshServer, Path]) -> None:
    server, key = locked
    answers = Answers("wrong", "right")
    chosen = ConnectOptions(ssh_config=server.ssh_config, identity=key, prompt=answers)
    with open_device(server.address, options=chosen) as device:
        check(device)
    assert answers.questions == [f"Passphrase for {key}: "] * 2


def test_a_wrong_passphrase_is_said(locked: tuple[SshServer, Path]) -> None:
    server, key = locked
    answers = Answers("a", "b", "c")
    chosen = ConnectOptions(ssh_config=server.ssh_config, identity=key, prompt=answers)
    with pytest.raises(AuthError) as caught, open_device(server.address, options=chosen):
        pass
    assert caught.value.message == (
        f"{server.user}@127.0.0.1 refused the login. Offered: {key} (wrong passphrase), "
        f"{server.identity}. The host allows: publickey."
    )


def test_without_a_terminal_nothing_is_asked(locked: tuple[SshServer, Path]) -> None:
    server, key = locked
    chosen = ConnectOptions(ssh_config=server.ssh_config, identity=key)
    with pytest.raises(AuthError) as caught, open_device(server.address, options=chosen):
        pass
    assert f"{key} (locked by a passphrase, no terminal to ask for it)" in caught.value.message
    assert caught.value.remedy == (
        "Name the right key with --identity FILE, or install yours with "
        f"`ssh-copy-id {server.user}@127.0.0.1`."
    )


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    try:
        while not path.exists():
            threading.Event().wait(0.01)
        yield path
    finally:
        process.terminate()
        process.wait()


def add_key(agent: Path, key: Path) -> None:
    environment = os.environ | {
        "SSH_AUTH_SOCK": str(agent), "SSH_ASKPASS_REQUIRE": "force",
        "SSH_ASKPASS": str(key.parent / "ask"), "DISPLAY": ":0",
    }  # fmt: skip
    (key.parent / "ask").write_text("#!/bin/sh\necho right\n")
    (key.parent / "ask").chmod(0o700)
    subprocess.run(["ssh-add", "-q", key], check=True, env=environment, capture_output=True)


def test_the_agent_has_the_key(locked: tuple[SshServer, Path], agent: Path) -> None:
    server, key = locked
    add_key(agent, key)
    config = server.write_config("agent", f"IdentityAgent {agent}", "IdentitiesOnly no")
    with open_device(server.address, options=ConnectOptions(ssh_config=config)) as device:
        check(device)


def test_identities_only_keeps_the_agent_to_the_named_keys(
    locked: tuple[SshServer, Path], agent: Path
) -> None:
    server, key = locked
    add_key(agent, key)
    config = server.write_config("only", f"IdentityAgent {agent}", "IdentitiesOnly yes")
    chosen = ConnectOptions(ssh_config=config)
    with pytest.raises(AuthError) as caught, open_device(server.address, options=chosen):
        pass
    assert f"Offered: {server.identity}." in caught.value.message
    with open_device(server.address, options=ConnectOptions(ssh_config=config, identity=key)) as it:
        check(it)  # named, so the agent unlocks it without asking


def test_no_key_at_all(ssh_server: SshServer) -> None:
    config = ssh_server.folder / "bare"
    config.write_text(ssh_server.ssh_config.read_text().replace(str(ssh_server.identity), "none"))
    chosen = ConnectOptions(ssh_config=config)
    with pytest.raises(AuthError, match=r"Offered: nothing \(no key, no agent\)\."):
        open_device(ssh_server.address, options=chosen).__enter__()


def test_a_missing_identity(ssh_server: SshServer, tmp_path: Path) -> None:
    chosen = ConnectOptions(ssh_config=ssh_server.ssh_config, identity=tmp_path / "no")
    with pytest.raises(UsageError) as caught:
        open_device(ssh_server.address, options=chosen).__enter__()
    assert caught.value.message == (
        f"--identity: expected a private key file, found none at {tmp_path}/no."
    )


def test_passwords_are_asked_for_and_never_shown(ssh_servers: SshServers) -> None:
    server = ssh_servers.start("PasswordAuthentication yes", "PubkeyAuthentication no")
    answers = Answers("hunter-1", "hunter-2", "hunter-3")
    chosen = ConnectOptions(ssh_config=server.ssh_config, prompt=answers)
    with pytest.raises(AuthError) as caught:
        open_device(server.address, options=chosen).__enter__()
    assert answers.questions == [f"{server.user}@127.0.0.1's password: "] * 3
    assert caught.value.message == (
        f"{server.user}@127.0.0.1 refused the login. Offered: password. The host allows: password."
    )
    assert "hunter" not in str(caught.value)


def test_through_jump_hosts(ssh_servers: SshServers, ssh_server: SshServer) -> None:
    jump, second = ssh_servers.start(), ssh_servers.start()
    config = ssh_server.folder / "jumps"
    config.write_text(
        "\n".join(
            f"Host {name}\n HostName 127.0.0.1\n Port {server.port}\n"
            f" IdentityFile {server.identity}\n UserKnownHostsFile {server.known_hosts}"
            for name, server in (("first", jump), ("second", second), ("board", ssh_server))
        )
        + "\nHost board\n ProxyJump first,second\nHost *\n GlobalKnownHostsFile none\n"
        + " IdentityAgent none\n"
    )
    with open_device("board", options=ConnectOptions(ssh_config=config)) as device:
        check(device)
        assert device.name == "board"
        sent = device.run(["sh", "-c", "echo $SSH_CLIENT"], timeout_seconds=20).text
        assert sent.startswith("127.0.0.1 ")
    jump.known_hosts.write_text("")
    with pytest.raises(HostKeyError, match="is unknown"):
        open_device("board", options=ConnectOptions(ssh_config=config)).__enter__()


def test_a_jump_host_that_jumps_through_itself(ssh_server: SshServer) -> None:
    config = ssh_server.write_config("loop", "Host a", " ProxyJump b", "Host b", " ProxyJump a")
    with pytest.raises(UsageError, match="leads through more than 8 hosts"):
        open_device("a", options=ConnectOptions(ssh_config=config)).__enter__()


def test_a_jump_host_that_reaches_nothing(ssh_server: SshServer) -> None:
    config = ssh_server.write_config(
        "far", "Host far", " HostName 127.0.0.1", " Port 1", f" ProxyJump {ssh_server.address}"
    )
    with pytest.raises(ConnectError) as caught:
        open_device("far", options=ConnectOptions(ssh_config=config)).__enter__()
    assert caught.value.message == (
        f"far: the jump host {ssh_server.address} made no connection to 127.0.0.1:1: "
        "Connect failed."
    )


def test_a_proxy_command(ssh_server: SshServer) -> None:
    relay = (
        "import socket, sys, threading, os\n"
        f"s = socket.create_connection(('127.0.0.1', {ssh_server.port}))\n"
        "def up():\n"
        "    while data := os.read(0, 65536): s.sendall(data)\n"
        "threading.Thread(target=up, daemon=True).start()\n"
        "while data := s.recv(65536): os.write(1, data)\n"
    )
    (ssh_server.folder / "relay.py").write_text(relay)
    config = ssh_server.write_config(
        "proxy", f"ProxyCommand /usr/bin/env python3 {ssh_server.folder}/relay.py %h %p"
    )
    with open_device(ssh_server.address, options=ConnectOptions(ssh_config=config)) as device:
        check(device)


def test_a_proxy_command_that_ends(ssh_server: SshServer) -> None:
    config = ssh_server.write_config("dead", "ProxyCommand true")
    with pytest.raises(ConnectError, match="spoke no SSH"):
        open_device(ssh_server.address, options=ConnectOptions(ssh_config=config)).__enter__()


def test_noise_of_start_up_files_is_told_apart(ssh_servers: SshServers) -> None:
    server = ssh_servers.start(
        'ForceCommand echo "Welcome! @edgepack:"; echo more >&2; eval "$SSH_ORIGINAL_COMMAND"'
    )
    with open_device(server.address, options=options(server)) as device:
        assert device.run(["echo", "x y"], timeout_seconds=20).stdout == b"x y\n"
        with device.stream(["echo", "line"], timeout_seconds=20) as lines:
            assert list(lines) == [b"line"]
        assert device.run(["sh", "-c", "exit 5"], timeout_seconds=20).exit_code == 5


def test_a_login_shell_that_runs_nothing(ssh_servers: SshServers) -> None:
    server = ssh_servers.start("ForceCommand echo This account is not available.; exit 1")
    with (
        open_device(server.address, options=options(server)) as device,
        pytest.raises(DeviceError) as caught,
    ):
        device.run(["true"], timeout_seconds=20)
    assert caught.value.message == (
        f"{server.address}: the login shell did not run true; "
        "it said: This account is not available.."
    )


def test_what_a_device_says_cannot_rewrite_the_terminal(ssh_servers: SshServers) -> None:
    server = ssh_servers.start("ForceCommand printf 'gone\\033[2J\\033]0;title\\007'; exit 1")
    with (
        open_device(server.address, options=options(server)) as device,
        pytest.raises(DeviceError, match="it said: gone") as caught,
    ):
        device.run(["true"], timeout_seconds=20)
    assert caught.value.message.isprintable()


def test_a_shell_that_repeats_the_command_instead_of_running_it(ssh_servers: SshServers) -> None:
    server = ssh_servers.start('ForceCommand echo "not allowed: $SSH_ORIGINAL_COMMAND"; exit 1')
    with (
        open_device(server.address, options=options(server)) as device,
        pytest.raises(DeviceError, match="did not run true; it said: not allowed: exec sh"),
    ):
        device.run(["true"], timeout_seconds=20)


def test_a_device_without_sftp_takes_uploads(ssh_servers: SshServers, tmp_path: Path) -> None:
    server = ssh_servers.start("Subsystem sftp /bin/false", "MaxSessions 1")
    with open_device(server.address, options=options(server)) as device:
        for turn in range(3):
            device.upload(b"x" * turn, str(tmp_path / "target"), timeout_seconds=20)
    assert (tmp_path / "target").read_bytes() == b"xx"


def test_a_device_that_hashes_slowly_is_waited_for(ssh_servers: SshServers, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    # Slow with what takes long; what it is tried with first is three bytes.
    (programs / "openssl").write_text(
        "#!/bin/sh\nsum=$(sha256sum)\ncase $sum in ba7816bf*) ;; *) sleep 3 ;; esac\necho $sum\n"
    )
    (programs / "openssl").chmod(0o755)
    server = ssh_servers.start(f'ForceCommand PATH={programs}:$PATH; eval "$SSH_ORIGINAL_COMMAND"')
    data = bytes(16 * 2**20)
    with open_device(server.address, options=options(server)) as device:
        stored = device.upload(data, str(tmp_path / "target"), timeout_seconds=2)
    assert stored == hashlib.sha256(data).hexdigest()


SHELLS = {"sh": "/bin/sh", "bash": "/bin/bash", "csh": "/bin/tcsh", "fish": "/usr/bin/fish"}


@pytest.mark.parametrize("name", list(SHELLS))
def test_any_login_shell_passes_the_command_on(name: str) -> None:
    shell = SHELLS[name]
    if not Path(shell).exists():
        pytest.skip(f"{shell} is not installed")

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))))
    def holds(arguments: list[str]) -> None:
        odd = [*arguments, "a!b", "!!", "\\", "'", "\n", "it's\\'", '"', "$HOME", "é", ""]
        command = wrap_command(["printf", "%s\\0", *odd])
        argv = [shell, "-c", command.text]
        done = subprocess.run(argv, capture_output=True, check=True, stdin=subprocess.DEVNULL)
        _, marker, rest = done.stdout.partition(command.marker)
        assert marker
        assert rest.partition(b"@")[2].decode().split("\0")[:-1] == odd

    holds()


def test_a_command_too_long_for_the_device(ssh_server: SshServer) -> None:
    with (
        open_device(ssh_server.address, options=options(ssh_server)) as device,
        pytest.raises(DeviceError, match="a device takes at most 122880 bytes"),
    ):
        device.run(["echo", "x" * 200_000], timeout_seconds=20)


def test_connection_refused() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(ConnectError) as caught:
        open_device(f"pi@127.0.0.1:{port}").__enter__()
    assert caught.value.message == (
        f"pi@127.0.0.1:{port}: no connection to 127.0.0.1:{port}: Connection refused."
    )
    assert caught.value.remedy == (
        "See whether the device is on, and whether its SSH server listens there."
    )


def test_a_name_nobody_knows() -> None:
    with pytest.raises(ConnectError, match=r"^pi@no\.invalid: no address is known for 'no\."):
        open_device("pi@no.invalid").__enter__()


@contextmanager
def serve(greeting: bytes, *, then_close: bool = False) -> Iterator[int]:
    """Accept connections, greet, and say nothing more."""
    with ExitStack() as stack, socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                connection.sendall(greeting)
                if then_close:
                    connection.close()
                else:
                    stack.callback(connection.close)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize(
    ("greeting", "words"),
    [
        (b"", "took the connection and sent no SSH banner within 0.5 s."),
        (b"SSH-2.0-frozen\r\n", "did not finish the SSH key exchange within 0.5 s."),
    ],
)
def test_a_host_that_hangs(greeting: bytes, words: str) -> None:
    with serve(greeting) as port:
        chosen = ConnectOptions(connect_timeout_seconds=0.5)
        with pytest.raises(DeviceTimeoutError) as caught:
            open_device(f"pi@127.0.0.1:{port}", options=chosen).__enter__()
    assert caught.value.message == f"pi@127.0.0.1:{port} {words}"


def test_a_port_that_speaks_something_else() -> None:
    with serve(b"HTTP/1.1 400 Bad Request\r\n\r\n", then_close=True) as port:
        with pytest.raises(ConnectError) as caught:
            open_device(f"pi@127.0.0.1:{port}").__enter__()
        assert caught.value.message == (
            f"pi@127.0.0.1:{port} took the connection and then spoke no SSH."
        )


class Cable:
    """A way to a server that can be cut without a word to either end."""

    def __init__(self, port: int) -> None:
        self._server = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.port: int = self._listener.getsockname()[1]
        self.is_cut = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        far = socket.create_connection(self._server)
        self._open += [near, far]
        for source, sink in ((near, far), (far, near)):
            threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while (data := source.recv(65536)) and not self.is_cut.is_set():
                sink.sendall(data)
        except OSError:
            return
        self.is_cut.wait()

    def close(self) -> None:
        self.is_cut.set()
        for end in (*self._open, self._listener):
            with suppress(OSError):  # closing alone would not reach a peer while recv blocks
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@pytest.fixture
def cable(ssh_server: SshServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cable]:
    monkeypatch.setattr(link, "ASK_SECONDS", 0.3)
    monkeypatch.setattr(link, "SILENCE_SECONDS", 1.5)
    made = Cable(ssh_server.port)
    yield made
    made.close()


@contextmanager
def connected(server: SshServer, cable: Cable) -> Iterator[tuple[Device, str]]:
    config = server.write_config("cable", "HostKeyAlias cable")
    address = f"{server.user}@127.0.0.1:{cable.port}"
    chosen = ConnectOptions(ssh_config=config, host_key=server.fingerprint())
    with open_device(address, options=chosen) as device:
        yield device, address


def test_silence_alone_is_no_dead_link(ssh_server: SshServer, cable: Cable) -> None:
    with connected(ssh_server, cable) as (device, _):
        assert device.run(["sleep", "3"], timeout_seconds=30).exit_code == 0


def test_a_link_that_dies_under_a_silent_stream(ssh_server: SshServer, cable: Cable) -> None:
    argv = ["sh", "-c", "echo on; sleep 30"]
    with connected(ssh_server, cable) as (device, address):
        started = time.monotonic()
        with device.stream(argv, timeout_seconds=600) as lines:
            assert next(lines) == b"on"
            cable.is_cut.set()
            with pytest.raises(ConnectError) as caught:
                next(lines)
        assert time.monotonic() - started < 10
        assert caught.value.message == (
            f"{address} has been silent for 20 s while sh -c 'echo on; sleep 30' ran."
        )


def test_a_link_that_dies_during_an_upload(
    ssh_server: SshServer, cable: Cable, tmp_path: Path
) -> None:
    num_sent = 0

    def cut(num_bytes: int) -> None:
        nonlocal num_sent
        num_sent += num_bytes
        if num_sent > 20_000_000:
            cable.is_cut.set()

    with connected(ssh_server, cable) as (device, _):
        started = time.monotonic()
        with pytest.raises(ConnectError, match="has been silent for 20 s while "):
            device.upload(
                bytes(100_000_000), str(tmp_path / "x"), timeout_seconds=600, on_progress=cut
            )
        assert time.monotonic() - started < 20
    cable.close()
    # The device sees the end of its input; what arrived stays for the next push to go on from.
    (part,) = tmp_path.iterdir()
    assert re.fullmatch(r"x\.[0-9a-f]{8}\.part", part.name)
    assert 0 < part.stat().st_size < 100_000_000


def test_a_server_that_dies(ssh_servers: SshServers) -> None:
    server = ssh_servers.start()
    argv = ["sh", "-c", "echo $PPID; exec sleep 5"]
    with (
        open_device(server.address, options=options(server)) as device,
        device.stream(argv, timeout_seconds=60) as lines,
    ):
        shell = int(next(lines))
        session = int(Path(f"/proc/{shell}/stat").read_text().split()[3])
        os.kill(session, signal.SIGKILL)
        with pytest.raises(ConnectError) as caught:
            next(lines)
    assert caught.value.message == (
        f"{server.address} closed the connection while sh -c 'echo $PPID; exec sleep 5' ran."
    )


@pytest.mark.parametrize("stdin", [b"", b"x" * 3_000_000])
def test_a_link_that_is_lost_as_the_input_ends(ssh_server: SshServer, stdin: bytes) -> None:
    """paramiko then raises EOFError from what only says that there is no more."""
    with open_device(ssh_server.address, options=options(ssh_server)) as device:
        assert isinstance(device, SshDevice)
        with device.start(["cat"], 20) as command:
            device._transport.packetizer.close()
            command.feed(stdin)
            command.close_stdin(num_bytes=0)
            with pytest.raises(ConnectError, match="closed the connection while cat ran"):
                list(iter(command.read, b""))
