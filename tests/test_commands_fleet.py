"""`push @fleet.toml`: many devices over real SSH servers, some of which fail."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from edgepack.bundle.archive import Bundle
from tests.fixtures.bundle import built_in_profile, write_digits_bundle
from tests.fixtures.commands import RunCommand
from tests.fixtures.fleet import Yard
from tests.fixtures.sshd import SshServer, SshServers

pytestmark = pytest.mark.sshd


@pytest.fixture
def cargo(tmp_path: Path) -> Bundle:
    """A bundle for this machine's kind."""
    return write_digits_bundle(
        tmp_path / "digits.edgepack", target=built_in_profile("laptop-x86-64")
    )


@pytest.fixture
def yard(tmp_path: Path, ssh_server: SshServer) -> Yard:
    folder = tmp_path / "yard"
    folder.mkdir()
    return Yard(folder, ssh_server, 4)


def test_a_fleet_has_what_each_device_came_to(run: RunCommand, cargo: Bundle, yard: Yard) -> None:
    fleet = yard.write(["d0", "dead1", "d1"])
    ran = run("push", cargo.path, f"@{fleet}", *yard.options(), "--json")
    assert ran.code == 1
    first, dead, last = ran.json()
    for name, body in (("d0", first), ("d1", last)):
        assert body["device"] == name
        assert body["release"] == cargo.release == yard.current(name)
        assert body["sent_bytes"] > 0
        assert body["tries"] == 1
    refused = "dead1: no connection to 127.0.0.1:1: Connection refused."
    assert dead == {
        "device": "dead1",
        "error": {
            "kind": "connect",
            "message": refused,
            "remedy": "See whether the device is on, and whether its SSH server listens there.",
        },
        "tries": 3,
    }
    assert yard.journal() == {"d0": "done", "d1": "done", "dead1": "failed"}
    said = ran.err.splitlines()
    assert sum(line.startswith(f"{refused} Trying again in ") for line in said) == 2
    assert f"/3] {refused}\n" in ran.err
    assert said[-2:] == [
        "2 of 3 devices done, 1 failed",
        f"journal: {yard.folder}/journal.jsonl; the same command with --resume goes on from it",
    ]


def test_a_second_run_goes_on_and_looks_before_it_skips(
    run: RunCommand, cargo: Bundle, yard: Yard
) -> None:
    fleet = yard.write(["d0", "d1"])
    assert run("push", cargo.path, f"@{fleet}", *yard.options()).code == 0
    # Somebody went back on one of them.
    (yard.root("d1") / "bundles/digits/current").unlink()
    fleet = yard.write(["d0", "d1", "d2"])
    ran = run("push", cargo.path, f"@{fleet}", *yard.options(), "--resume", "--json")
    assert ran.code == 0, ran.err
    assert [each["already_done"] for each in ran.json()] == [True, False, False]
    assert [each["sent_bytes"] > 0 for each in ran.json()] == [False, False, True]
    assert [yard.current(name) for name in ("d0", "d1", "d2")] == [cargo.release] * 3
    assert ran.err.splitlines()[-1] == "3 of 3 devices done"

    other = write_digits_bundle(
        yard.folder / "other.edgepack", version="2", target=cargo.manifest.target
    )
    ran = run("push", other.path, f"@{fleet}", *yard.options(), "--resume")
    assert ran.code == 1
    assert ran.err.splitlines()[0] == (
        f"edgepack: {yard.folder}/journal.jsonl: expected the journal of 'push {other.sha256}', "
        f"but it is of 'push {cargo.sha256}'"
    )
    # The next release everywhere, and back again.
    assert run("push", other.path, f"@{fleet}", *yard.options()).code == 0
    ran = run("rollback", f"@{fleet}", "--ssh-config", yard.config, "--filter", "address!=d2")
    assert ran.code == 0, ran.err
    assert ran.out.splitlines() == [
        f"{name}: release {cargo.release} of digits is current; before it was {other.release}"
        for name in ("d0", "d1")
    ]
    assert [yard.current(name) for name in ("d0", "d2")] == [cargo.release, other.release]


def test_a_canary_that_fails_keeps_the_others_as_they_are(
    run: RunCommand, cargo: Bundle, yard: Yard
) -> None:
    fleet = yard.write(["d0", "dead1", "d1", "d2"])
    ran = run("push", cargo.path, f"@{fleet}", *yard.options(), "--canary", "--jobs", "1")
    assert ran.code == 1
    said = [line for line in ran.err.splitlines() if "Trying again" not in line]
    assert said[:5] == [
        "wave 1 of 3: 1 device",
        "[1/4] d0: done",
        "wave 2 of 3: 1 device",
        "[2/4] dead1: no connection to 127.0.0.1:1: Connection refused.",
        "  See whether the device is on, and whether its SSH server listens there.",
    ]
    assert said[5:7] == [
        "1 failure: no further device begins",
        "1 of 4 devices done, 1 failed, 2 not begun",
    ]
    assert [yard.current(name) for name in ("d0", "d1", "d2")] == [cargo.release, None, None]
    assert yard.journal() == {"d0": "done", "dead1": "failed"}


def test_a_filter_chooses_and_what_chooses_nothing_is_told(
    run: RunCommand, cargo: Bundle, yard: Yard
) -> None:
    fleet = yard.write()
    ran = run("push", cargo.path, f"@{fleet}", *yard.options(), "--filter", "tag=odd", "--json")
    assert ran.code == 0, ran.err
    assert [each["device"] for each in ran.json()] == ["d1", "d3"]
    assert [yard.current(name) is not None for name in yard.names] == [False, True, False, True]

    ran = run("push", cargo.path, f"@{fleet}", *yard.options(), "--filter", "tag=attic")
    assert ran.code == 2
    assert ran.err.startswith("edgepack: none of 4 devices meets tag=attic\n")


