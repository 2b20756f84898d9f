"""What is shown of many devices while they are worked on: a table on a terminal, else lines."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from edgepack.commands.console import note
from edgepack.commands.fleet import about
from edgepack.fleet.journal import State

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from edgepack.errors import EdgePackError
    from edgepack.fleet.rollout import Outcome

_NUM_ROWS: Final = 12
_ROWS_AROUND: Final = 6


class FleetLines:
    """Tells how it goes in lines; a `rollout.Watcher`."""

    def __init__(self, num_devices: int) -> None:
        self._num_devices = num_devices
        self._counts = dict.fromkeys(State, 0)

    def step(self, device: str, text: str) -> None:
        """Hear what is done with a device now."""

    def begin_wave(self, number: int, num_waves: int, num_devices: int) -> None:
        """Say that a wave begins."""
        self._say(f"wave {number} of {num_waves}: {count_devices(num_devices)}")

    def begin(self, device: str) -> None:
        """Hear that a device begins."""

    def pause(self, device: str, error: "EdgePackError", seconds: float) -> None:
        """Say that a device is tried again, and why."""
        again = f"Trying again in {seconds:.1f} s."
        self._say(f"{about(device, error.message)} {again}")

    def finish(self, outcome: "Outcome[Any]") -> None:
        """Say what came of a device."""
        self._counts[outcome.state] += 1
        place = f"[{sum(self._counts.values())}/{self._num_devices}]"
        if outcome.error is None:
            self._say(f"{place} {about(outcome.device, 'done')}")
            return
        self._say(f"{place} {about(outcome.device, outcome.error.message)}")
        if outcome.error.remedy:
            self._say(f"  {outcome.error.remedy}")

    def stop(self, reason: str, num_running: int) -> None:
        """Say that no further device begins."""
        under_way = f"; {count_devices(num_running)} under way" if num_running else ""
        self._say(f"{reason}: no further device begins{under_way}")
        if reason == "interrupted" and num_running:
            self._say("  Interrupt again to break off; each device stays whole.")

    def _say(self, text: str) -> None:
        note(text)


class FleetTable(FleetLines):
    """Shows the devices under way with their steps, and how many are done."""

    def __init__(self, num_devices: int, console: "Console") -> None:
        super().__init__(num_devices)
        self._console = console
        self._under_way: dict[str, tuple[float, str]] = {}
        self._num_paused = 0
        self._began = time.monotonic()

    def step(self, device: str, text: str) -> None:
        """Show what is done with a device now; called from any thread."""
        found = self._under_way.get(device)
        if found is not None:
            self._under_way[device] = (found[0], text)

    def begin(self, device: str) -> None:
        """Show a device that begins."""
        self._under_way[device] = (time.monotonic(), "waiting for its turn")

    def pause(self, device: str, error: "EdgePackError", seconds: float) -> None:
        """Take the row of a device away until it is tried again."""
        self._under_way.pop(device, None)
        super().pause(device, error, seconds)

    def finish(self, outcome: "Outcome[Any]") -> None:
        """Take the row of a device away; say what came of it when it failed."""
        self._under_way.pop(outcome.device, None)
        if outcome.error is None:
            self._counts[outcome.state] += 1
            return
        super().finish(outcome)

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def __rich__(self) -> "RenderableType":
        """Draw the table as it is now."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Column, Table
        from rich.text import Text

        done, failed = self._counts[State.DONE], self._counts[State.FAILED]
        now = time.monotonic()
        head = Table.grid(padding=(0, 1))
        counts = Text.assemble(f"{done} done", (f", {failed} failed", "red" if failed else "dim"))
        counts.append(f" of {self._num_devices}, {now - self._began:.0f} s")
        head.add_row(ProgressBar(self._num_devices, done + failed, width=24), counts)
        rows = Table(
            Column("device", no_wrap=True, overflow="ellipsis", ratio=2),
            Column("step", no_wrap=True, overflow="ellipsis", ratio=3),
            Column("s", justify="right", no_wrap=True, width=6),
            box=None,
            pad_edge=False,
            show_header=False,
            expand=True,
        )
        # The longest under way first: what hangs is what the user wants to see.
        under_way = sorted(self._under_way.copy().items(), key=lambda item: item[1][0])
        room = max(1, min(_NUM_ROWS, self._console.height - _ROWS_AROUND))
        for device, (began, step) in under_way[:room]:
            rows.add_row(Text(device), Text(_shorten(step, device), "dim"), f"{now - began:.0f} s")
        more = len(under_way) - room
        if more > 0:
            rows.add_row(Text(f"and {more} more", "dim"), "", "")
        return Group(head, rows)


@contextmanager
def show_fleet(num_devices: int) -> Iterator[FleetLines]:
    """Show how it goes until the end of the context."""
    if not sys.stderr.isatty():
        yield FleetLines(num_devices)
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True, highlight=False)
    table = FleetTable(num_devices, console)
    with Live(table, console=console, refresh_per_second=8, transient=True):
        yield table


def count_devices(number: int) -> str:
    """Give `1 device` or `3 devices`."""
    return f"{number} device{'' if number == 1 else 's'}"


def _shorten(step: str, device: str) -> str:
    """Take the device's name out of a step: its row begins with it."""
    for words in (f" on {device}", f" to {device}", f" {device}"):
        step = step.replace(words, "")
    return step
