"""An emulated board from power-on to rolled back: boot, install, push, measure, push, go back.

    python benchmarks/emulated_board.py [MODEL] [--runner native|python]

MODEL is raspberry-pi-4 (the default), -3 or -5, or generic-arm64; packages: scripts/emulated-device
--help. Bar: under 60 s altogether with a tiny model and the native runner; with Python's, ten
times as much is sent, and each launch imports numpy. The image is built beforehand and not
counted. The seconds are those of this machine's emulation, and no latency of any board.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from edgepack.bundle.archive import Bundle
from edgepack.cache import Cache, cache_directory
from edgepack.device.runtime.provision import RunnerChoice
from edgepack.device.store.lock import LockOptions
from edgepack.device.store.releases import list_releases
from edgepack.device.store.rollback import roll_back
from edgepack.device.wire.connect import ConnectOptions
from edgepack.measure.plan import BenchmarkPlan
from edgepack.workflow.benching import bench_placed, place_release
from edgepack.workflow.pushing import push_release
from edgepack.workflow.rig import open_rig
from tests.fixtures.bundle import built_in_profile, write_digits_bundle
from tests.fixtures.emulation import MODELS, boot_board, build_image

BAR_SECONDS = 60.0
PLAN = BenchmarkPlan(num_launches=2, warmup_runs=1, warmup_seconds=0.0, min_runs=8, min_seconds=0.1)

Result = TypeVar("Result")


class Stopwatch:
    """Times steps, and prints each."""

    def __init__(self) -> None:
        self.total_seconds = 0.0

    def time(self, label: str, step: Callable[[], Result]) -> Result:
        """Carry out a step."""
        start = time.perf_counter()
        result = step()
        seconds = time.perf_counter() - start
        self.total_seconds += seconds
        print(f"{label:34}{seconds:6.1f} s", flush=True)
        return result


def main() -> int:
    """Print the seconds of each step; 1 when the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", choices=sorted(MODELS), default="raspberry-pi-4")
    parser.add_argument("--runner", choices=["python", "native"], default="native")
    given = parser.parse_args()
    model, runner = given.model, RunnerChoice(given.runner)
    image = build_image()
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        target = built_in_profile(model)
        first = write_digits_bundle(Path(folder, "first.edgepack"), target=target)
        second = write_digits_bundle(Path(folder, "second.edgepack"), target=target, version="2.0")
        board = watch.time("boot", lambda: stack.enter_context(boot_board(image, model=model)))
        rig = watch.time(
            "connect, look, install the runtime",
            lambda: stack.enter_context(
                open_rig(
                    board.address,
                    connect=ConnectOptions(ssh_config=board.ssh_config),
                    root=None,
                    profile=target,
                    cache=Cache(root=cache_directory()),
                    lock=LockOptions(purpose="bench"),
                    on_step=lambda _: None,
                    runner=runner,
                )
            ),
        )

        def push(bundle: Bundle) -> None:
            push_release(rig, bundle, health_check=True, on_step=lambda _: None)

        def bench() -> None:
            placed = place_release(rig, first, on_step=lambda _: None)
            measurement = bench_placed(rig, placed, plan=PLAN, on_step=lambda _: None)
            if measurement.golden is None or not measurement.golden.passed:
                sys.exit("the model answers wrongly on the board")

        def go_back() -> None:
            roll_back(rig.device, "digits", release=None, root=rig.root, fence=rig.fence)

        watch.time("push, check the answers, switch", lambda: push(first))
        watch.time("measure: golden check, 2 launches", bench)
        watch.time("push another release", lambda: push(second))
        watch.time("roll back", go_back)
        now = [each.release for each in list_releases(rig.device, root=rig.root) if each.is_current]
        if now != [first.release]:
            sys.exit(f"{now} is current, not {first.release}")
    print(f"{model}, {runner}, to rolled back{watch.total_seconds:8.1f} s, bar {BAR_SECONDS:.0f} s")
    return int(watch.total_seconds >= BAR_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
