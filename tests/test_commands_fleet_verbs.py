"""`releases`, `doctor`, `bench` and `deploy` of a fleet over a real SSH server."""

import json
from pathlib import Path

import pytest

from edgepack.bundle.archive import open_bundle
from tests.fixtures.bundle import built_in_profile, write_digits_bundle
from tests.fixtures.commands import FLOAT_MODEL, QUICK, RunCommand
from tests.fixtures.fleet import Yard
from tests.fixtures.sshd import SshServer

pytestmark = pytest.mark.sshd

_REFUSED = "no connection to 127.0.0.1:1: Connection refused."
_LISTEN = "See whether the device is on, and whether its SSH server listens there."


@pytest.fixture
def yard(tmp_path: Path, ssh_server: SshServer, device_root: Path) -> Yard:
    """Two devices that have the runtimes already."""
    folder = tmp_path / "yard"
    folder.mkdir()
    yard = Yard(folder, ssh_server, 2)
    (device_root / "runtimes").mkdir(parents=True, exist_ok=True)
    for name in yard.names:
        yard.root(name).mkdir()
        (yard.root(name) / "runtimes").symlink_to(device_root / "runtimes")
    return yard


def test_the_releases_of_all_stand_in_one_list(run: RunCommand, yard: Yard) -> None:
    target = built_in_profile("laptop-x86-64")
    older, newer = (
        write_digits_bundle(yard.folder / f"{version}.edgepack", version=version, target=target)
        for version in ("1", "2")
    )
    fleet = yard.write()
    ssh = ("--ssh-config", yard.config)
    for bundle in (older, newer):
        assert run("push", bundle.path, f"@{fleet}", *yard.options()).code == 0
    ran = run("rollback", f"@{fleet}", *ssh, "--filter", "address=d1")
    assert ran.code == 0, ran.err

    fleet = yard.write(["d0", "dead1", "d1"])
    ran = run("releases", f"@{fleet}", *ssh)
    assert ran.code == 1
    rows = [line.split() for line in ran.out.splitlines()]
    listed = {tuple(row[:3]): row[3] for row in rows[1:]}
    assert listed["d0", "digits", newer.release] == "current"
    assert listed["d0", "digits", older.release] == "previous"
    assert listed["d1", "digits", older.release] == "current"
    assert len(listed) == 4
    assert f"dead1: {_REFUSED}\n" in ran.err
    assert ran.err.endswith("2 of 3 devices done, 1 failed\n")

    ran = run(
        "releases", f"@{fleet}", *ssh, "--filter", "tag=even", "--prune", "--keep", "1", "--json"
    )
    first, last = ran.json()
    assert (first["device"], first["removed"]) == ("d0", [["digits", older.release]])
    assert (last["device"], last["removed"]) == ("d1", [["digits", newer.release]])
    assert [each["release"] for each in first["releases"]] == [newer.release]
    assert "dead1" not in ran.err


def test_a_rollback_that_is_gone_on_with_goes_back_once(run: RunCommand, yard: Yard) -> None:
    target = built_in_profile("laptop-x86-64")
    bundles = [
        write_digits_bundle(yard.folder / f"{version}.edgepack", version=version, target=target)
        for version in ("1", "2", "3")
    ]
    fleet = yard.write()
    for bundle in bundles:
        assert run("push", bundle.path, f"@{fleet}", *yard.options()).code == 0
    fleet = yard.write(["d0", "dead1", "d1"])
    options = ("--ssh-config", yard.config, "--journal", yard.folder / "back.jsonl")
    ran = run("rollback", f"@{fleet}", "digits", *options, "--canary", "--jobs", "1", "--json")
    assert ran.code == 1
    first, dead, last = ran.json()
    assert first["release"] == bundles[1].release
    assert dead["error"]["kind"] == "connect"
    assert last["error"]["kind"] == "not_begun"
    fleet = yard.write(["d0", "d1"])
    ran = run("rollback", f"@{fleet}", "digits", *options, "--resume")
    assert ran.code == 0, ran.err
    assert ran.out.splitlines() == [
        f"{name}: release {bundles[1].release} of digits is current; before it was "
        f"{bundles[2].release}"
        for name in yard.names
    ]
    assert [yard.current(name) for name in yard.names] == [bundles[1].release] * 2


