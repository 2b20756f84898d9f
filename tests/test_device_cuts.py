"""Deployments cut at changes of the file system; `benchmarks/cut_points.py` tries every one."""

import pytest

from tests.fixtures.cut_points import CutRig, install_runner

_NUM_TRIED = 6


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> CutRig:
    engine = install_runner(tmp_path_factory.mktemp("runtime") / "root")
    return CutRig(folder=tmp_path_factory.mktemp("cuts"), engine=engine)


# The least cut points each has here: fewer would say that something is not counted any more.
@pytest.mark.toolchain
@pytest.mark.parametrize(("index", "least"), [(0, 90), (1, 80), (2, 25), (3, 20), (4, 100)])
def test_wherever_it_is_cut_what_is_current_works(rig: CutRig, index: int, least: int) -> None:
    scenario = rig.scenarios()[index]
    prepared = rig.prepare(scenario)
    points = rig.find_points(scenario, prepared)
    assert len(points) >= least
    for turn in range(_NUM_TRIED):
        rig.try_point(scenario, prepared, points[turn * (len(points) - 1) // (_NUM_TRIED - 1)])
