"""Bad input on the command line: one clear message with its remedy, and nothing half-written."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgepack.catalog import user_profile_directory
from tests.fixtures.commands import DIGITS, FLOAT_MODEL, Ran, RunCommand, listing
from tests.fixtures.models import small_model, with_custom_op

_NOISE = np.random.default_rng(1).bytes(5000)
_PACK = ("--target", "laptop-x86-64", "--recipe", "float32")


def assert_told(ran: Ran, *, code: int, message: str, remedy: str = "") -> None:
    """One message and a remedy, no traceback, nothing in the folder it ran in."""
    assert ran.code == code, ran.err
    said = ran.err[ran.err.index("edgepack: ") :]
    assert message in said
    first, *rest = said.removeprefix("edgepack: ").splitlines()
    assert first
    assert rest, "a remedy is missing"
    assert all(line.startswith("  ") or line for line in rest)
    assert remedy in said
    assert "Traceback" not in ran.err
    assert ran.out == ""
    assert [each for each in listing(Path.cwd()) if each.endswith((".edgepack", ".tmp"))] == []


class TestModels:
    def _write(self, name: str, data: bytes) -> Path:
        path = Path(name)
        path.write_bytes(data)
        return path

    @pytest.mark.parametrize("verb", ["pack", "bench"])
    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", "empty"),
            (FLOAT_MODEL.read_bytes()[:20_000], "truncated"),
            (_NOISE, "m.tflite: expected "),
        ],
        ids=["empty", "truncated", "random"],
    )
    def test_damaged(self, run: RunCommand, verb: str, data: bytes, message: str) -> None:
        path = self._write("m.tflite", data)
        options = _PACK if verb == "pack" else ()
        device = () if verb == "pack" else ("local:",)
        assert_told(run(verb, path, *device, *options), code=1, message=message)

    @pytest.mark.parametrize("name", ["m.keras", "m.h5", "m.onnx"])
    @pytest.mark.parametrize(
        "data",
        [b"", _NOISE, FLOAT_MODEL.read_bytes()],
        ids=["empty", "random", "tflite"],
    )
    def test_not_what_the_name_says(self, run: RunCommand, name: str, data: bytes) -> None:
        path = self._write(name, data)
        assert_told(run("pack", path, *_PACK), code=1, message=name)

    def test_an_unknown_suffix(self, run: RunCommand) -> None:
        path = self._write("m.caffemodel", b"x" * 100)
        ran = run("pack", path, *_PACK)
        assert_told(ran, code=1, message="m.caffemodel", remedy=".onnx")

    def test_a_missing_model(self, run: RunCommand) -> None:
        ran = run("pack", "absent.keras", *_PACK)
        assert_told(ran, code=2, message="'absent.keras' does not exist", remedy="edgepack pack")

    @pytest.mark.parametrize("verb", ["pack", "bench"])
    def test_an_unsupported_op_is_named(self, run: RunCommand, verb: str, tmp_path: Path) -> None:
        path = self._write("m.tflite", with_custom_op(small_model("cnn"), "Frobnicate").data)
        arguments = _PACK if verb == "pack" else ("local:", "--root", tmp_path / "root")
        assert_told(run(verb, path, *arguments), code=1, message="Frobnicate")


class TestData:
    def _pack(self, run: RunCommand, data: str | Path) -> Ran:
        return run("pack", FLOAT_MODEL, *_PACK, "--data", data)

    def test_a_missing_array(self, run: RunCommand) -> None:
        np.savez("d.npz", wrong=np.zeros((4, 8, 8, 1), np.float32))
        ran = self._pack(run, "d.npz")
        assert_told(ran, code=1, message="pixels")
        assert "wrong" in ran.err

    def test_a_wrong_shape(self, run: RunCommand) -> None:
        np.savez("d.npz", pixels=np.zeros((4, 9, 9, 1), np.float32))
        ran = self._pack(run, "d.npz")
        assert_told(ran, code=1, message="pixels")
        assert "expected shape (N, 8, 8, 1), but got (4, 9, 9, 1)" in ran.err

    def test_not_a_number(self, run: RunCommand) -> None:
        pixels = np.zeros((4, 8, 8, 1), np.float32)
        pixels[2, 3, 3, 0] = np.nan
        np.savez("d.npz", pixels=pixels)
        assert_told(self._pack(run, "d.npz"), code=1, message="NaN")

    def test_no_file(self, run: RunCommand) -> None:
        assert_told(
            self._pack(run, "absent.npz"),
            code=2,
            message="data 'absent.npz': expected an .npz, an .npy, a folder of images or "
            "module:function, but there is no such file",
            remedy="numpy.savez",
        )

    def test_one_sample_is_too_few_to_split(self, run: RunCommand) -> None:
        np.savez("d.npz", pixels=np.zeros((1, 8, 8, 1), np.float32))
        assert_told(
            self._pack(run, "d.npz"), code=1, message="expected at least two", remedy="--eval-data"
        )

    def test_labels_without_samples(self, run: RunCommand) -> None:
        np.save("l.npy", np.zeros(4, np.int64))
        ran = run("pack", FLOAT_MODEL, *_PACK, "--labels", "l.npy")
        assert_told(ran, code=1, message="--labels: there are no samples", remedy="--data")


class TestNames:
    def test_target(self, run: RunCommand) -> None:
        ran = run("pack", FLOAT_MODEL, "--target", "raspbery-pi-4")
        assert_told(ran, code=2, message="did you mean 'raspberry-pi-4'?", remedy="targets list")

    def test_recipe(self, run: RunCommand) -> None:
        ran = run("pack", FLOAT_MODEL, "--target", "laptop-x86-64", "--recipe", "flot16")
        assert_told(ran, code=2, message="did you mean 'float16'?")

    def test_one_recipe_twice(self, run: RunCommand) -> None:
        ran = run("pack", FLOAT_MODEL, *_PACK, "--recipe", "float32")
        assert_told(ran, code=2, message="--recipe: float32 stands twice")

    def test_key_in_a_target_file(self, run: RunCommand) -> None:
        text = run("targets", "show", "raspberry-pi-4").out.replace("ram_mib", "ram_mb")
        path = user_profile_directory() / "mine.toml"
        path.parent.mkdir(parents=True)
        path.write_text(text)
        ran = run("pack", FLOAT_MODEL, "--target", "mine")
        assert_told(ran, code=2, message="hardware.ram_mb")
        assert "did you mean 'ram_mib'?" in ran.err

    def test_key_in_a_recipe_file(self, run: RunCommand, tmp_path: Path) -> None:
        path = tmp_path / "r.toml"
        path.write_text('scheme = "float16"\npruning = 0.5\n')
        ran = run("pack", FLOAT_MODEL, "--target", "laptop-x86-64", "--recipe", path)
        assert_told(ran, code=2, message="pruning")

    def test_verb(self, run: RunCommand) -> None:
        assert_told(run("pock"), code=2, message="unknown verb 'pock'; did you mean 'pack'?")

    def test_option(self, run: RunCommand) -> None:
        ran = run("pack", FLOAT_MODEL, *_PACK, "--objectiv", "size")
        assert_told(ran, code=2, message="--objectiv", remedy="Try 'edgepack pack --help'.")

    @pytest.mark.parametrize(
        ("option", "value", "message"),
        [
            ("--input-shape", "1,2", "--input-shape: expected NAME=1,3,224,224"),
            ("--min-agreement", "lots", "--min-agreement: expected a share such as 90%"),
            ("--max-drop", "-1", "--max-drop: expected percentage points such as 1%"),
            ("--max-drop", "0.03", "--max-drop: 0.03 could be 0.03 percentage points or a share"),
            ("--prune", "half", "--prune: expected a share such as 90% or 0.9, not 'half'"),
            ("--image-size", "big", "--image-size: expected HEIGHTxWIDTH"),
            ("--image-mean", "a,b", "--image-mean: expected numbers separated by commas"),
        ],
    )
    def test_value(self, run: RunCommand, option: str, value: str, message: str) -> None:
        ran = run("pack", FLOAT_MODEL, *_PACK, option, value)
        assert_told(ran, code=2, message=message, remedy="Write ")

    @pytest.mark.parametrize("option", ["--convert-memory", "--convert-timeout", "--allow-parity"])
    def test_a_number_that_is_none(self, run: RunCommand, option: str) -> None:
        ran = run("pack", FLOAT_MODEL, *_PACK, option, "nan")
        assert_told(ran, code=2, message="'nan' is not a valid number", remedy="Try ")

    def test_options_without_anything_to_apply_to(self, run: RunCommand) -> None:
        ran = run("pack", FLOAT_MODEL, *_PACK, "--root", "/opt/here", "--accept-new-host-key")
        assert_told(
            ran,
            code=2,
            message="--accept-new-host-key, --root: there is no device this could apply to",
            remedy="Give one with --device, or leave it out.",
        )
        ran = run("pack", FLOAT_MODEL, *_PACK, "--data", DIGITS, "--image-mean", "0.5")
        assert_told(ran, code=2, message=f"but {DIGITS} holds arrays", remedy="Leave them out")
        ran = run("pack", FLOAT_MODEL, *_PACK, "--image-size", "8x8")
        assert_told(ran, code=2, message="but there is no --data", remedy="Leave them out")

    def test_a_pruned_share_of_everything(self, run: RunCommand) -> None:
        ran = run("pack", FLOAT_MODEL, *_PACK, "--prune", "100%")
        assert_told(ran, code=2, message="--prune: expected at most 99%, not '100%'")


@pytest.fixture
def no_permission(tmp_path: Path) -> Iterator[Path]:
    """A folder that not even root may write to."""
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o555)
    if os.geteuid() != 0:
        yield folder
        folder.chmod(0o755)
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


class TestDisks:
    def test_no_permission_here(self, run: RunCommand, no_permission: Path) -> None:
        for arguments in (
            ("pack", FLOAT_MODEL, *_PACK, "-o", no_permission / "d.edgepack"),
            ("pack", FLOAT_MODEL, *_PACK, "-o", no_permission),
            ("bench", FLOAT_MODEL, "local:", "-o", no_permission / "r.json"),
            ("bench", FLOAT_MODEL, "local:", "--report", no_permission / "new" / "r.html"),
        ):
            ran = run(*arguments)
            assert_told(
                ran,
                code=1,
                message=f"cannot be written: no permission to write to {no_permission}",
                remedy="Give a path in a folder you may write to, on a disk with room.",
            )
            # Said before any work.
            assert ran.err.startswith("edgepack: ")
        assert listing(no_permission) == []

    def test_no_permission_on_the_device(
        self, run: RunCommand, no_permission: Path, bundle: Path
    ) -> None:
        ran = run("push", bundle, "local:", "--root", no_permission / "root")
        assert_told(ran, code=1, message=str(no_permission), remedy="--root")
        assert listing(no_permission) == []

    @pytest.mark.usefixtures("run")
    def test_a_full_disk_here(self, tmp_path: Path) -> None:
        # A limit on a file's size fails a write as a full disk does, for every user.
        out = tmp_path / "out"
        out.mkdir()
        ran = _run_limited("pack", FLOAT_MODEL, *_PACK, "-o", out / "d.edgepack")
        assert ran.returncode == 1, ran.stderr
        assert "cannot be written: File too large\n  Free some space" in ran.stderr
        assert "Traceback" not in ran.stderr
        assert listing(out) == []

    def test_a_full_disk_on_the_device(self, run: RunCommand, tmp_path: Path, bundle: Path) -> None:
        # The runtime is downloaded by then: here there is room.
        assert run("push", bundle, "local:", "--root", tmp_path / "other").code == 0
        root = tmp_path / "root"
        ran = _run_limited("push", bundle, "local:", "--root", root)
        assert ran.returncode == 1, ran.stderr
        assert "Traceback" not in ran.stderr
        said = ran.stderr[ran.stderr.index("edgepack: ") :]
        assert "local:" in said
        assert len(said.splitlines()) >= 2
        assert not list(root.rglob("current"))
        assert [each for each in root.rglob("*") if each.is_file()] == []

    @pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root; CI is root")
    def test_too_little_room_on_the_device_is_said_beforehand(
        self, run: RunCommand, tmp_path: Path, bundle: Path
    ) -> None:
        folder = tmp_path / "small"
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", folder], check=True)
        try:
            ran = run("push", bundle, "local:", "--root", folder / "root")
            assert_told(ran, code=1, message="MiB of room")
            assert not [each for each in folder.rglob("*") if each.is_file()]
        finally:
            subprocess.run(["umount", folder], check=True)


def _run_limited(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command line as a process whose files can have 100 kB at most."""
    prlimit = shutil.which("prlimit")
    assert prlimit is not None
    return subprocess.run(
        [prlimit, "--fsize=100000", sys.executable, "-m", "edgepack", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_bug_is_told_with_a_file_to_send(
    run: RunCommand, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("the sky fell")

    monkeypatch.setattr("edgepack.bundle.archive.verify_bundle", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ran = run("verify", DIGITS, "--json")
    assert ran.code == 3
    error = ran.json()["error"]
    assert error["kind"] == "bug"
    assert error["message"] == "EdgePack has a bug here: ValueError: the sky fell"
    (log,) = tmp_path.glob("edgepack-bug-*.log")
    assert str(log) in error["remedy"]
    assert "Traceback" in log.read_text()
    assert "Traceback" not in ran.err