def test_doctor_says_what_stands_in_the_way_of_whom(
    run: RunCommand, bundle: Path, yard: Yard
) -> None:
    fleet = yard.write(["d0", "dead1", "d1", "dead3"])
    ran = run("doctor", f"@{fleet}", bundle, "--ssh-config", yard.config)
    assert ran.code == 1
    lines = ran.out.splitlines()
    assert [line.split("  ")[0] for line in lines[:4]] == ["d0", "dead1", "d1", "dead3"]
    assert ["ready" in line for line in lines[:4]] == [True, False, True, False]
    # What two devices lack alike is said once.
    at = lines.index("error    connection  dead1, dead3")
    assert lines[at + 1].strip() == _REFUSED
    assert lines[-1] == "2 of 4 devices ready"

    ran = run("doctor", f"@{fleet}", bundle, "--ssh-config", yard.config, "--json")
    here, dead, *_ = ran.json()
    assert here["facts"]["arch"] == "x86_64"
    assert [each for each in here["findings"] if each["severity"] == "error"] == []
    assert (dead["device"], dead["facts"], dead["tries"]) == ("dead1", None, 3)
    assert dead["findings"] == [
        {
            "severity": "error",
            "topic": "connection",
            "expected": "a connection",
            "found": f"dead1: {_REFUSED}",
            "fix": _LISTEN,
        }
    ]


def test_what_was_measured_is_not_measured_again(run: RunCommand, yard: Yard) -> None:
    fleet = yard.write(["d0", "dead1"])
    journal = yard.folder / "bench.jsonl"
    options = ("--ssh-config", yard.config, "--journal", journal, *QUICK)
    outputs = ("-o", "first.json", "--report", "first.html")
    ran = run("bench", FLOAT_MODEL, f"@{fleet}", *options, *outputs)
    assert ran.code == 1, ran.err
    assert "digits.tflite on dead1 was not measured" in Path("first.html").read_text()
    first, dead = json.loads(Path("first.json").read_text())
    assert dead["error"]["kind"] == "connect"
    assert ran.err.splitlines()[-3] == (
        f"journal: {journal}; the same command with --resume goes on from it"
    )
    # It is in the history at once, and not once more when the run is gone on with.
    assert [each["device"] for each in run("history", "--json").json()] == ["d0"]

    fleet = yard.write(["d0", "d1"])
    ran = run("bench", FLOAT_MODEL, f"@{fleet}", *options, "--resume", "-o", "both.json")
    assert ran.code == 0, ran.err
    before, added = json.loads(Path("both.json").read_text())
    assert before == first
    assert added["device"]["name"] == "d1"
    assert "d0" not in ran.err.replace("2 of 2 devices done", "")
    assert [each["device"] for each in run("history", "--json").json()] == ["d0", "d1"]

    # Nothing is left to do, and all of it is told again.
    ran = run("bench", FLOAT_MODEL, f"@{fleet}", *options, "--resume", "--json")
    assert ran.code == 0, ran.err
    assert [each["device"]["name"] for each in ran.json()] == ["d0", "d1"]

    # Another plan is another measurement.
    ran = run("bench", FLOAT_MODEL, f"@{fleet}", *options, "--threads", "2", "--resume")
    assert ran.code == 1
    assert ran.err.startswith(f"edgepack: {journal}: expected the journal of 'bench ")

    lines = journal.read_text().splitlines()
    entry = json.loads(lines[-1])
    entry["result"][0]["launches"] = []
    journal.write_text("\n".join([*lines[:-1], json.dumps(entry), ""]))
    ran = run("bench", FLOAT_MODEL, f"@{fleet}", *options, "--resume")
    assert ran.code == 1
    message, remedy = ran.err.splitlines()[-2:]
    assert message.startswith(f"edgepack: {journal}: the result of d1 is damaged: ")
    assert remedy == "  Leave --resume out to measure all of them again."


def test_deploy_goes_on_when_one_of_the_others_fails(run: RunCommand, yard: Yard) -> None:
    fleet = yard.write(["d0", "dead1", "d1"])
    ran = run(
        *("deploy", FLOAT_MODEL, f"@{fleet}", "--target", "laptop-x86-64", "--recipe", "float32"),
        *("--ssh-config", yard.config, *QUICK, "-o", "d.edgepack", "--report", "r.html", "--json"),
    )
    assert ran.code == 1, ran.err
    release = open_bundle(Path("d.edgepack")).release
    first, dead, last = ran.json()["push"]
    assert [first["release"], last["release"]] == [release, release]
    assert dead["error"]["kind"] == "connect"
    assert [yard.current(name) for name in yard.names] == [release, release]
    measured = ran.json()["bench"]
    assert [each["device"] if "error" in each else each["device"]["name"] for each in measured] == [
        "d0",
        "dead1",
        "d1",
    ]
    page = Path("r.html").read_text()
    assert "on dead1 was not measured" in page
    assert "Variants on devices" not in page  # it is the same variant
    assert [each["device"] for each in run("history", "--json").json()] == ["d0", "d1"]
