"""Disturb measurements on purpose and count which are noticed, and how often nothing is mistaken.

    python benchmarks/disturbances.py [MODEL.tflite] [--number N] [--clean N] [--only WORD]

Each disturbance is injected into N whole measurements of 6 launches on this machine:

- a quota of processor time, by a control group (version 1 or 2; needs root), of one thread, or of
  one on each core that together have half of what they want;
- competing load: as many busy processes as cores, or twice as many;
- throttle bits of a board, a governor or an allowed clock that changes, a clock that falls, heat:
  in files that stand in place of this machine's /sys and its `vcgencmd`, changed between two
  launches drawn at random, or set and gone within one (needs root and Linux's mount namespaces).

Bars: at least 95% are given the verdict they should have, and of measurements that nothing
disturbs at most 2% are called throttled or contended. A measurement in which other virtual machines
took a hundredth of the time (steal in /proc/stat, read around it) was disturbed by them: it is no
control, whatever it was called, and is taken again; how many those were is told. Other work on this
machine itself disturbs too, so leave it alone.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

from edgepack.device.runtime.provision import Engine
from edgepack.device.survey.facts import read_facts
from edgepack.device.survey.state import STATE_SCRIPT
from edgepack.device.wire.local import LocalDevice
from edgepack.device.wire.transport import CommandResult
from edgepack.errors import MeasureError
from edgepack.measure.bench import TimedModel, own_site
from edgepack.measure.drive import measure
from edgepack.measure.plan import BenchmarkPlan
from edgepack.measure.record import Measurement, ModelIdentity
from edgepack.measure.validity import DISTURBED, VerdictName
from edgepack.model import load_model

REPOSITORY = Path(__file__).resolve().parent.parent
NUM_LAUNCHES = 6
LEAST_FOUND, MOST_FALSE = 0.95, 0.02
MOST_STOLEN = 0.01
MOST_TRIES = 3
PLAN = BenchmarkPlan(num_launches=NUM_LAUNCHES, warmup_seconds=0.1, min_seconds=0.3)

# The runner looks around each half second; what is set this long after a launch's first run is met.
LONG_PLAN = replace(PLAN, min_seconds=2.5)
CHANGES_SECONDS = (0.4, 1.6)
PI = "Raspberry Pi 4 Model B Rev 1.4"
FULL_KHZ, LOW_KHZ = 1_800_000, 1_000_000
SHOWN_SYSTEM = 'mount --bind "$1/sys" /sys || exit 125; shift; exec "$@"'
IN_GROUP = 'echo $$ > "$1/cgroup.procs" || exit 125; shift; exec "$@"'
BUSY = "while True: pass"


def say(text: str) -> None:
    """Tell what is being done; standard output is for the table."""
    print(text, file=sys.stderr, flush=True)


class PrefixedDevice(LocalDevice):
    """This machine, where the runner and questions of state are started by another command."""

    def __init__(
        self,
        prefix: Sequence[str],
        on_launch: Callable[[int], None] = lambda _: None,
        on_first_run: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._prefix = prefix
        self._on_launch = on_launch
        self._on_first_run = on_first_run
        self._num_launches = 0

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_seconds: float,
        stdin: bytes = b"",
        max_output_bytes: int = 16 * 2**20,
    ) -> CommandResult:
        """Run a command to its end; see `transport.Device.run`."""
        prefix = self._prefix if argv[-1] == STATE_SCRIPT else ()
        return super().run(
            [*prefix, *argv],
            timeout_seconds=timeout_seconds,
            stdin=stdin,
            max_output_bytes=max_output_bytes,
        )

    @contextmanager
    def stream(
        self, argv: Sequence[str], *, timeout_seconds: float, max_line_bytes: int = 64 * 2**20
    ) -> Iterator[Iterator[bytes]]:
        """Run a command and iterate over its lines; see `transport.Device.stream`."""
        self._on_launch(self._num_launches)  # the first is the question for the answers
        self._num_launches += 1
        with super().stream(
            [*self._prefix, *argv], timeout_seconds=timeout_seconds, max_line_bytes=max_line_bytes
        ) as lines:
            yield self._watch(lines)

    def _watch(self, lines: Iterator[bytes]) -> Iterator[bytes]:
        for line in lines:
            if line.startswith(b'{"event":"first"'):
                self._on_first_run(self._num_launches - 1)
            yield line


@contextmanager
def with_quota(share: float) -> Iterator[LocalDevice]:
    """Give a core's time to the runner in part, by a control group that is removed afterwards."""
    base = Path("/sys/fs/cgroup")
    period_us = 50_000
    is_first = (base / "cpu" / "cpu.cfs_quota_us").exists()
    folder = (base / "cpu" if is_first else base) / "edgepack-disturbances"
    folder.mkdir(exist_ok=True)
    try:
        if is_first:
            (folder / "cpu.cfs_period_us").write_text(str(period_us))
            (folder / "cpu.cfs_quota_us").write_text(str(round(share * period_us)))
        else:
            (base / "cgroup.subtree_control").write_text("+cpu")
            (folder / "cpu.max").write_text(f"{round(share * period_us)} {period_us}")
        yield PrefixedDevice(("sh", "-c", IN_GROUP, "sh", str(folder)))
    finally:
        folder.rmdir()


