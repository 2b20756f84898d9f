"""`doctor`, `targets probe` and `targets check`; and what `push` refuses before it sends a byte."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgepack.device.preflight.premises import survey
from edgepack.device.store.lock import LockOptions, hold_device
from edgepack.device.wire.connect import ConnectOptions, open_device
from edgepack.device.wire.local import LocalDevice
from edgepack.device.wire.ssh import SshDevice
from edgepack.flatbuffer import read_flatbuffer, write_flatbuffer
from tests.fixtures.boards import EmulatedBoard
from tests.fixtures.commands import FLOAT_MODEL, RunCommand, listing
from tests.fixtures.graphs import GraphMaker
from tests.fixtures.sshd import SshServer, SshServers, make_key
from tests.test_device_android import make_library, write_aar, write_program

KINDS = Path(__file__).parent / "data" / "kinds"
needs_mount = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root; CI is root")


def topics(body: dict[str, list[dict[str, str]]], *severities: str) -> list[str]:
    """The topics of findings; how busy this machine is stands for itself."""
    return [
        each["topic"]
        for each in body["findings"]
        if each["topic"] != "measuring" and (not severities or each["severity"] in severities)
    ]


@pytest.fixture
def noexec(tmp_path: Path) -> Iterator[Path]:
    """A folder that no program runs from, with room for a few files."""
    folder = tmp_path / "noexec"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "noexec,size=4m", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def copy_python(folder: Path, *, without: str) -> Path:
    """Give a folder with this interpreter and its library but for one extension and package."""
    library = Path(os.__file__).parent
    name = f"lib/{library.name}"
    (folder / name / "lib-dynload").mkdir(parents=True)
    (folder / "bin").mkdir()
    shutil.copy2(Path(sys.executable).resolve(), folder / "bin/python3")
    for source in (*library.iterdir(), *(library / "lib-dynload").iterdir()):
        if source.name != "lib-dynload" and not source.name.strip("_").startswith(without):
            (folder / name / source.relative_to(library)).symlink_to(source)
    return folder / "bin"


def write_wide_model(path: Path, num_bytes: int) -> Path:
    """Write a model of few bytes whose tensors between layers take this many."""
    maker = GraphMaker((1, 8, 8, 1))
    num_rows = num_bytes // (4 * 1024)
    shape = (1, num_rows, 1024, 1)
    size = maker.constant(np.array(shape[1:3], np.int32))
    wide = maker.op(
        "RESIZE_NEAREST_NEIGHBOR", [maker.input, size], shape, ("ResizeNearestNeighborOptions", {})
    )
    path.write_bytes(maker.finish(maker.mean(wide)))
    return path


class TestThisMachine:
    def test_a_device_that_is_ready(self, run: RunCommand, bundle: Path, tmp_path: Path) -> None:
        ran = run("doctor", "local:", bundle, "--root", tmp_path / "root", "--json")
        assert ran.code == 0, ran.err
        body = ran.json()
        assert list(body) == ["device", "target", "facts", "runtime", "findings", "fine"]
        assert (body["device"], body["target"]) == ("local:", "laptop-x86-64")
        assert body["runtime"] == {
            "name": "ai-edge-litert",
            "version": "2.3.0",
            "native": False,
            "installed": False,
        }
        assert body["facts"]["root"] == str(tmp_path / "root")
        assert topics(body, "error", "warning") == []
        assert set(body["fine"]) >= {"shell", "target", "runtime", "ops", "disk", "memory", "clock"}
        assert not {"host key", "login", "sftp"} & set(body["fine"])  # there is no SSH
        assert listing(tmp_path) == ["here"]  # nothing is left on the device

    def test_what_a_person_reads(self, run: RunCommand, tmp_path: Path) -> None:
        model = KINDS / "dynamic_range.tflite"
        ran = run(
            *("doctor", "local:", model, "--root", tmp_path / "root"),
            *("--target", "raspberry-pi-4"),
        )
        assert ran.code == 1
        lines = ran.out.splitlines()
        assert lines[0].startswith("local:  ")
        assert lines[0].endswith(", x86_64")
        version = ".".join(map(str, sys.version_info[:2]))
        assert lines[1].startswith("runtime  ai-edge-litert 2.3.0 for Python ")
        assert f" {version}." in lines[1]
        assert lines[1].endswith(", to be sent")
        text = " ".join(ran.out.split())
        assert (
            "error target the device is no raspberry-pi-4: architecture x86_64, but the target's "
            "is aarch64; no CPU feature asimd, which the target requires Pack for the target the "
            "device is;"
        ) in text
        assert lines[-1].startswith("cannot be deployed to: 1 error, ")
        assert max(map(len, lines)) <= 80

    @needs_mount
    def test_errors_are_reported_together_and_push_refuses_the_same(
        self, run: RunCommand, bundle: Path, noexec: Path
    ) -> None:
        root = noexec / "root"
        ran = run("doctor", "local:", bundle, "--root", root, "--json")
        assert ran.code == 1
        errors = [each for each in ran.json()["findings"] if each["severity"] == "error"]
        assert [each["topic"] for each in errors] == ["deploy root", "disk"]
        assert errors[0] == {
            "severity": "error",
            "topic": "deploy root",
            "expected": f"programs and libraries to be loaded from {root}",
            "found": f"{noexec} is mounted noexec (none at {noexec}, tmpfs)",
            "fix": "Give a `--root` on another file system, or remount this one with exec.",
        }
        assert errors[1]["expected"].endswith(" for ai-edge-litert 2.3.0 and digits")
        ran = run("push", bundle, "local:", "--root", root)
        assert ran.code == 1
        said = ran.err[ran.err.index("edgepack: ") :].splitlines()
        assert said[0] == "edgepack: local cannot be deployed to: 2 faults"
        for line, error in zip(said[1:3], errors, strict=True):
            expected = f"{error['topic']}: expected {error['expected']}, but {error['found']}"
            assert line.strip() == f"- {expected}"
        assert listing(noexec) == []

    def test_a_python_without_all_of_its_library(
        self,
        run: RunCommand,
        bundle: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """As Debian's python3-minimal and OpenWrt's python3-light are."""
        folder = copy_python(tmp_path / "minimal", without="ctypes")
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        options = ("--root", tmp_path / "root")
        ran = run("doctor", "local:", *options, "--json")
        (error,) = [each for each in ran.json()["findings"] if each["severity"] == "error"]
        assert error["topic"] == "python"
        assert error["found"] == f"{folder}/python3 does not have _ctypes, ctypes"
        for verb in ("push", "bench"):
            ran = run(verb, bundle, "local:", *options)
            assert ran.code == 1
            assert ran.err.splitlines()[-2:] == [
                f"edgepack: python: expected {error['expected']}, but {error['found']}",
                f"  {error['fix']}",
            ]
        assert not (tmp_path / "root").exists()

    def test_a_model_that_the_native_runner_does_not_load(
        self, run: RunCommand, tmp_path: Path
    ) -> None:
        """LiteRT 2.3 has FULLY_CONNECTED 14, the native runner's library 12."""
        tree = read_flatbuffer(FLOAT_MODEL.read_bytes())
        dense = next(each for each in tree.operatorCodes if each.deprecatedBuiltinCode == 9)
        dense.version = 14
        model = tmp_path / "new.tflite"
        model.write_bytes(write_flatbuffer(tree))
        options = ("--root", tmp_path / "root", "--json")
        assert topics(run("doctor", "local:", model, *options).json(), "error") == []
        ran = run("doctor", "local:", model, "--runner", "native", *options)
        assert ran.code == 1
        (error,) = [each for each in ran.json()["findings"] if each["topic"] == "ops"]
        assert error["expected"] == "the op FULLY_CONNECTED at version 14"
        assert error["found"] == "tensorflow-lite-c 2.17.1 loads up to version 12"
        ran = run("bench", model, "local:", "--runner", "native", "--root", tmp_path / "root")
        assert ran.code == 1
        assert "edgepack: ops: expected the op FULLY_CONNECTED at version 14, but " in ran.err
        assert not (tmp_path / "root").exists()

    def test_a_runtime_for_another_kind_of_device(self, run: RunCommand, tmp_path: Path) -> None:
        entry = {"jni/arm64-v8a/libtensorflowlite_jni.so": make_library()}
        aar = write_aar(tmp_path / "litert.aar", entry)
        program = write_program(tmp_path / "runner")
        ran = run("doctor", "local:", "--runtime", aar, "--runtime-program", program, "--json")
        assert ran.code == 1
        body = ran.json()
        assert body["runtime"] is None
        (error,) = [each for each in body["findings"] if each["severity"] == "error"]
        assert error["topic"] == "runtime"
        assert " is for stock Android, but " in error["found"]

    def test_too_little_memory(self, run: RunCommand, tmp_path: Path) -> None:
        """More than is free is a warning, and more than there is at all is refused."""
        options = ("--root", tmp_path / "root")
        ram_bytes = run("doctor", "local:", *options, "--json").json()["facts"]["ram_bytes"]
        tight = write_wide_model(tmp_path / "tight.tflite", ram_bytes - 2 * 2**20)
        ran = run("doctor", "local:", tight, *options, "--json")
        assert ran.code == 0
        (warning,) = [each for each in ran.json()["findings"] if each["topic"] == "memory"]
        assert warning["severity"] == "warning"
        assert re.fullmatch(
            r"\d+ MiB of free memory: .* 57 MiB of the runtime", warning["expected"]
        )
        large = write_wide_model(tmp_path / "large.tflite", ram_bytes + 2 * 2**20)
        ran = run("bench", large, "local:", *options)
        assert ran.code == 1
        message, remedy = ran.err.splitlines()[-2:]
        assert re.fullmatch(
            r"edgepack: memory: expected at least \d+ MiB of RAM: 0\.0 MiB of weights and "
            r"\d+\.\d MiB between layers, but the device has \d+ MiB in all",
            message,
        )
        assert remedy.startswith("  Quantize the model further, ")
        assert not (tmp_path / "root").exists()

    def test_who_holds_the_device(self, run: RunCommand, tmp_path: Path) -> None:
        root = tmp_path / "root"
        options = ("--root", root, "--json")
        assert "lock" in run("doctor", "local:", *options).json()["fine"]
        assert not root.exists()
        lock = LockOptions(purpose="bench", wait_seconds=0)
        with hold_device(LocalDevice(), root=str(root), options=lock):
            ran = run("doctor", "local:", *options)
            assert ran.code == 0
            (warning,) = [each for each in ran.json()["findings"] if each["topic"] == "lock"]
            assert warning["severity"] == "warning"
            assert re.fullmatch(
                r"it is held by \S+@\S+ \(bench since [\d: -]+ UTC\)", warning["found"]
            )
        assert "lock" in run("doctor", "local:", *options).json()["fine"]

    def test_a_second_device_is_told_as_that(self, run: RunCommand) -> None:
        ran = run("doctor", "local:", "adb:")
        assert ran.code == 2
        assert (
            "'adb:' is no file; doctor takes one device, and after it a bundle or a model."
        ) in " ".join(ran.err.split())
        assert "File 'none.tflite' does not exist" in run("doctor", "local:", "none.tflite").err

    def test_unknown_targets_and_damaged_bundles_are_usual_mistakes(self, run: RunCommand) -> None:
        ran = run("doctor", "local:", "--target", "raspberry-pi-44")
        assert ran.code == 2
        assert "unknown target 'raspberry-pi-44'; did you mean 'raspberry-pi-4'?" in ran.err
        Path("x.edgepack").write_bytes(b"PK nothing")
        assert run("doctor", "local:", "x.edgepack").code == 1


