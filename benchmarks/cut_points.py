"""Cut deployments at every single change of the file system on the device, and count.

    python -m benchmarks.cut_points

A first push, a push over an older release, one with its health check, a rollback and pruning are
killed before each mkdir, open for writing, write, sync, rename, link, unlink and chmod of any
program that runs on the device for them, and in the middle of each write. Bar: after every cut the
release that was current, or the new one, is current and whole, byte by byte, and answers rightly;
nothing lies outside of the staging folder; the next push succeeds at once and sweeps; a rollback
from it works.
"""

import sys
import tempfile
import time
from pathlib import Path

from tests.fixtures.cut_points import CutRig, install_runner


def main() -> int:
    """Print how many cut points of each deployment were survived; 1 unless all were."""
    start = time.perf_counter()
    num_cut = num_survived = 0
    with tempfile.TemporaryDirectory(prefix="edgepack-cuts-") as name:
        folder = Path(name)
        (folder / "cuts").mkdir()
        rig = CutRig(folder=folder / "cuts", engine=install_runner(folder / "root"))
        for scenario in rig.scenarios():
            prepared = rig.prepare(scenario)
            points = rig.find_points(scenario, prepared)
            lost: list[str] = []
            for point in points:
                try:
                    rig.try_point(scenario, prepared, point)
                except AssertionError as error:
                    lost.append(f"  lost: {point}: {error}")
            num_cut += len(points)
            num_survived += len(points) - len(lost)
            summary = f"{scenario.name:12}{len(points):4} cut points"
            print(f"{summary}, {len(points) - len(lost)} survived", *lost, sep="\n", flush=True)
    print(f"{num_survived} of {num_cut} cut points survived in {time.perf_counter() - start:.0f} s")
    return int(num_survived != num_cut)


if __name__ == "__main__":
    sys.exit(main())
