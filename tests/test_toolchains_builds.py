"""Builds outside a lock are taken when they need nothing more, or when they are asked for."""

import json
from pathlib import Path

import pytest

from edgepack.errors import ToolchainError, UsageError
from edgepack.toolchains import BuildChoice, ensure_toolchain
from edgepack.toolchains.builds import check_builds, query_args, write_constraints
from edgepack.toolchains.catalog import find_spec
from edgepack.toolchains.interpreter import Interpreter

INTERPRETER = Interpreter(
    path=Path("python"),
    base=Path("python"),
    version=(3, 12, 1),
    can_make_venv=True,
    missing=(),
    versions=(),
)


def write_report(path: Path, requires: list[str]) -> Path:
    metadata = {"name": "torch", "version": "2.13.0", "requires_dist": requires}
    path.write_text(json.dumps({"install": [{"metadata": metadata}]}))
    return path


def test_a_build_within_the_lock_is_taken(tmp_path: Path) -> None:
    requires = ["sympy>=1.13", "opt-einsum; extra == 'opt-einsum'", "old; python_version < '3.12'"]
    report = write_report(tmp_path / "report.json", requires)
    check_builds(find_spec("pytorch"), INTERPRETER, report=report)


def test_a_build_that_needs_more_is_refused_with_the_way_out(tmp_path: Path) -> None:
    requires = ["sympy", "triton==3.7.1", "nvidia-cudnn-cu13", "cuda-toolkit", "nvidia-nccl-cu13"]
    report = write_report(tmp_path / "report.json", requires)
    with pytest.raises(ToolchainError) as caught:
        check_builds(find_spec("pytorch"), INTERPRETER, report=report)
    assert caught.value.message == (
        "the pytorch toolchain computes on the CPU, but the build of torch 2.13.0 that pip would "
        "install needs gigabytes of other libraries: cuda-toolkit, nvidia-cudnn-cu13, "
        "nvidia-nccl-cu13 and 1 more"
    )
    assert caught.value.remedy == (
        "Run `edgepack toolchain install pytorch --index-url URL` with the CPU index that "
        "pytorch.org/get-started/locally names (about 200 MB to download), or give --cuda instead "
        "to take this one (9000 MiB on disk)."
    )


@pytest.mark.parametrize("text", ["", "[]", '{"install": []}', '{"install": [{}]}'])
def test_a_report_that_is_none_is_an_error(tmp_path: Path, text: str) -> None:
    report = tmp_path / "report.json"
    report.write_text(text)
    with pytest.raises(ToolchainError, match="its report cannot be read"):
        check_builds(find_spec("pytorch"), INTERPRETER, report=report)


def test_the_other_packages_keep_the_versions_of_the_lock(tmp_path: Path) -> None:
    spec = find_spec("pytorch")
    write_constraints(spec, tmp_path / "constraints.txt")
    lines = (tmp_path / "constraints.txt").read_text().splitlines()
    assert "litert-torch==0.10.0" in lines
    assert not any("hash" in line or line.startswith("torch==") for line in lines)
    assert query_args(spec, report=tmp_path)[-1] == "torch==2.13.0"


def test_an_index_is_not_among_the_arguments_other_users_see() -> None:
    choice = BuildChoice(index_url="https://user:secret@mirror/simple")
    assert choice.variables == {
        "PIP_INDEX_URL": "https://user:secret@mirror/simple",
        "PIP_EXTRA_INDEX_URL": "",
    }
    assert BuildChoice().variables == {}


def test_a_toolchain_that_is_locked_as_a_whole_leaves_no_choice() -> None:
    with pytest.raises(UsageError) as caught:
        ensure_toolchain(
            "onnx", choice=BuildChoice(allow_large=True), on_progress=lambda _line: None
        )
    assert caught.value.message == (
        "the onnx toolchain is locked as a whole, so there is no choice of builds"
    )