@pytest.mark.sshd
class TestOverSsh:
    def test_a_server_without_sftp_is_noted(
        self, run: RunCommand, ssh_server: SshServer, ssh_servers: SshServers, tmp_path: Path
    ) -> None:
        without = ssh_servers.start("Subsystem nothing /bin/false")
        for server, expected in ((ssh_server, []), (without, ["sftp"])):
            ran = run(
                *("doctor", server.address, FLOAT_MODEL, "--ssh-config", server.ssh_config),
                *("--root", tmp_path / "root", "--json"),
            )
            assert ran.code == 0, ran.err
            assert topics(ran.json()) == expected
            assert set(ran.json()["fine"]) >= {"connection", "host key", "login"}
            assert ("sftp" in ran.json()["fine"]) == (expected == [])
        (note,) = [each for each in ran.json()["findings"] if each["topic"] == "sftp"]
        assert note["severity"] == "note"
        assert note["found"] == "there is none"

    def test_an_sftp_program_that_is_missing(self, ssh_servers: SshServers) -> None:
        server = ssh_servers.start("Subsystem sftp /nowhere/sftp-server")
        options = ConnectOptions(ssh_config=server.ssh_config)
        with open_device(server.address, options=options) as device:
            assert isinstance(device, SshDevice)
            assert device.offers_sftp(timeout_seconds=10) is False
            assert survey(device, "~/.edgepack-none")[1].missing_tools == ()

    def test_what_keeps_a_device_from_being_asked(
        self, run: RunCommand, ssh_server: SshServer, tmp_path: Path
    ) -> None:
        key = make_key(tmp_path / "other")
        stranger = tmp_path / "config"
        stranger.write_text(
            f"Host *\n  UserKnownHostsFile {ssh_server.known_hosts}\n  IdentityAgent none\n"
            f"  IdentitiesOnly yes\n  IdentityFile {key}\n"
        )
        unknown = ssh_server.write_config("unknown", f"UserKnownHostsFile {tmp_path}/none")
        for address, config, topic, word in (
            ("nobody@127.0.0.1:1", ssh_server.ssh_config, "connection", "no connection to"),
            (ssh_server.address, unknown, "host key", " is unknown."),
            (ssh_server.address, stranger, "login", "refused the login"),
        ):
            ran = run("doctor", address, "--ssh-config", config, "--json")
            assert ran.code == 1
            body = ran.json()
            assert (body["device"], body["facts"], body["runtime"]) == (address, None, None)
            (error,) = body["findings"]
            assert (error["severity"], error["topic"]) == ("error", topic)
            assert word in error["found"]
            assert error["fix"]
            ran = run("doctor", address, "--ssh-config", config)
            assert ran.code == 1
            assert ran.out.splitlines()[-1] == "cannot be deployed to: 1 error"

    def test_a_profile_is_drafted_over_ssh(
        self, run: RunCommand, ssh_server: SshServer, bundle: Path
    ) -> None:
        options = ("--ssh-config", ssh_server.ssh_config)
        ran = run("targets", "probe", ssh_server.address, *options, "-o", "mine.toml")
        assert ran.code == 0, ran.err
        assert "wrote mine.toml; look at what is marked default" in ran.err
        first = Path("mine.toml").read_text()
        assert run("targets", "check", "mine.toml").out == "mine.toml: a valid target profile\n"
        ran = run("doctor", ssh_server.address, bundle, "--target", "mine.toml", *options, "--json")
        assert ran.code == 0, ran.err
        assert ran.json()["target"] == "mine"
        assert "target" not in topics(ran.json())
        # The same device gives the same profile, and nothing is replaced unasked.
        Path("mine.toml").write_text(f"{first}# mine\n")
        ran = run("targets", "probe", ssh_server.address, *options, "-o", "mine.toml")
        assert ran.code == 1
        assert ran.err.splitlines()[-2:] == [
            "edgepack: mine.toml: expected a free name, but a file is there",
            "  Give another name, or --force to replace it.",
        ]
        assert Path("mine.toml").read_text() == f"{first}# mine\n"
        ran = run("targets", "probe", ssh_server.address, *options, "-o", "mine.toml", "--force")
        assert ran.code == 0
        assert Path("mine.toml").read_text() == first