def test_what_cannot_be_is_refused_before_a_device_is_reached(
    run: RunCommand, cargo: Bundle, yard: Yard
) -> None:
    fleet = yard.write(["d0", "d1"])
    other = write_digits_bundle(yard.folder / "pi.edgepack")
    for arguments, message in (
        (
            (other.path, f"@{fleet}"),
            (
                "the bundle is for raspberry-pi-4, but 2 of 2 devices are of another target: "
                "d0 (laptop-x86-64), d1 (laptop-x86-64)"
            ),
        ),
        ((cargo.path, f"@{fleet}", "d1"), "expected each device once, but d1 came twice"),
        (
            (cargo.path, "@none.toml"),
            "none.toml: the fleet file cannot be read: No such file or directory",
        ),
        (
            (cargo.path, "d0", "d1", "--resume"),
            "--resume: expected --journal with it, or a fleet file",
        ),
        (
            (cargo.path, f"@{fleet}", "--canary", "--waves", "1"),
            "--canary and --waves both say what goes first",
        ),
        ((cargo.path, f"@{fleet}", "--max-failures", "x"), "'x' is no number of devices"),
    ):
        ran = run("push", *arguments, "--ssh-config", yard.config)
        assert ran.code == 2
        assert ran.err.splitlines()[0] == f"edgepack: {message}"
    assert yard.current("d0") is None


@contextmanager
def _pushing(
    cargo: Bundle, yard: Yard, cache_home: Path, *arguments: str
) -> Iterator[subprocess.Popen[str]]:
    """A push to the yard's fleet as a process of its own."""
    argv = [
        *(sys.executable, "-m", "edgepack", "push", str(cargo.path)),
        *(f"@{yard.folder}/fleet.toml", *map(str, yard.options()), *arguments),
    ]
    process = subprocess.Popen(
        argv,
        env={"PATH": "/usr/bin:/bin", "XDG_CACHE_HOME": str(cache_home), **_python_path()},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _python_path() -> dict[str, str]:
    import edgepack  # noqa: PLC0415 - where the package under test lies

    return {"PYTHONPATH": str(Path(edgepack.__file__).parents[1])}


def _read_until(process: subprocess.Popen[str], words: str) -> str:
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if words in line:
            return said
    pytest.fail(said)


def test_a_busy_server_is_asked_again_until_it_has_room(
    cargo: Bundle, ssh_servers: SshServers, cache_home: Path, tmp_path: Path
) -> None:
    """MaxStartups: the server hangs up while two others are logging in."""
    server = ssh_servers.start("MaxStartups 2", "LoginGraceTime 600")
    yard = Yard(tmp_path, server, 2)
    yard.write()
    with ExitStack() as others:
        for _ in range(2):
            greeted = others.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            assert greeted.recv(4) == b"SSH-"
        with _pushing(cargo, yard, cache_home, "--json") as process:
            said = _read_until(process, "Trying again in ")
            assert "took the connection and then spoke no SSH. Trying again in " in said
            others.close()
            out, rest = process.communicate(timeout=120)
    assert process.returncode == 0, said + rest
    assert max(each["tries"] for each in json.loads(out)) > 1
    assert [yard.current(name) for name in yard.names] == [cargo.release] * 2
    assert "2 of 2 devices done (" in rest


def test_an_interrupt_leaves_devices_whole_and_the_journal_true(
    cargo: Bundle, yard: Yard, cache_home: Path
) -> None:
    yard.write()
    with _pushing(cargo, yard, cache_home, "--jobs", "1", "--json") as process:
        said = _read_until(process, "[1/4] d0: done")
        process.send_signal(signal.SIGTERM)
        out, rest = process.communicate(timeout=120)
    assert process.returncode == 130, said + rest
    body = json.loads(out)  # one document, with all devices
    assert [each["device"] for each in body] == yard.names
    assert body[0]["release"] == cargo.release
    assert body[-1]["error"]["kind"] == "not_begun"
    assert "interrupted: no further device begins" in rest
    assert rest.endswith("edgepack: interrupted\n")
    assert "Traceback" not in said + rest
    done = yard.journal()
    assert set(done.values()) == {"done"}
    assert [name for name in yard.names if yard.current(name)] == list(done)
    assert len(done) in {1, 2, 3}  # d0, and what had begun by then


def test_a_second_interrupt_breaks_off_at_once(
    cargo: Bundle, ssh_servers: SshServers, cache_home: Path, tmp_path: Path
) -> None:
    """Of a device that hangs: nothing is current there, and the journal says so."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        yard = Yard(tmp_path, ssh_servers.start(), 1)
        port = silent.getsockname()[1]
        yard.config.write_text(f"Host hangs\n  HostName 127.0.0.1\n  Port {port}\n")
        yard.write(["hangs"])
        with _pushing(cargo, yard, cache_home, "--connect-timeout", "300") as process:
            taken, _ = silent.accept()
            with taken:  # and never greeted
                process.send_signal(signal.SIGINT)
                said = _read_until(process, "Interrupt again to break off")
                process.send_signal(signal.SIGINT)
                _, rest = process.communicate(timeout=60)
    assert process.returncode == 130, said + rest
    assert rest == (
        "0 of 1 device done, 1 failed\n"
        f"journal: {tmp_path}/journal.jsonl; the same command with --resume goes on from it\n"
        "edgepack: interrupted\n"
    )
    assert yard.journal() == {"hangs": "failed"}