@contextmanager
def with_load(num_processes: int) -> Iterator[LocalDevice]:
    """Let other processes want the cores all the time."""
    processes = [
        subprocess.Popen([sys.executable, "-I", "-S", "-c", BUSY]) for _ in range(num_processes)
    ]
    try:
        yield LocalDevice()
    finally:
        for each in processes:
            each.kill()
            each.wait()


class Board:
    """Files in place of this machine's /sys, and a `vcgencmd` that tells what stands in a file."""

    def __init__(self, root: Path) -> None:
        self.root = root
        cpu = root / "sys/devices/system/cpu"
        # The runtime asks there how many cores there are, and of which kind.
        shutil.copytree(
            "/sys/devices/system/cpu",
            cpu,
            symlinks=True,
            copy_function=_copy_readable,
            ignore=shutil.ignore_patterns("cpufreq", "cpuidle", "power", "uevent"),
        )
        self._flags = root / "throttled"
        self._firmware = root / "sys/devices/platform/soc/soc:firmware"
        tool = root / "bin/vcgencmd"
        tool.parent.mkdir()
        tool.write_text(f'#!/bin/sh\necho "throttled=$(cat {self._flags})"\n')
        tool.chmod(0o755)
        self._policy = cpu / "cpufreq/policy0"
        self._cpu = cpu / "cpu0/cpufreq"
        self._zone = root / "sys/class/thermal/thermal_zone0"
        for each in (self._policy, self._cpu, self._zone, self._firmware):
            each.mkdir(parents=True)
        (self._zone / "type").write_text("cpu-thermal\n")
        self.set_throttled(0)
        self.set_heat(48.0)
        self.set_clock(FULL_KHZ)
        self.set_limit(FULL_KHZ)
        self.set_governor("performance")

    @property
    def prefix(self) -> tuple[str, ...]:
        """What a program is started by so that it sees the board."""
        path = f"PATH={self.root}/bin:/usr/local/bin:/usr/bin:/bin"
        see = ("unshare", "--mount", "sh", "-c", SHOWN_SYSTEM, "sh", str(self.root))
        return (*see, "env", path)

    def set_throttled(self, flags: int) -> None:
        """Set what `vcgencmd get_throttled` tells, and the kernel."""
        self._flags.write_text(f"{flags:#x}")
        (self._firmware / "get_throttled").write_text(f"{flags:x}\n")

    def set_heat(self, degrees: float) -> None:
        """Set the temperature."""
        (self._zone / "temp").write_text(f"{round(degrees * 1000)}\n")

    def set_clock(self, khz: int) -> None:
        """Set the clock there is now."""
        for each in (self._policy, self._cpu):
            (each / "scaling_cur_freq").write_text(f"{khz}\n")

    def set_limit(self, khz: int) -> None:
        """Set the clock that is allowed at most."""
        (self._policy / "scaling_max_freq").write_text(f"{khz}\n")

    def set_governor(self, name: str) -> None:
        """Set what chooses the clock."""
        for each in (self._policy, self._cpu):
            (each / "scaling_governor").write_text(f"{name}\n")


def _copy_readable(source: str, target: str) -> str:
    """Copy a file of /sys, whose size says nothing; what may not be read is left empty."""
    try:
        Path(target).write_bytes(Path(source).read_bytes())
    except OSError:
        Path(target).touch()
    return target


Change = Callable[[Board, bool], None]
"""Brings a disturbance upon a board, or takes it away."""


def throttle_bits(board: Board, is_on: bool) -> None:  # noqa: FBT001 - a switch
    """Show bits of the present, which leave those that stay until the next start."""
    board.set_throttled(0x50005 if is_on else 0x50000)


def sticky_bits(board: Board, is_on: bool) -> None:  # noqa: ARG001, FBT001 - a change has both
    """Show what lasted only between two looks: the bits that stay."""
    board.set_throttled(0x10000)


def governor(board: Board, is_on: bool) -> None:  # noqa: ARG001, FBT001 - it is left so
    """Let a power daemon change the governor, for good."""
    board.set_governor("powersave")


def governor_back(board: Board, is_on: bool) -> None:  # noqa: FBT001 - a switch
    """Let a power daemon change the governor, and change it back."""
    board.set_governor("powersave" if is_on else "performance")


