"""The figures of a report, written into a folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgepack.commands.output import check_figures, write_bytes

if TYPE_CHECKING:
    from edgepack.report.summary import DeployReport

FORMATS: Final = ("svg", "png")


def write_figures(folder: Path, report: "DeployReport", kind: str) -> tuple[Path, ...]:
    """Write each figure of a report as a file, all of them or none; give their paths.

    Raises:
        UsageError: a format that cannot be made here.
        OutputError: the folder cannot be written to, or holds other files of these names.
    """
    from edgepack.report.figure_files import FigureFormat, list_figures, write_figure

    files = {
        folder / f"{name}.{kind}": write_figure(plot, FigureFormat(kind))
        for name, plot in list_figures(report)
    }
    check_figures(tuple(files))
    for path, data in files.items():
        write_bytes(path, data)
    return tuple(files)
