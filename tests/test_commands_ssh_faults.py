"""Devices that cannot be reached or served: what the user is told, and what stays behind."""

import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from edgepack.bundle.archive import Bundle, open_bundle
from edgepack.device.wire import link
from tests.fixtures.bundle import built_in_profile, write_digits_bundle
from tests.fixtures.commands import Ran, RunCommand
from tests.fixtures.sshd import SshServer, SshServers, make_key
from tests.test_commands_bad_input import assert_told

pytestmark = pytest.mark.sshd

Push = Callable[..., Ran]


@pytest.fixture
def push(run: RunCommand, bundle: Path, tmp_path: Path) -> Push:
    """Push the bundle to a server's folder of this test's own."""

    def push(server: SshServer, *options: str | Path, config: Path | None = None) -> Ran:
        return run(
            *("push", bundle, server.address, "--root", tmp_path / "root"),
            *("--ssh-config", config or server.ssh_config, *options),
        )

    return push


def contents_of(bundle: Bundle) -> dict[str, bytes]:
    return {record.path: bundle.read(record.path) for record in bundle.files()}


def read_current(root: Path) -> dict[str, bytes]:
    """The files of the release that is current."""
    folder = (root / "bundles/digits/current").resolve()
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def assert_untouched(tmp_path: Path) -> None:
    assert not (tmp_path / "root").exists()


