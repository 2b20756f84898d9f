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

    def step(self, text: str) -> None:
        """Say what begins now."""
        note(text)

    def transfer(self, num_bytes: int, total_bytes: int) -> None:
        """Count bytes that were just sent, of so many in all."""

    def ask(self, prompt: Callable[[str], str], text: str) -> str:
        """Ask the user with the screen to themselves."""
        return prompt(text)


class LiveWork(Work):
    """Shows the current step with its time, and a transfer as a bar with its rate."""

    def __init__(self, bars: "Progress") -> None:
        self._bars = bars
        self._task: TaskID | None = None
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

    def ask(self, prompt: Callable[[str], str], text: str) -> str:
        """Take the display away while the user is asked."""
        # The spinner would write over the question and hide the cursor.
        self._bars.stop()
        try:
            return prompt(text)
        finally:
            self._bars.start()


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
