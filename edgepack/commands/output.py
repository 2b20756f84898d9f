"""Files that commands write: under a temporary name first, so that nothing is half-written."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack.errors import UsageError

if TYPE_CHECKING:
    from edgepack.report.summary import DeployReport


def write_text(path: Path, text: str) -> None:
    """Write a text file, replacing one of the same name only when the new one is whole.

    Raises:
        UsageError: the folder is missing or cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, prefix=f".{path.name}.", delete=False, encoding="utf-8"
        ) as file:
            temporary = Path(file.name)
            try:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
                # A temporary file is private; a result is as readable as any new file.
                mask = os.umask(0)
                os.umask(mask)
                temporary.chmod(0o666 & ~mask)
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be written: {error.strerror or error}",
            remedy="Give a path in a folder you may write to, on a disk with room.",
        ) from error


def write_report(path: Path, report: "DeployReport") -> None:
    """Write a report as one HTML file."""
    from edgepack.report.html import render_page

    write_text(path, render_page(report))


def check_outputs(paths: Sequence[Path | None]) -> None:
    """Refuse output paths that cannot work before any work is done.

    Raises:
        UsageError: a folder in the place of a file, or two outputs of the same name.
    """
    given = [path.resolve() for path in paths if path is not None]
    for path in given:
        if path.is_dir() or given.count(path) > 1:
            raise UsageError(
                f"{path}: expected the name of a file of its own",
                remedy="Give each output its own file name.",
            )
