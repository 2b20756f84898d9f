"""Named shapes: one model packed once for each set of input shapes, each a bundle of its own."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from edgepack.errors import EdgePackError, UsageError

if TYPE_CHECKING:
    from edgepack.workflow.request import PackRequest

F = TypeVar("F", bound=Callable[..., Any])

_NAME: Final = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,30}"
_SHAPE: Final = re.compile(rf"({_NAME}):([^=]+=\d+(?:[,x]\d+)*(?:;[^=;]+=\d+(?:[,x]\d+)*)*)")
_FOR_SHAPE: Final = re.compile(rf"({_NAME})=(.+)", re.DOTALL)


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedShape:
    """A name and the shapes of the inputs that it fixes.

    Attributes:
        name: what it is called; the bundle's name ends in it.
        inputs: (input name, whole shape).
    """

    name: str
    inputs: tuple[tuple[str, tuple[int, ...]], ...]


def shape_option(function: F) -> F:
    """Add the option that names shapes."""
    return click.option(
        "--shape",
        "shapes",
        multiple=True,
        metavar="NAME:INPUT=1,3,224,224",
        help="Pack a bundle NAME of its own with this input shape; repeat it for other shapes, "
        "and with the same name for other inputs.",
    )(function)


def parse_shapes(texts: Sequence[str]) -> tuple[NamedShape, ...]:
    """Read `small:x=1,3,224,224`, several inputs after ';' or under the same name again.

    Raises:
        UsageError: anything else, or an input that stands twice under one name.
    """
    named: dict[str, dict[str, tuple[int, ...]]] = {}
    for text in texts:
        match = _SHAPE.fullmatch(text)
        if match is None:
            raise UsageError(
                f"--shape: expected NAME:INPUT=1,3,224,224, not {text!r}",
                remedy="Write for instance --shape small:x=1,3,224,224 --shape "
                "large:x=1,3,448,448; inputs of one shape stand behind ';'.",
            )
        inputs = named.setdefault(match[1], {})
        for part in match[2].split(";"):
            name, sizes = part.rsplit("=", 1)
            if name in inputs:
                raise UsageError(
                    f"--shape: input {name!r} stands twice under {match[1]!r}",
                    remedy="Give other shapes of it another name.",
                )
            inputs[name] = tuple(int(size) for size in re.split("[,x]", sizes))
    return tuple(
        NamedShape(name=name, inputs=tuple(inputs.items())) for name, inputs in named.items()
    )


def select_source(
    option: str, sources: Sequence[str], *, shapes: Sequence[NamedShape], shape: str | None
) -> str | None:
    """Give the one data source for a shape: its own as NAME=SOURCE, else the common one.

    Raises:
        UsageError: several sources where one serves.
    """
    names = {each.name for each in shapes}
    own: list[str] = []
    common: list[str] = []
    for source in sources:
        match = _FOR_SHAPE.fullmatch(source)
        if match is None or match[1] not in names:
            common.append(source)
        elif match[1] == shape:
            own.append(match[2])
    if len(own) > 1 or len(common) > 1:
        raise UsageError(
            f"{option}: expected one source"
            + (f" for shape {shape!r}" if shape else "")
            + f", but got {', '.join(own if len(own) > 1 else common)}",
            remedy=f"Give {option} once, or NAME=SOURCE once for each --shape.",
        )
    return next(iter((*own, *common)), None)


def requests_by_shape(
    make: "Callable[[str | None], PackRequest]",
    shapes: Sequence[NamedShape],
    *,
    output: Path | None,
) -> "tuple[tuple[str | None, PackRequest], ...]":
    """Give the request of each named shape with its name, or the plain one without shapes.

    Args:
        make: makes the request of a shape's name, or of None.
        shapes: may be none.
        output: what the user gave as the bundle's path.

    Raises:
        UsageError: one file for several bundles, or an input that has a shape from both
            `--shape` and `--input-shape`.
    """
    if not shapes:
        return ((None, make(None)),)
    if output is not None and not output.is_dir():
        raise UsageError(
            f"--out: {output} is one file, but each --shape makes a bundle of its own",
            remedy="Give an existing folder, or leave --out out.",
        )
    return tuple((shape.name, _fix(make(shape.name), shape)) for shape in shapes)


def _fix(request: "PackRequest", shape: NamedShape) -> "PackRequest":
    from edgepack.bundle.manifest import default_name

    twice = {name for name, _ in request.imports.input_shapes} & {name for name, _ in shape.inputs}
    if twice:
        raise UsageError(
            f"--shape: {', '.join(sorted(twice))} has a shape from --input-shape already",
            remedy="Leave it out of --input-shape.",
        )
    imports = replace(request.imports, input_shapes=(*request.imports.input_shapes, *shape.inputs))
    name = request.name or default_name(request.model.name)
    return replace(request, imports=imports, name=f"{name}-{shape.name}")


@contextmanager
def naming_shape(shape: str | None, written: Sequence[Path]) -> Iterator[None]:
    """Name the shape in a failure, and the bundles of the shapes before it.

    Args:
        shape: its name; None without shapes.
        written: these bundles.

    Raises:
        EdgePackError: what was raised, in these words.
    """
    try:
        yield
    except EdgePackError as error:
        if shape is None:
            raise
        done = ", ".join(str(path) for path in written) or "none"
        raise type(error)(
            f"--shape {shape}: {error.message}",
            remedy=f"{error.remedy} Bundles written for the shapes before it: {done}.".lstrip(),
        ) from error


def path_for(path: Path, shape: str | None) -> Path:
    """Give the file of a shape beside the one that was named: `report-small.html`."""
    return path if shape is None else path.with_stem(f"{path.stem}-{shape}")
