"""What a command shows: results on stdout, everything else on stderr."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Progress, TaskID

    from edgepack.workflow.request import SearchProgress

PIPED_WIDTH: Final = 80
# Lists are searched with grep and cut with awk: a row stays on its line.
LIST_WIDTH: Final = 250


def print_json(body: object) -> None:
    """Print a result as JSON on stdout."""
    click.echo(json.dumps(body, ensure_ascii=False, allow_nan=False))


def print_table(renderable: "RenderableType", *, width: int = PIPED_WIDTH) -> None:
    """Print a rich renderable on stdout; as plain text of this width when it is no terminal."""
    from rich.console import Console

    if sys.stdout.isatty():
        Console(highlight=False).print(renderable)
        return
    console = Console(file=sys.stdout, width=width, highlight=False, color_system=None)
    with console.capture() as captured:
        console.print(renderable)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


def note(text: str) -> None:
    """Say something on stderr."""
    click.echo(text, err=True)


def warn(text: str) -> None:
    """Say on stderr what the user should look at."""
    click.echo(f"warning: {text}", err=True)


class Work:
    """Tells on stderr what is being done: a line a step."""

    def __init__(self) -> None:
        self._best: str | None = None

    def step(self, text: str) -> None:
        """Say what begins now."""
        note(text)

    def transfer(self, num_bytes: int, total_bytes: int) -> None:
        """Count bytes that were just sent, of so many in all."""

    def progress(self, progress: "SearchProgress") -> None:
        """Say how far a search is when it has a better candidate or is interrupted."""
        if progress.is_interrupted:
            warn(_interruption(progress))
            return
        if progress.best != self._best:
            self._best = progress.best
            done = f"{progress.num_done} of {progress.num_total} candidates"
            note(f"{done}; best so far: {describe_best(progress)}")

    def ask(self, prompt: Callable[[str], str], text: str) -> str:
        """Ask the user with the screen to themselves."""
        return prompt(text)


class LiveWork(Work):
    """Shows the current step with its time, and a transfer as a bar with its rate."""

    def __init__(self, bars: "Progress") -> None:
        super().__init__()
        self._bars = bars
        self._task: TaskID | None = None
        self._search: TaskID | None = None
        self._text = "sending"
        self._sent_bytes = 0

    def step(self, text: str) -> None:
        """Show what begins now, in place of the step before."""
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._text = text
        # A task of its own, so that the time shown is this step's.
        self._task = self._bars.add_task(text, total=None)
        self._sent_bytes = 0

    def transfer(self, num_bytes: int, total_bytes: int) -> None:
        """Move the bar of what is being sent."""
        if self._task is None:
            self._task = self._bars.add_task(self._text, total=None)
        self._sent_bytes += num_bytes
        if self._sent_bytes < total_bytes:
            self._bars.update(self._task, completed=self._sent_bytes, total=total_bytes)
        else:  # the device still has to check it: the step goes on without a bar
            self.step(self._text)

    def progress(self, progress: "SearchProgress") -> None:
        """Move the bar of a search, which stands below the step it is at."""
        if progress.is_interrupted:
            if self._search is not None:
                self._bars.remove_task(self._search)
            warn(_interruption(progress))
            return
        if self._search is None:
            self._search = self._bars.add_task("", total=progress.num_total, is_search=True)
        self._bars.update(
            self._search,
            completed=progress.num_done,
            total=progress.num_total,
            description=f"best so far: {describe_best(progress)}",
        )

    def ask(self, prompt: Callable[[str], str], text: str) -> str:
        """Take the display away while the user is asked."""
        # The spinner would write over the question and hide the cursor.
        self._bars.stop()
        try:
            return prompt(text)
        finally:
            self._bars.start()


def describe_best(progress: "SearchProgress") -> str:
    """Give the best candidate of a search with its figures: `int8, 34.2 dB, 1.24 ms, 34.5 kB`."""
    from edgepack.report.labels import plain
    from edgepack.report.units import decibels, file_size, latency

    if progress.best is None:
        return "none inside the floors"
    sqnr_db, latency_ns = progress.best_sqnr_db, progress.best_latency_ns
    parts = [
        plain(progress.best, longest=64),
        decibels(sqnr_db) if sqnr_db is not None else None,
        latency(latency_ns) if latency_ns is not None else None,
        file_size(progress.best_bytes) if progress.best_bytes is not None else None,
    ]
    return ", ".join(part for part in parts if part is not None)


def _interruption(progress: "SearchProgress") -> str:
    tried = f"after {progress.num_done} of {progress.num_total} candidates"
    return (
        f"interrupted {tried}: the search ends here, and the best so far is kept "
        f"({describe_best(progress)}); interrupt again to give it up"
    )


@contextmanager
def show_work() -> Iterator[Work]:
    """Show what is being done: live on a terminal, as plain lines otherwise."""
    if not sys.stderr.isatty():
        yield Work()
        return
    from rich.console import Console

    from edgepack.commands.progress import make_progress

    with make_progress(Console(stderr=True, highlight=False)) as bars:
        yield LiveWork(bars)
