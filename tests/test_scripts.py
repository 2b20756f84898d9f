"""The README's first command, run as a new user would: in a checkout that nothing was made in."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from edgepack.measure.results import load_measurements


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what git tracks."""
    source = Path(__file__).parent.parent
    target = tmp_path_factory.mktemp("checkout")
    listed = subprocess.run(
        ("git", "ls-files", "-z"), cwd=source, check=True, capture_output=True
    ).stdout
    for name in listed.decode().split("\0"):
        if name and (source / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, target / name)
    return target


@pytest.mark.toolchain
@pytest.mark.sshd
@pytest.mark.timeout(900)
def test_quickstart_ends_in_numbers_and_a_report(checkout: Path) -> None:
    argv = ("scripts/quickstart", "--launches", "6", "--max-seconds", "6")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("XDG_CONFIG")}
    # The device is measured anew each time, and near ties may end otherwise: the second run packs
    # what the first one chose.
    recipe = "out/recipe.toml"
    first = subprocess.run(
        (*argv, "--save-recipe", recipe),
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert first.returncode == 0, first.stderr
    assert "==> making the environment .venv" in first.stderr.replace("\033[1m", "").replace(
        "\033[0m", ""
    )
    assert "started an SSH server for this demonstration" in first.stderr
    report = checkout / "out" / "report.html"
    assert f"report: {report}" in first.stdout
    assert "<svg" in report.read_text(encoding="utf-8")
    (measurement,) = load_measurements(checkout / "out" / "results.json")
    assert measurement.device_name == "quickstart"
    assert measurement.golden is not None
    assert measurement.golden.passed
    assert measurement.summary.num_launches == 6
    assert f"{measurement.model.name}-" in first.stdout
    assert (checkout / "out" / "digits.edgepack").is_file()

    second = subprocess.run(
        (*argv, "--recipe", recipe, "--json"),
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode == 0, second.stderr
    assert "making the environment" not in second.stderr
    body = json.loads(second.stdout)
    assert body["push"][0]["sent_bytes"] == 0
    assert body["push"][0]["runtime_bytes"] == 0


def test_loopback_server_leaves_nothing_running(tmp_path: Path) -> None:
    if shutil.which("ssh-keygen") is None or not Path("/usr/sbin/sshd").exists():
        pytest.skip("no OpenSSH server")
    script = Path(__file__).parent.parent / "scripts" / "loopback-sshd"
    subprocess.run((script, "start", tmp_path), check=True)
    pid = int((tmp_path / "sshd.pid").read_text())
    assert Path(f"/proc/{pid}").exists()
    ran = subprocess.run(
        ("ssh", "-F", tmp_path / "ssh_config", "quickstart", "echo", "here"),
        check=True,
        capture_output=True,
    )
    assert ran.stdout == b"here\n"
    subprocess.run((script, "stop", tmp_path), check=True)
    subprocess.run(("timeout", "10", "tail", f"--pid={pid}", "-f", "/dev/null"), check=True)