def allowed_clock(board: Board, is_on: bool) -> None:  # noqa: ARG001, FBT001 - it is left so
    """Let the allowed clock sink, for good."""
    board.set_limit(LOW_KHZ)


def low_clock(board: Board, is_on: bool) -> None:  # noqa: FBT001 - a switch
    """Let the governor and the clock sink for some launches, and come back."""
    board.set_governor("powersave" if is_on else "performance")
    board.set_clock(LOW_KHZ if is_on else FULL_KHZ)


def heat(board: Board, is_on: bool) -> None:  # noqa: FBT001 - a switch
    """Let it become hot, and cool again."""
    board.set_heat(84.0 if is_on else 60.0)


def nothing(board: Board, is_on: bool) -> None:  # noqa: FBT001 - a switch
    """Let it be warm for a while, as boards are."""
    board.set_heat(62.0 if is_on else 55.0)


@contextmanager
def with_board(change: Change, generator: random.Random) -> Iterator[LocalDevice]:
    """Show the runner a board on which something changes before one launch, until another."""
    first = generator.randrange(1, NUM_LAUNCHES + 1)
    last = generator.randrange(first + 1, NUM_LAUNCHES + 2)
    with tempfile.TemporaryDirectory() as folder:
        board = Board(Path(folder))

        def on_launch(number: int) -> None:
            if number in (first, last):
                change(board, number == first)

        yield PrefixedDevice(board.prefix, on_launch)


@contextmanager
def within_launch(change: Change, generator: random.Random) -> Iterator[LocalDevice]:
    """Show the runner a board on which something changes in a launch, and back before its end."""
    number = generator.randrange(1, NUM_LAUNCHES + 1)
    with tempfile.TemporaryDirectory() as folder:
        board = Board(Path(folder))
        change(board, False)
        timers = [
            threading.Timer(seconds, change, (board, is_on))
            for seconds, is_on in ((CHANGES_SECONDS[0], True), (CHANGES_SECONDS[1], False))
        ]

        def on_first_run(launch: int) -> None:
            if launch == number:
                for each in timers:
                    each.start()

        try:
            yield PrefixedDevice(board.prefix, on_first_run=on_first_run)
        finally:
            for each in timers:
                each.cancel()
                if each.ident is not None:
                    each.join()


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    """A disturbance, and what it should be called; `valid` where there is none.

    Attributes:
        title: for the table.
        verdict: what is right.
        start: disturbs as long as it is open.
        board: what the device says it is; None leaves it to this machine.
        plan: how long to measure.
    """

    title: str
    verdict: VerdictName
    start: Callable[[], AbstractContextManager[LocalDevice]]
    board: str | None = None
    plan: BenchmarkPlan = PLAN


def list_scenarios(num_cores: int) -> tuple[Scenario, ...]:
    """Give all disturbances, and what is none."""
    generator = random.Random(20260104)  # noqa: S311 - no secret
    contended, throttled = VerdictName.CONTENDED, VerdictName.THROTTLED

    def on_board(title: str, change: Change) -> Scenario:
        start = partial(with_board, change, generator)
        return Scenario(title=title, verdict=throttled, start=start, board=PI)

    def within(title: str, change: Change) -> Scenario:
        start = partial(within_launch, change, generator)
        return Scenario(title=title, verdict=throttled, start=start, board=PI, plan=LONG_PLAN)

    return (
        Scenario(title="nothing", verdict=VerdictName.VALID, start=partial(with_load, 0)),
        replace(on_board("nothing, on the board", nothing), verdict=VerdictName.VALID),
        replace(
            on_board("nothing, on a hot laptop", heat), verdict=VerdictName.VALID, board="ThinkPad"
        ),
        Scenario(title="quota of 50%", verdict=contended, start=partial(with_quota, 0.5)),
        Scenario(title="quota of 75%", verdict=contended, start=partial(with_quota, 0.75)),
        Scenario(
            title="quota of half, a thread a core",
            verdict=contended,
            start=partial(with_quota, num_cores / 2),
            plan=replace(PLAN, num_threads=num_cores),
        ),
        Scenario(title="load, 1 a core", verdict=contended, start=partial(with_load, num_cores)),
        Scenario(
            title="load, 2 a core", verdict=contended, start=partial(with_load, 2 * num_cores)
        ),
        on_board("throttle bits now", throttle_bits),
        on_board("throttle bits that stay", sticky_bits),
        within("throttle bits within a launch", throttle_bits),
        on_board("governor", governor),
        on_board("governor, back again", governor_back),
        within("governor within a launch", governor_back),
        on_board("allowed clock", allowed_clock),
        on_board("clock, back again", low_clock),
        on_board("heat, back again", heat),
    )


