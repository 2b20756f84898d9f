"""What a command shows: results on stdout, everything else on stderr."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

StepCallback = Callable[[str], None]


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


@contextmanager
def show_steps() -> Iterator[StepCallback]:
    """Show each step as it begins: a status line on a terminal, a line each otherwise."""
    if not sys.stderr.isatty():
        yield note
        return
    console = _console(stderr=True)
    with console.status("starting") as status:

        def step(text: str) -> None:
            from rich.markup import escape  # noqa: PLC0415 - slow to import

            status.update(escape(text))

        yield step


@contextmanager
def show_bytes(description: str, total_bytes: int) -> Iterator[Callable[[int], None]]:
    """Show a transfer as a bar with its rate; silent when stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield _ignore
        return
    from rich import progress  # noqa: PLC0415 - slow to import

    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.DownloadColumn(binary_units=True),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=_console(stderr=True), transient=True) as bars:
        task = bars.add_task(description, total=total_bytes)
        yield lambda num_bytes: bars.advance(task, num_bytes)


def _ignore(num_bytes: int) -> None:
    """Take a progress report that nobody watches."""


def _console(*, stderr: bool) -> "Console":
    from rich.console import Console  # noqa: PLC0415 - slow to import

    stream = sys.stderr if stderr else sys.stdout
    options: dict[str, Any] = {} if stream.isatty() else {"width": 200}
    return Console(stderr=stderr, highlight=False, soft_wrap=False, **options)
