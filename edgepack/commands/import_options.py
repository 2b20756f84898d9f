"""Options of the verbs that read a source model, and what they make."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from edgepack.commands.options import EXISTING_FILE, NumberRange, apply_options
from edgepack.errors import UsageError

if TYPE_CHECKING:
    from edgepack.importers import ImportOptions

F = TypeVar("F", bound=Callable[..., Any])

_SHAPE: Final = re.compile(r"([^=]+)=(\d+(?:[,x]\d+)*)")
_DIMENSION: Final = re.compile(r"([^=]+)=(\d{1,9})")
# Written out, for importing the importers takes longer than `--help` may; a test compares.
CONVERTER_NAMES: Final = (
    "tflite-converter", "onnx2tf", "onnx2tf-tensorflow", "onnx-tf", "litert-torch",
)  # fmt: skip


def source_model(value: str) -> Path:
    """Give the path of a source model, or of code named as `module:function`.

    Raises:
        click.BadParameter: there is no such file, and it names no function.
    """
    from edgepack.importers.source import is_function

    path = Path(value)
    if not path.exists() and not is_function(path):
        raise click.BadParameter(f"Path {value!r} does not exist, and it is not module:function.")
    return path


def import_options(function: F) -> F:
    """Add the options that say how a source model is read."""
    return apply_options(
        click.option(
            "--input-shape",
            "input_shapes",
            multiple=True,
            metavar="NAME=1,3,224,224",
            help="Fix the shape of an input; may be given once for each input.",
        ),
        click.option(
            "--dim",
            "dimensions",
            multiple=True,
            metavar="NAME=SIZE",
            help="Fix a symbolic dimension wherever it stands (ONNX, PyTorch).",
        ),
        click.option(
            "--signature",
            metavar="KEY|IN->OUT",
            help="Signature of a SavedModel; or the nodes a frozen graph lies between.",
        ),
        click.option(
            "--converter",
            type=click.Choice(CONVERTER_NAMES),
            help="The only converter to try [default: all of the format, in their order].",
        ),
        click.option(
            "--with",
            "with_files",
            type=EXISTING_FILE,
            multiple=True,
            metavar="FILE.py",
            help="Python of yours that the model needs, such as custom layers; it is run.",
        ),
        click.option(
            "--trust-model",
            is_flag=True,
            help="Allow a model file to run code of its own (Lambda layers, Python ops).",
        ),
        click.option(
            "--toolchain-python",
            type=click.Path(exists=True, path_type=Path),
            help="Python of an environment of yours that holds the framework "
            "(also EDGEPACK_TOOLCHAIN_PYTHON).",
        ),
        click.option(
            "--convert-memory",
            type=NumberRange(min=0.1, max=4096),
            metavar="GIB",
            help="Memory a conversion may take [default: most of this machine's].",
        ),
        click.option(
            "--convert-timeout",
            type=NumberRange(min=1, max=86400),
            default=3600.0,
            show_default=True,
            metavar="SECONDS",
            help="Time each step of a conversion may take: preparing, converting, comparing.",
        ),
        click.option(
            "--allow-parity",
            type=NumberRange(-300, 300),
            default=60.0,
            show_default=True,
            metavar="DB",
            help="SQNR that the import must reach against its source.",
        ),
    )(function)


def make_import_options(given: Mapping[str, Any]) -> "ImportOptions":
    """Make the importer's options of those of `import_options`.

    Raises:
        UsageError: a shape that is not NAME=1,3,224,224, a dimension that is not NAME=SIZE, or
            one named twice.
    """
    from edgepack.importers import Converter, ImportOptions

    shapes: dict[str, tuple[int, ...]] = {}
    for text in given["input_shapes"]:
        match = _SHAPE.fullmatch(text)
        if match is None or match[1] in shapes:
            raise UsageError(
                f"--input-shape: expected NAME=1,3,224,224, once for each input, not {text!r}",
                remedy="Write the input's name, '=' and its dimensions separated by commas.",
            )
        shapes[match[1]] = tuple(int(size) for size in re.split("[,x]", match[2]))
    dimensions: dict[str, int] = {}
    for text in given["dimensions"]:
        match = _DIMENSION.fullmatch(text)
        if match is None or match[1] in dimensions or int(match[2]) == 0:
            raise UsageError(
                f"--dim: expected NAME=SIZE, once for each dimension, not {text!r}",
                remedy="Write the dimension's name, '=' and a size of 1 or more.",
            )
        dimensions[match[1]] = int(match[2])
    memory_gib = given["convert_memory"]
    return ImportOptions(
        input_shapes=tuple(shapes.items()),
        dimensions=tuple(dimensions.items()),
        signature=given["signature"],
        trust_model=given["trust_model"],
        toolchain_python=given["toolchain_python"],
        converter=Converter(given["converter"]) if given["converter"] else None,
        with_files=tuple(given["with_files"]),
        memory_bytes=int(memory_gib * 2**30) if memory_gib else None,
        timeout_seconds=given["convert_timeout"],
    )
