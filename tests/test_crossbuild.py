"""The native runner compiled for other architectures, once a source and compiler."""

import shutil
from pathlib import Path

import pytest

from edgepack import crossbuild
from edgepack.cache import Cache, cache_directory
from edgepack.crossbuild import build_runner, runner_key
from edgepack.device.survey.elf import parse_machine, read_needs
from edgepack.errors import ToolchainError


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the runner's sources, which may be changed."""
    folder = tmp_path / "native"
    shutil.copytree(crossbuild.SOURCES, folder)
    monkeypatch.setattr(crossbuild, "SOURCES", folder)
    return folder


def forbid_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        pytest.fail("the compiler was asked for")

    monkeypatch.setattr(crossbuild, "ensure_environment", refuse)


@pytest.mark.toolchain
@pytest.mark.parametrize("arch", ["x86_64", "aarch64", "armv7l"])
def test_each_architecture_gets_a_program_that_old_systems_start(
    arch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(root=cache_directory())
    program = build_runner(arch, cache=cache, on_progress=lambda _: None)
    assert parse_machine(program) == arch
    needs = read_needs(program)
    assert needs.glibc is not None
    assert needs.glibc <= (2, 17)
    assert (needs.glibcxx, needs.cxxabi) == (None, None)
    assert len(program) < 100_000
    # A second one comes out of the cache: the same bytes, and nothing is compiled.
    forbid_compiling(monkeypatch)
    said: list[str] = []
    assert build_runner(arch, cache=cache, on_progress=said.append) == program
    assert said == []


def test_the_key_follows_source_and_target(sources: Path) -> None:
    keys = {runner_key(arch) for arch in crossbuild.TARGETS}
    assert len(keys) == len(crossbuild.TARGETS)
    before = runner_key("aarch64")
    (sources / "json.h").write_text((sources / "json.h").read_text() + "\n")
    changed = runner_key("aarch64")
    assert changed != before
    (sources / "notes.txt").write_text("not compiled")
    assert runner_key("aarch64") == changed


@pytest.mark.toolchain
def test_what_does_not_compile_is_said_and_not_kept(sources: Path, tmp_path: Path) -> None:
    (sources / "runner.c").write_text("int main(void) { return nothing; }\n")
    cache = Cache(root=tmp_path / "cache")
    with pytest.raises(ToolchainError) as caught:
        build_runner("x86_64", cache=cache, on_progress=lambda _: None)
    first, *rest = caught.value.message.splitlines()
    assert first == (
        "the native runner could not be compiled for x86_64-linux-gnu.2.17: exit code 1"
    )
    assert any("use of undeclared identifier 'nothing'" in line for line in rest)
    assert cache.load(runner_key("x86_64")) is None


def test_other_architectures_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_compiling(monkeypatch)
    with pytest.raises(ToolchainError) as caught:
        build_runner("riscv64", cache=Cache(root=tmp_path), on_progress=lambda _: None)
    assert caught.value.message == (
        "expected one of the architectures x86_64, aarch64, armv7l for the native runner, not "
        "riscv64"
    )