def test_connection_refused(run: RunCommand, bundle: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    ran = run("push", bundle, f"pi@127.0.0.1:{port}", "--accept-new-host-key")
    assert_told(
        ran,
        code=1,
        message=f"pi@127.0.0.1:{port}: no connection to 127.0.0.1:{port}: Connection refused.",
        remedy="See whether the device is on, and whether its SSH server listens there.",
    )


def test_wrong_key(push: Push, ssh_server: SshServer, tmp_path: Path) -> None:
    key = make_key(tmp_path / "other")
    config = tmp_path / "config"
    config.write_text(
        f"Host *\n  UserKnownHostsFile {ssh_server.known_hosts}\n  IdentityAgent none\n"
        f"  IdentitiesOnly yes\n  IdentityFile {key}\n"
    )
    ran = push(ssh_server, config=config)
    assert_told(ran, code=1, message="refused the login. Offered: ", remedy="--identity FILE")
    assert str(key) in ran.err
    assert_untouched(tmp_path)


def _with_known_hosts(server: SshServer, known_hosts: Path) -> Path:
    return server.write_config(known_hosts.name, f"UserKnownHostsFile {known_hosts}")


def test_unknown_host_key(push: Push, ssh_server: SshServer, tmp_path: Path) -> None:
    known = tmp_path / "none"
    ran = push(ssh_server, config=_with_known_hosts(ssh_server, known))
    assert_told(ran, code=1, message=" is unknown.", remedy="--accept-new-host-key")
    assert f"--host-key {ssh_server.fingerprint()}" in ran.err
    assert not known.exists()
    assert_untouched(tmp_path)


def test_changed_host_key(push: Push, ssh_server: SshServer, tmp_path: Path) -> None:
    other = make_key(tmp_path / "other").with_suffix(".pub").read_text().split()
    known = tmp_path / "changed"
    known.write_text(f"[127.0.0.1]:{ssh_server.port} {other[0]} {other[1]}\n")
    config = _with_known_hosts(ssh_server, known)
    before = known.read_text()
    for options in ((), ("--accept-new-host-key",)):
        ran = push(ssh_server, *options, config=config)
        assert_told(ran, code=1, message="its host key has changed", remedy="ssh-keygen -f")
    assert known.read_text() == before
    assert_untouched(tmp_path)


def test_not_the_pinned_host_key(push: Push, ssh_server: SshServer, tmp_path: Path) -> None:
    pin = f"SHA256:{'A' * 43}"
    ran = push(ssh_server, "--host-key", pin)
    assert_told(ran, code=1, message=f"expected the host key {pin}")
    assert_told(
        push(ssh_server, "--host-key", "MD5:1"), code=2, message="--host-key: expected SHA256:"
    )
    assert_untouched(tmp_path)


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with all programs of this machine but Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for place in ("/usr/bin", "/bin"):
        for program in Path(place).iterdir():
            if not program.name.startswith("python"):
                with suppress(FileExistsError):
                    (folder / program.name).symlink_to(program)
    return folder


def _serve_path(ssh_servers: SshServers, folder: Path) -> SshServer:
    return ssh_servers.start(f"SetEnv SHLVL=1 PATH={folder}")


def test_no_python(push: Push, ssh_servers: SshServers, programs: Path, tmp_path: Path) -> None:
    ran = push(_serve_path(ssh_servers, programs), "--runner", "python")
    assert_told(
        ran,
        code=1,
        message="the runtime needs Python 3.9 to 3.14, but ",
        remedy="Run `sudo apt install python3` on the device",
    )
    assert " has no python3\n" in ran.err
    assert_untouched(tmp_path)


def test_old_python(push: Push, ssh_servers: SshServers, programs: Path, tmp_path: Path) -> None:
    # A real interpreter that takes itself for an old one.
    (programs / "python3").write_text(
        f"#!/bin/sh\nexec {sys.executable} -c '\n"
        "import sys\n"
        "sys.version_info = (3, 6, 9)\n"
        'code = sys.argv[sys.argv.index("-c", 1) + 1]\n'
        'exec(code)\n\' "$@"\n'
    )
    (programs / "python3").chmod(0o755)
    ran = push(_serve_path(ssh_servers, programs), "--runner", "python")
    assert_told(
        ran,
        code=1,
        message="the runtime needs CPython 3.9 to 3.14, but ",
        remedy="Install a fitting python3.N beside it; it is found by its name.",
    )
    assert " has cp36 (3.6.9)\n" in ran.err
    assert_untouched(tmp_path)


@pytest.fixture
def root(run: RunCommand, bundle: Path, device_root: Path, tmp_path: Path) -> Path:
    """A deploy root of this test's own, with the runtime that all share."""
    assert run("push", bundle, "local:", "--root", device_root).code == 0  # installs it once
    folder = tmp_path / "root"
    folder.mkdir()
    (folder / "runtimes").symlink_to(device_root / "runtimes")
    return folder


def test_no_sftp_is_needed(
    run: RunCommand, bundle: Path, root: Path, ssh_servers: SshServers
) -> None:
    server = ssh_servers.start("Subsystem nothing /bin/false")
    ran = run(
        *("push", bundle, server.address, "--root", root, "--json"),
        *("--ssh-config", server.ssh_config),
    )
    assert ran.code == 0, ran.err
    assert ran.json()["sent_bytes"] > 0
    assert read_current(root) == contents_of(open_bundle(bundle))


class Cable:
    """A way to a server that falls silent after so many bytes, without a word to either end."""

    def __init__(self, port: int, *, num_bytes: int) -> None:
        self._server = ("127.0.0.1", port)
        self._left = num_bytes
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = [self._listener]
        self._is_over = threading.Event()
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            near, _ = self._listener.accept()
            far = socket.create_connection(self._server)
            self._open += [near, far]
            threading.Thread(target=self._carry, args=(near, far), daemon=True).start()
            self._carry(far, near)

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while self._left > 0 and (data := source.recv(65536)):
                sink.sendall(data)
                self._left -= len(data)
        self._is_over.wait()

    def close(self) -> None:
        self._is_over.set()
        for end in self._open:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@pytest.fixture
def cable(ssh_server: SshServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cable]:
    monkeypatch.setattr(link, "ASK_SECONDS", 0.3)
    monkeypatch.setattr(link, "SILENCE_SECONDS", 2.0)
    made = Cable(ssh_server.port, num_bytes=3_000_000)
    yield made
    made.close()


def test_a_host_that_vanishes_during_a_transfer(
    run: RunCommand, bundle: Path, root: Path, ssh_server: SshServer, cable: Cable
) -> None:
    files = {"classes.txt": b"zero\n", "more.bin": os.urandom(6_000_000)}
    target = built_in_profile("laptop-x86-64")
    large = write_digits_bundle(
        root.parent / "large.edgepack", version="2.0", target=target, extra_files=files
    )
    there = ("--root", root, "--ssh-config", ssh_server.ssh_config)
    assert run("push", bundle, ssh_server.address, *there).code == 0
    config = ssh_server.write_config("vanishing", "HostKeyAlias vanishing")
    ran = run(
        *("push", large.path, f"{ssh_server.user}@127.0.0.1:{cable.port}", "--root", root),
        *("--ssh-config", config, "--host-key", ssh_server.fingerprint()),
    )
    assert_told(ran, code=1, message="has been silent for 20 s while ")
    assert read_current(root) == contents_of(open_bundle(bundle))
    assert len(list(root.glob("bundles/*/releases/*"))) == 1
    # What came is in the staging folder, and the next push goes on from there.
    staged = sum(path.stat().st_size for path in (root / "staging").rglob("*.part"))
    assert staged > 2**20
    ran = run("push", large.path, ssh_server.address, *there, "--json")
    assert ran.code == 0, ran.err
    total_bytes = sum(len(content) for content in contents_of(large).values())
    assert ran.json()["sent_bytes"] <= total_bytes - staged
    assert read_current(root) == contents_of(large)
    assert list((root / "staging").iterdir()) == []
