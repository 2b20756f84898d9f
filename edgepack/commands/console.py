"""What a command shows: results on stdout, everything else on stderr."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress, TaskID


def print_json(body: object) -> None:
    """Print a result as JSON on stdout."""
    click.echo(json.dumps(body, ensure_ascii=False, allow_nan=False))


def print_table(renderable: "RenderableType") -> None:
    """Print a rich renderable on stdout; plain and unwrapped when it is not a terminal."""
    _console(stderr=False).print(renderable)


def note(text: str) -> None:
    """Say something on stderr."""
    click.echo(text, err=True)


def warn(text: str) -> None:
    """Say on stderr what the user should look at."""
    click.echo(f"warning: {text}", err=True)


class Work:
    """Tells on stderr what is being done: a line a step."""

    def step(self, text: str) -> None:
        """Say what begins now."""
        note(text)

    def transfer(self, num_bytes: int, total_bytes: int) -> None:
        """Count bytes that were just sent, of so many in all."""


class _LiveWork(Work):
    """Shows the current step, and a transfer as a bar with its rate, on a terminal."""

    def __init__(self, bars: "Progress") -> None:
        self._bars = bars
        self._step = bars.add_task("starting", total=None)
        self._transfer: TaskID | None = None

    def step(self, text: str) -> None:
        if self._transfer is not None:
            self._bars.remove_task(self._transfer)
            self._transfer = None
        self._bars.update(self._step, description=text, visible=True)

    def transfer(self, num_bytes: int, total_bytes: int) -> None:
        if self._transfer is None:
            self._bars.update(self._step, visible=False)
            self._transfer = self._bars.add_task("sending", total=total_bytes)
        self._bars.update(self._transfer, advance=num_bytes, total=total_bytes)


@contextmanager
def show_work() -> Iterator[Work]:
    """Show what is being done: live on a terminal, as plain lines otherwise."""
    if not sys.stderr.isatty():
        yield Work()
        return
    from rich import progress

    columns = (
        progress.SpinnerColumn(),
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(bar_width=24),
        progress.DownloadColumn(binary_units=True),
        progress.TransferSpeedColumn(),
    )
    with progress.Progress(*columns, console=_console(stderr=True), transient=True) as bars:
        yield _LiveWork(bars)


def _console(*, stderr: bool) -> "Console":
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    options: dict[str, Any] = {} if stream.isatty() else {"width": 200}
    return Console(stderr=stderr, highlight=False, soft_wrap=False, **options)
