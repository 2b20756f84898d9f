"""The wheel and the editable install hold everything, and work from any directory."""

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from edgepack import __version__

READ_ALL = """
import sys
from importlib import resources
from pathlib import Path
from edgepack.catalog import find_profile, list_profiles
import edgepack

text = (resources.files("edgepack.targets") / "raspberry-pi-4.toml").read_text("utf-8")
profile, origin = find_profile("raspberry-pi-4", user_directory=None)
assert origin.text == text
assert profile.hardware.cpu == "Cortex-A72"
assert len(list_profiles(user_directory=None)) == 12
locks = resources.files("edgepack") / "toolchains" / "locks"
assert "tensorflow" in (locks / "tensorflow.txt").read_text("utf-8")
print(Path(edgepack.__file__).parent)
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """A copy of what an installer sees, so that building leaves nothing in the checkout."""
    copy = tmp_path_factory.mktemp("source")
    ignored = shutil.ignore_patterns("__pycache__", ".*_cache")
    for folder in ("edgepack", "targets"):
        shutil.copytree(repository / folder, copy / folder, ignore=ignored)
    for name in ("setup.cfg", "pyproject.toml"):
        shutil.copy2(repository / name, copy / name)
    (copy / "README.md").write_text("# EdgePack\n")
    return copy


def build(source: Path, hook: str, folder: Path) -> Path:
    """Call the build backend as pip does (PEP 517, PEP 660), without fetching another one."""
    program = (
        "import sys\n"
        "from setuptools import build_meta\n"
        f"print('built:' + build_meta.{hook}(sys.argv[1]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, str(folder)],
        cwd=source,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return folder / done.stdout.rsplit("built:", maxsplit=1)[1].strip()


def install(wheel: Path, folder: Path) -> Path:
    """Install a wheel alone in an environment of its own and give its interpreter."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "install", "--quiet", "--no-index", "--no-deps", str(wheel)], check=True, timeout=120
    )
    return python


def run_elsewhere(python: Path, folder: Path) -> Path:
    """Read the packaged data from another directory; give where the package was found."""
    folder.mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        [str(python), "-W", "error", "-c", READ_ALL],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(source, "build_wheel", tmp_path_factory.mktemp("wheel"))


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(
    source: Path, wheel: Path
) -> None:
    expected = {
        f"{prefix}{path.relative_to(source).as_posix()}"
        for folder, prefix in (("edgepack", ""), ("targets", "edgepack/"))
        for path in (source / folder).rglob("*")
        if path.is_file()
    }
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == expected
    assert "edgepack/py.typed" in names
    assert "edgepack/device/runtime/runtimes.toml" in names
    assert {name for name in names if name.startswith("edgepack/toolchains/locks/")} == {
        "edgepack/toolchains/locks/onnx-tf.txt",
        "edgepack/toolchains/locks/onnx.txt",
        "edgepack/toolchains/locks/onnx2tf-tensorflow.txt",
        "edgepack/toolchains/locks/pytorch.txt",
        "edgepack/toolchains/locks/tensorflow.txt",
        "edgepack/toolchains/locks/zig.txt",
    }
    assert sum(name.startswith("edgepack/targets/") for name in names) == 13


def test_the_wheel_is_small_and_pure(wheel: Path) -> None:
    assert wheel.name == f"edgepack-{__version__}-py3-none-any.whl"
    assert wheel.stat().st_size < 1_250_000
    with zipfile.ZipFile(wheel) as archive:
        scripts = archive.read(f"edgepack-{__version__}.dist-info/entry_points.txt")
    assert scripts == b"[console_scripts]\nedgepack = edgepack.cli:main\n"


def test_an_installed_wheel_reads_its_profiles(wheel: Path, tmp_path: Path) -> None:
    python = install(wheel, tmp_path / "venv")
    found = run_elsewhere(python, tmp_path / "elsewhere")
    assert found.is_relative_to(tmp_path / "venv")


def test_an_editable_install_reads_its_profiles(source: Path, tmp_path: Path) -> None:
    editable = build(source, "build_editable", tmp_path)
    python = install(editable, tmp_path / "venv")
    found = run_elsewhere(python, tmp_path / "elsewhere")
    assert found == source / "edgepack"
    profile = source / "targets" / "door-camera.toml"
    text = (source / "targets" / "raspberry-pi-4.toml").read_text()
    profile.write_text(text.replace("Raspberry", "Strawberry"))
    program = (
        "from edgepack.catalog import find_profile\n"
        "print(find_profile('door-camera', user_directory=None)[0].description)"
    )
    try:
        shown = subprocess.run(
            [str(python), "-c", program],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
    finally:
        profile.unlink()
    assert shown.stdout.startswith("Strawberry Pi 4")
