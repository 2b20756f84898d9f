"""`push`, `bench`, `deploy` and `report`: on this machine and over a real SSH server."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from edgepack.bundle.archive import open_bundle
from tests.fixtures.commands import DIGITS, FLOAT_MODEL, QUICK, RunCommand, listing
from tests.fixtures.sshd import SshServer

_PUSH_KEYS = {
    *("device", "release", "sent_bytes", "skipped_bytes", "wire_bytes", "compression"),
    *("runtime_bytes", "seconds", "example"),
}
_BENCH_KEYS = {"schema", "device", "engine", "launches", "summary", "golden", "validity"}


def _current(root: Path, name: str) -> str:
    """The release that `current` leads to."""
    (link,) = [each for each in root.rglob("current") if name in str(each)]
    return link.resolve().name


def test_push_json_and_an_unchanged_bundle_sends_nothing(
    run: RunCommand, bundle: Path, device_root: Path
) -> None:
    first = run("push", bundle, "local:", "--root", device_root, "--json")
    assert first.code == 0, first.err
    body = first.json()
    assert set(body) >= _PUSH_KEYS
    assert body["device"] == "local:"
    assert body["release"] == open_bundle(bundle).release
    second = run("push", bundle, "local:", "--root", device_root, "--json").json()
    assert (body["wire_bytes"], body["compression"]) == (body["sent_bytes"], None)
    assert second["sent_bytes"] == second["wire_bytes"] == 0
    assert second["runtime_bytes"] == 0
    assert second["skipped_bytes"] == body["sent_bytes"] + body["skipped_bytes"] > 0


def test_push_says_what_is_current(run: RunCommand, bundle: Path, device_root: Path) -> None:
    ran = run("push", bundle, "local:", "--root", device_root)
    assert ran.code == 0
    release = open_bundle(bundle).release
    current, example = ran.err.splitlines()[-2:]
    assert current == f"local: release {release} is current"
    assert re.fullmatch(rf"local: try it there: \S+ \S+/{release}/example.py --golden", example)
    tried = subprocess.run(
        shlex.split(example.partition("there: ")[2]), capture_output=True, text=True, check=True
    )
    assert tried.stdout.startswith("output_0: float32 (1, 10)\n")
    assert release in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80


def test_bench_times_exactly_the_bundle_it_was_given(
    run: RunCommand, bundle: Path, int8_bundle: Path, device_root: Path
) -> None:
    assert run("push", bundle, "local:", "--root", device_root).code == 0
    current = _current(device_root, "digits")
    assert current == open_bundle(bundle).release
    ran = run("bench", int8_bundle, "local:", "--root", device_root, *QUICK, "--json")
    assert ran.code == 0, ran.err
    body = ran.json()
    assert body["model"]["bundle_sha256"] == open_bundle(int8_bundle).sha256
    assert body["model"]["recipe"] == "int8"
    assert body["golden"]["passed"] is True
    assert _current(device_root, "digits") == current


def test_bench_of_a_bare_model_has_the_json_others_rely_on(
    run: RunCommand, device_root: Path
) -> None:
    ran = run("bench", FLOAT_MODEL, "local:", "--root", device_root, *QUICK, "--json")
    assert ran.code == 0, ran.err
    body = ran.json()
    assert set(body) >= _BENCH_KEYS
    assert body["device"]["arch"]
    assert body["engine"]["name"] == "ai-edge-litert"
    assert len(body["launches"]) == 6
    for launch in body["launches"]:
        assert launch["init_ns"] > 0
        assert launch["first_ns"] > 0
        assert len(launch["samples_ns"]) >= 5
        assert launch["peak_memory_bytes"] > 0
    summary = body["summary"]
    low, high = summary["median_ci95_ns"]
    assert low <= summary["median_ns"] <= high
    assert summary["median_ns"] <= summary["p90_ns"]
    assert summary["p99_ns"] is None  # fewer than 100 samples
    assert body["golden"]["passed"] is True
    assert body["golden"]["max_abs_error"] >= 0
    assert body["validity"]["verdict"] in {"valid", "noisy", "contended", "throttled"}
    assert isinstance(body["validity"]["reasons"], list)


def test_fewer_launches_than_an_interval_takes_are_said(run: RunCommand, device_root: Path) -> None:
    arguments = ("bench", FLOAT_MODEL, "local:", "--root", device_root, "--launches", "2")
    ran = run(*arguments, "--runs", "5")
    assert ran.code == 0
    assert "needs 6 launches, but there are 2" in ran.out.replace("\n", " ").replace("  ", " ")
    body = run(*arguments, "--runs", "5", "--json").json()
    assert body["summary"]["median_ci95_ns"] is None


def test_results_are_kept_and_reported(run: RunCommand, device_root: Path) -> None:
    ran = run(
        *("bench", FLOAT_MODEL, "local:", "--root", device_root, *QUICK),
        *("-o", "r.json", "--report", "bench.html"),
    )
    assert ran.code == 0, ran.err
    assert ran.err.endswith("wrote r.json\nwrote bench.html\n")
    kept = json.loads(Path("r.json").read_text())
    assert set(kept) >= _BENCH_KEYS
    ran = run("report", "r.json", "--title", "Mine")
    assert ran.code == 0, ran.err
    assert ran.out == f"report: {Path.cwd() / 'report.html'}\n"
    page = Path("report.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert "Mine" in page
    body = run("report", "r.json", "--json").json()
    assert body["report"] == str(Path.cwd() / "report.html")
    assert body["measurements"] == [
        {
            "device": "local:",
            "model": FLOAT_MODEL.name,
            "median_ns": kept["summary"]["median_ns"],
            "verdict": kept["validity"]["verdict"],
        }
    ]
    assert listing(Path.cwd()) == ["bench.html", "r.json", "report.html"]


def test_a_report_of_something_else_is_refused(run: RunCommand) -> None:
    Path("r.json").write_text('{"schema": 99}')
    ran = run("report", "r.json")
    assert ran.code == 1
    assert "r.json" in ran.err
    assert listing(Path.cwd()) == ["r.json"]


def test_outputs_that_would_lose_a_file_are_refused(run: RunCommand) -> None:
    Path("notes.txt").write_text("mine")
    for option in ("-o", "--report"):
        ran = run("bench", FLOAT_MODEL, "local:", option, "notes.txt")
        assert ran.code == 1
        assert ran.err.startswith(
            "edgepack: notes.txt: expected a free name or an earlier output, but another file"
        )
    ran = run("bench", FLOAT_MODEL, "local:", "-o", "x", "--report", "x")
    assert ran.code == 2
    assert Path("notes.txt").read_text() == "mine"
    assert listing(Path.cwd()) == ["notes.txt"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root; CI is root")
def test_deploy_looks_at_the_first_device_again_once_the_bundle_is_known(
    run: RunCommand, bundle: Path, device_root: Path, tmp_path: Path
) -> None:
    """A device with room for the runtime, and none for what is packed."""
    assert run("push", bundle, "local:", "--root", device_root).code == 0
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", small], check=True)
    try:
        (small / "root").mkdir()
        (small / "root/runtimes").symlink_to(device_root / "runtimes")
        Path("large.bin").write_bytes(bytes(16 * 2**20))
        ran = run(
            *("deploy", FLOAT_MODEL, "local:", "--target", "laptop-x86-64", *QUICK),
            *("--root", small / "root", "--recipe", "float32", "--file", "large.bin"),
            *("-o", "d.edgepack", "--report", "r.html"),
        )
        assert ran.code == 1
        message, remedy = ran.err.splitlines()[-2:]
        assert message.startswith(
            f"edgepack: disk: expected 20.2 MiB of room at {small}/root for digits, but "
        )
        assert remedy == "  Free some room on the device, or give another `--root`."
        assert listing(Path.cwd()) == ["d.edgepack", "large.bin"]  # it is packed all the same
        assert not (small / "root/bundles").exists()
    finally:
        subprocess.run(["umount", small], check=True)


@pytest.mark.sshd
class TestOverSsh:
    def test_several_devices_in_the_order_given_and_one_failing(
        self, run: RunCommand, bundle: Path, device_root: Path, ssh_server: SshServer
    ) -> None:
        dead = "nobody@127.0.0.1:1"
        devices = (dead, ssh_server.address, "local:")
        options = ("--root", device_root, "--ssh-config", ssh_server.ssh_config, "--json")
        ran = run("push", bundle, *devices, *options)
        assert ran.code == 1
        failed, over_ssh, here = ran.json()
        assert failed["device"] == dead
        assert set(failed["error"]) == {"kind", "message", "remedy"}
        assert failed["error"]["kind"] == "connect"
        assert over_ssh["device"] == ssh_server.address
        assert here["device"] == "local:"
        assert f"{dead}: " in ran.err

        ran = run("bench", FLOAT_MODEL, ssh_server.address, dead, *QUICK, *options)
        assert ran.code == 1
        measured, failed = ran.json()
        assert set(measured) >= _BENCH_KEYS
        assert failed["error"]["kind"] == "connect"

    def test_a_bundle_is_timed_over_ssh(
        self, run: RunCommand, bundle: Path, device_root: Path, ssh_server: SshServer
    ) -> None:
        ran = run(
            *("bench", bundle, ssh_server.address, "--ssh-config", ssh_server.ssh_config),
            *("--root", device_root, *QUICK),
        )
        assert ran.code == 0, ran.err
        assert "golden check" in ran.out
        assert "launch 6 of 6" in ran.err
        assert max(map(len, ran.out.splitlines())) <= 80

    def test_deploy_is_the_whole_way(
        self, run: RunCommand, device_root: Path, ssh_server: SshServer
    ) -> None:
        ran = run(
            *("deploy", FLOAT_MODEL, ssh_server.address, "local:", "--target", "laptop-x86-64"),
            *("--ssh-config", ssh_server.ssh_config, "--root", device_root, "--data", DIGITS),
            *("--recipe", "int8", "--recipe", "float32", *QUICK),
            *("-o", "d.edgepack", "--results", "r.json", "--report", "r.html", "--json"),
        )
        assert ran.code == 0, ran.err
        body = ran.json()
        assert body["pack"]["measured_on"] == ssh_server.address
        for variant in body["pack"]["variants"]:
            assert variant["device_median_ns"] > 0
        release = open_bundle(Path("d.edgepack")).release
        assert [each["release"] for each in body["push"]] == [release, release]
        assert [each["device"] for each in body["push"]] == [ssh_server.address, "local:"]
        for measured in body["bench"]:
            assert set(measured) >= _BENCH_KEYS
            assert measured["model"]["recipe"] == body["pack"]["chosen"]
        assert body["report"] == str(Path("r.html").resolve())
        assert listing(Path.cwd()) == ["d.edgepack", "r.html", "r.json"]
        assert _current(device_root, "digits") == release
        # One connection to the first device serves for all of it.
        assert ran.err.count(f"connecting to {ssh_server.address}") == 1


def test_a_device_of_another_kind_is_refused(run: RunCommand, tmp_path: Path) -> None:
    ran = run("pack", FLOAT_MODEL, "--target", "raspberry-pi-4", "--recipe", "float32")
    assert ran.code == 0
    (packed,) = listing(Path.cwd())
    for verb in ("push", "bench"):
        ran = run(verb, packed, "local:", "--root", tmp_path / "root")
        assert ran.code == 1
        message, remedy = ran.err.splitlines()[-2:]
        assert message == (
            "edgepack: the device is no raspberry-pi-4: architecture x86_64, but the target's is "
            "aarch64; no CPU feature asimd, which the target requires"
        )
        assert remedy == (
            "  Pack for the target the device is; `edgepack targets list` shows them all, and "
            "`edgepack targets probe DEVICE` writes one."
        )
    assert not (tmp_path / "root").exists()


def test_a_forgotten_colon_is_pointed_out(run: RunCommand) -> None:
    ran = run("bench", FLOAT_MODEL, "local", "--connect-timeout", "5")
    assert ran.code == 1
    assert "Did you mean local: (with a colon), this machine?" in ran.err
