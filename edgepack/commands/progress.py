"""The live display of work: a spinner for a step, a bar for a transfer and for a search."""

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
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


class _CountedOnly(ProgressColumn):
    """A column that is empty for steps, which count nothing."""

    def __init__(self, column: ProgressColumn) -> None:
        super().__init__(table_column=Column(no_wrap=True))
        self._column = column

    def render(self, task: Task) -> RenderableType:
        """Draw the column for a transfer or a search."""
        return Text("") if task.total is None else self._column(task)


class _Amount(ProgressColumn):
    """Bytes of a transfer, candidates of a search."""

    def __init__(self) -> None:
        super().__init__(table_column=Column(no_wrap=True))
        self._bytes = DownloadColumn()
        self._candidates = MofNCompleteColumn()

    def render(self, task: Task) -> RenderableType:
        """Draw how much is done of how much."""
        return (self._candidates if task.fields.get("is_search") else self._bytes)(task)


class _Rate(ProgressColumn):
    """Bytes a second of a transfer; a search's candidates are too unlike to have a rate."""

    def __init__(self) -> None:
        super().__init__(table_column=Column(no_wrap=True))
        self._column = TransferSpeedColumn()

    def render(self, task: Task) -> RenderableType:
        """Draw the rate of a transfer."""
        return Text("") if task.fields.get("is_search") else self._column(task)


def make_progress(console: Console) -> Progress:
    """Give a display that vanishes at its end; what is printed meanwhile goes above."""
    # One line whatever the terminal's width: the text gives way, the figures never wrap.
    text = Column(no_wrap=True, overflow="ellipsis", ratio=1)
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False, table_column=text),
        _CountedOnly(BarColumn(bar_width=12)),
        _CountedOnly(_Amount()),
        _CountedOnly(_Rate()),
        TimeElapsedColumn(table_column=Column(no_wrap=True)),
        console=console,
        transient=True,
        expand=True,
    )
