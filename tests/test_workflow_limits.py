"""A target's limits, as its user meets them."""

from pathlib import Path

from tests.fixtures.commands import DIGITS, FLOAT_MODEL, QUICK, RunCommand

TARGET = """
schema = 1
description = "A machine with little patience"
[hardware]
arch = "x86_64"
ram_mib = 64
[quantization]
schemes = ["float32"]
[limits]
{limits}
"""


def pack(run: RunCommand, folder: Path, limits: str) -> Path:
    target = folder / "strict.toml"
    target.write_text(TARGET.format(limits=limits))
    bundle = folder / "d.edgepack"
    ran = run("pack", FLOAT_MODEL, "--target", target, "--data", DIGITS, "-o", bundle)
    assert ran.code == 0, ran.err
    return bundle


def test_exceeded_limits_are_named_and_exit_with_4(
    run: RunCommand, tmp_path: Path, device_root: Path
) -> None:
    bundle = pack(run, tmp_path, "p95_ms = 0.001\npeak_memory_mib = 1\nbundle_mib = 0.01")
    ran = run("bench", bundle, "local:", "--root", device_root, *QUICK)
    assert ran.code == 4
    for name, limit in (
        ("p95 latency", "0.001 ms"),
        ("peak memory", "1 MiB"),
        ("bundle size", "0.01 MiB"),
    ):
        (line,) = [line for line in ran.err.splitlines() if name in line]
        assert line.startswith(f"warning: on this machine, {name} ")
        # A busy machine is told beside it.
        assert f" exceeds the limit of {limit}" in line


def test_met_limits_are_no_matter(run: RunCommand, tmp_path: Path, device_root: Path) -> None:
    bundle = pack(run, tmp_path, "p95_ms = 10000\npeak_memory_mib = 10000\nbundle_mib = 100")
    ran = run("bench", bundle, "local:", "--root", device_root, *QUICK)
    assert ran.code == 0
    assert "exceeds" not in ran.err


def test_a_source_model_is_told_from_a_bundle(run: RunCommand) -> None:
    source = DIGITS.with_name("digits.keras")
    ran = run("inspect", source)
    assert ran.code == 1
    assert ran.err == (
        f"edgepack: {source}: expected a .tflite model or a bundle, but this is the format of a "
        "source model\n  Run `edgepack pack digits.keras --target NAME` first; `edgepack deploy` "
        "packs, pushes and measures in one.\n"
    )
