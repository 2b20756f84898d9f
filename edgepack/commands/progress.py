"""The live display of work: a spinner for a step, a bar with its rate for a transfer."""

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)
from rich.table import Column
from rich.text import Text


class _TransferOnly(ProgressColumn):
    """A column that is empty for steps, which have no bytes."""

    def __init__(self, column: ProgressColumn) -> None:
        super().__init__(table_column=Column(no_wrap=True))
        self._column = column

    def render(self, task: Task) -> RenderableType:
        """Draw the column for a transfer."""
        return Text("") if task.total is None else self._column(task)


def make_progress(console: Console) -> Progress:
    """Give a display that vanishes at its end; what is printed meanwhile goes above."""
    # One line whatever the terminal's width: the text gives way, the figures never wrap.
    text = Column(no_wrap=True, overflow="ellipsis", ratio=1)
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False, table_column=text),
        _TransferOnly(BarColumn(bar_width=12)),
        _TransferOnly(DownloadColumn()),
        _TransferOnly(TransferSpeedColumn()),
        TimeElapsedColumn(table_column=Column(no_wrap=True)),
        console=console,
        transient=True,
        expand=True,
    )