class TestProfiles:
    def test_printed_or_in_a_folder(self, run: RunCommand) -> None:
        ran = run("targets", "probe", "local:", "--id", "lab-machine")
        assert ran.code == 0, ran.err
        assert ran.out.splitlines()[0] == "# lab-machine"
        assert listing(Path.cwd()) == []
        Path("targets").mkdir()
        ran = run("targets", "probe", "local:", "--id", "lab-machine", "-o", "targets", "--json")
        body = ran.json()
        assert (body["id"], body["path"]) == ("lab-machine", "targets/lab-machine.toml")
        assert body["profile"]["hardware"]["arch"] == "x86_64"
        written = Path("targets/lab-machine.toml").read_text()
        assert run("targets", "probe", "local:", "--id", "lab-machine").out.endswith(written)

    def test_names_that_cannot_be(self, run: RunCommand) -> None:
        for options, code, message in (
            (("-o", "mine.txt"), 2, "mine.txt: expected a name that ends in .toml"),
            (("-o", "a.toml", "--id", "b"), 2, "--id b: expected the file's name without .toml"),
            (("--id", "My Board"), 2, "expected lowercase letters, digits, '.' and '-'"),
        ):
            ran = run("targets", "probe", "local:", *options)
            assert ran.code == code
            assert message in ran.err
        assert listing(Path.cwd()) == []

    def test_all_faults_of_all_files_are_told(self, run: RunCommand) -> None:
        Path("good.toml").write_text(run("targets", "probe", "local:", "--id", "good").out)
        Path("bad.toml").write_text('schema = 1\ndescription = "x"\nuser = "pi"\n')
        ran = run("targets", "check", "good.toml", "bad.toml", "none.toml")
        assert ran.code == 1
        assert ran.out == "good.toml: a valid target profile\n"
        assert "bad.toml: target profile 'bad': 6 faults" in ran.err
        assert "none.toml: target profile" in ran.err
        ran = run("targets", "check", "good.toml", "none.toml", "--json")
        assert ran.code == 1
        good, none = ran.json()
        assert good == {"path": "good.toml", "id": "good", "error": None}
        assert "cannot be read: No such file or directory" in none["error"]


@pytest.mark.emulated
@pytest.mark.xdist_group("boards")
@pytest.mark.timeout(900)
def test_an_emulated_raspberry_pi_4(run: RunCommand, pi4_board: EmulatedBoard) -> None:
    options = ("--ssh-config", pi4_board.ssh_config, "--json")
    ran = run("doctor", pi4_board.address, FLOAT_MODEL, "--target", "raspberry-pi-4", *options)
    assert ran.code == 0, ran.err
    body = ran.json()
    assert body["facts"]["board"] == "Raspberry Pi 4 Model B Rev 1.5"
    assert body["runtime"]["name"] == "ai-edge-litert"
    # It has one core, and the target four.
    assert [each["found"] for each in body["findings"] if each["topic"] == "target"] == [
        "it has 1 online"
    ]
    assert topics(body, "error") == []
    ran = run("targets", "probe", pi4_board.address, "-o", "pi.toml", *options)
    assert ran.code == 0, ran.err
    hardware = ran.json()["profile"]["hardware"]
    assert (hardware["cpu"], hardware["features"]) == ("Cortex-A72", ["asimd"])