def measure_once(path: Path, scenario: Scenario, root: Path) -> Measurement:
    """Measure a model under a disturbance."""
    model = load_model(path)
    with scenario.start() as device:
        facts = read_facts(device, str(root))
        return measure(
            device,
            engine=Engine(
                name="ai-edge-litert",
                version=version("ai-edge-litert"),
                module="ai_edge_litert.interpreter",
                python=sys.executable,
                python_version=".".join(map(str, sys.version_info[:3])),
                site=own_site(),
                numpy=np.__version__,
                xnnpack=True,
                sha256="00" * 32,
                runtime_bytes=0,
            ),
            facts=replace(facts, board=scenario.board or facts.board),
            model=TimedModel(
                path=str(path.resolve()),
                identity=ModelIdentity(
                    name=path.name, sha256=model.sha256, num_bytes=model.num_bytes
                ),
                signature=model.signature,
                is_quantized=model.is_quantized,
            ),
            plan=scenario.plan,
            root=str(root),
            on_progress=lambda _: None,
        )


def stolen_seconds() -> float:
    """Give the processor time that other virtual machines took since the start, on all cores."""
    cpu = Path("/proc/stat").read_text().splitlines()[0].split()
    return int(cpu[8]) / os.sysconf("SC_CLK_TCK") if len(cpu) > 8 else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdicts:
    """How often which verdict was given, and how many controls were none."""

    counts: Counter[VerdictName]
    num_set_aside: int


def count_verdicts(path: Path, scenario: Scenario, number: int, root: Path) -> Verdicts:
    """Count the verdicts of so many measurements."""
    counts: Counter[VerdictName] = Counter()
    num_set_aside = 0
    while counts.total() < number:
        started, before = time.monotonic(), stolen_seconds()
        validity = measure_once(path, scenario, root).validity
        share = (stolen_seconds() - before) / (time.monotonic() - started)
        if validity.verdict is not scenario.verdict:
            say(f"  {validity.verdict}: {'; '.join(validity.reasons)}")
        if scenario.verdict is VerdictName.VALID and share >= MOST_STOLEN:
            num_set_aside += 1
            say(f"  set aside: {share:.1%} of the time was stolen")
            if num_set_aside >= MOST_TRIES * number:
                message = f"{num_set_aside} of {num_set_aside + counts.total()} controls were none"
                raise MeasureError(message, remedy="Run it where the host is quiet.")
            continue
        counts[validity.verdict] += 1
        say(f"{scenario.title}: {counts.total()} of {number}")
    return Verdicts(counts=counts, num_set_aside=num_set_aside)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = REPOSITORY / "tests" / "data" / "digits.tflite"
    parser.add_argument("model", type=Path, nargs="?", default=default)
    parser.add_argument("--number", type=int, default=20, help="measurements a disturbance")
    parser.add_argument("--clean", type=int, default=50, help="measurements without any")
    parser.add_argument("--only", default="", help="titles that hold this")
    given = parser.parse_args(arguments)
    cores = read_facts(LocalDevice(), tempfile.gettempdir()).num_cores or 1
    totals: Counter[str] = Counter()
    print(f"| disturbed by | {' | '.join(VerdictName)} | right |")
    print("|---|" + "---:|" * (len(VerdictName) + 1))
    with tempfile.TemporaryDirectory() as root:
        for scenario in list_scenarios(cores):
            if given.only not in scenario.title:
                continue
            is_clean = scenario.verdict is VerdictName.VALID
            number = given.clean if is_clean else given.number
            try:
                verdicts = count_verdicts(given.model, scenario, number, Path(root))
            except (OSError, MeasureError) as error:
                print(f"| {scenario.title} | not possible here: {error} |", flush=True)
                continue
            found = verdicts.counts
            totals["aside"] += verdicts.num_set_aside
            wrong = sum(found[each] for each in DISTURBED)
            right = number - wrong if is_clean else found[scenario.verdict]
            totals["clean" if is_clean else "disturbed"] += number
            totals["false" if is_clean else "found"] += wrong if is_clean else right
            cells = " | ".join(str(found[each]) for each in VerdictName)
            print(f"| {scenario.title} | {cells} | {right / number:.0%} |", flush=True)
    recall = totals["found"] / max(totals["disturbed"], 1)
    false = totals["false"] / max(totals["clean"], 1)
    print(
        f"\ndisturbances found  {recall:7.1%} of {totals['disturbed']}, at least {LEAST_FOUND:.0%}"
    )
    aside = f"; {totals['aside']} controls more were disturbed by the host, and not counted"
    print(f"false alarms        {false:7.1%} of {totals['clean']}, at most {MOST_FALSE:.0%}{aside}")
    return int(recall < LEAST_FOUND or false > MOST_FALSE)


if __name__ == "__main__":
    sys.exit(main())
