"""Files that commands write: under a temporary name first, so that nothing is half-written."""

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgepack.errors import OutputError, UsageError
from edgepack.flatbuffer import FILE_IDENTIFIER

if TYPE_CHECKING:
    from edgepack.optimize.recipes.recipe import Recipe
    from edgepack.report.summary import DeployReport

_JSON_START: Final = (b"{", b"[")
_HTML_START: Final = (b"<!doctype html",)
_FIGURE_START: Final = (b"<svg ", b"\x89png")
_XML_START: Final = (b"<?xml",)
_RECIPE_START: Final = (b"# edgepack recipe",)
_IDENTIFIER_OFFSET: Final = 4  # a flatbuffer begins with the offset of its root
_WRITE_REMEDY: Final = "Give a path in a folder you may write to, on a disk with room."


def write_text(path: Path, text: str) -> None:
    """Write a text file, replacing one of the same name only when the new one is whole.

    Raises:
        OutputError: the folder cannot be made or written to, or the disk is full.
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, replacing one of the same name only when the new one reads as written.

    Raises:
        OutputError: the folder cannot be made or written to, or the disk is full or broken.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            temporary = Path(file.name)
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                _check_written(temporary, data, path)
                # A temporary file is private; a result is as readable as any new file.
                mask = os.umask(0)
                os.umask(mask)
                temporary.chmod(0o666 & ~mask)
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise _cannot_write(path, error) from error


def _check_written(temporary: Path, data: bytes, path: Path) -> None:
    if temporary.read_bytes() != data:
        raise OutputError(f"{path}: what was written reads otherwise", remedy=_WRITE_REMEDY)


def write_report(path: Path, report: "DeployReport") -> None:
    """Write a report as one HTML file."""
    from edgepack.report.html import render_page

    write_text(path, render_page(report))


def write_recipe(path: Path, recipe: "Recipe") -> None:
    """Write a recipe as a TOML file that reproduces it exactly."""
    from edgepack.optimize.recipes.recipe_file import recipe_to_toml

    write_text(path, recipe_to_toml(recipe))


def check_outputs(
    *,
    bundle: Path | None = None,
    model: Path | None = None,
    results: Path | None = None,
    report: Path | None = None,
    recipe: Path | None = None,
    junit: Path | None = None,
    node_data: Path | None = None,
) -> None:
    """Refuse output paths that cannot work, before any work is done.

    Raises:
        UsageError: a folder in the place of a file, or two outputs of the same name.
        OutputError: a folder that cannot be written to, or a file that is not an earlier output
            of the same kind and would be lost.
        BundleError: the same of a bundle's path.
    """
    # A bundle may be given as the folder to write it to.
    folder = bundle if bundle is not None and bundle.is_dir() else None
    files = [
        path
        for path in (bundle, model, results, report, recipe, junit, node_data)
        if path is not None and path != folder
    ]
    resolved = [path.resolve() for path in files]
    for path in files:
        if path.is_dir() or resolved.count(path.resolve()) > 1:
            raise UsageError(
                f"{path}: expected the name of a file of its own",
                remedy="Give each output its own file name.",
            )
        _check_writable(path.resolve().parent, path)
    if folder is not None:
        _check_writable(folder, folder)
    elif bundle is not None:
        from edgepack.bundle.archive import check_replaceable

        check_replaceable(bundle)
    for output, starts, offset in (
        (model, (FILE_IDENTIFIER.lower(),), _IDENTIFIER_OFFSET),
        (results, _JSON_START, 0),
        (report, _HTML_START, 0),
        (recipe, _RECIPE_START, 0),
        (junit, _XML_START, 0),
        (node_data, _JSON_START, 0),
    ):
        if output is not None:
            _check_replaceable(output, starts, offset=offset)


def check_figures(paths: tuple[Path, ...]) -> None:
    """Refuse figures' paths that cannot be written, or would replace other files.

    Raises:
        OutputError: the folder cannot be written to, or another file is there.
    """
    for path in paths:
        _check_writable(path.resolve().parent, path)
        _check_replaceable(path, _FIGURE_START, offset=0)


def _check_writable(folder: Path, path: Path) -> None:
    existing = next(each for each in (folder, *folder.parents) if each.exists())
    if not existing.is_dir():
        raise OutputError(
            f"{path}: cannot be written: {existing} is not a folder", remedy=_WRITE_REMEDY
        )
    if not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(
            f"{path}: cannot be written: no permission to write to {existing}",
            remedy=_WRITE_REMEDY,
        )


def _check_replaceable(path: Path, starts: tuple[bytes, ...], *, offset: int) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _cannot_write(path, error) from error
    if head.strip() and not head[offset:].lstrip().lower().startswith(starts):
        raise OutputError(
            f"{path}: expected a free name or an earlier output, but another file is there",
            remedy="Give another output path, or move that file away.",
        )


def _cannot_write(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{path}: cannot be written: {error.strerror or error}", remedy=_WRITE_REMEDY
    )
