"""Options that shape a model's inputs and outputs, and the request they make."""

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from edgepack.commands.options import apply_options
from edgepack.errors import UsageError

if TYPE_CHECKING:
    from edgepack.contract import ContractRequest

F = TypeVar("F", bound=Callable[..., Any])

_NUMBER: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_IMAGE_OPTIONS: Final = ("image_mean", "image_std", "image_scale")
_LAYOUTS: Final = ("NHWC", "NCHW")
_DTYPES: Final = ("uint8", "float32")
_HEADS: Final = ("softmax", "sigmoid", "argmax")


def contract_options(function: F) -> F:
    """Add the options that shape a model's inputs and outputs.

    Each may be given once for each input or output, as NAME=VALUE where there are several.
    """
    return apply_options(
        click.option(
            "--input-mean",
            multiple=True,
            metavar="[NAME=]M[,M,M]",
            help="Fold into the model: subtract this from scaled values.",
        ),
        click.option(
            "--input-std",
            multiple=True,
            metavar="[NAME=]S[,S,S]",
            help="Fold into the model: then divide by this.",
        ),
        click.option(
            "--input-scale",
            multiple=True,
            metavar="[NAME=]X",
            help="Fold into the model: multiply raw values by this first, such as 1/255.",
        ),
        click.option(
            "--input-dtype",
            multiple=True,
            metavar="[NAME=]uint8|float32",
            help="Element type of an image input; uint8 takes pixels as a camera gives them.",
        ),
        click.option(
            "--input-layout",
            multiple=True,
            metavar="[NAME=]NHWC|NCHW",
            help="Order of axes of an image input [default: the converter's].",
        ),
        click.option(
            "--output",
            "output_heads",
            multiple=True,
            metavar="[NAME=]softmax|sigmoid|argmax",
            help="Append this to an output.",
        ),
        click.option(
            "--output-layout",
            multiple=True,
            metavar="[NAME=]NHWC|NCHW",
            help="Order of axes of an image output [default: the converter's].",
        ),
    )(function)


def make_contract_request(given: Mapping[str, Any]) -> "ContractRequest":
    """Make the request from the options of `contract_options`, and of `image_options` beside.

    Raises:
        UsageError: a value that cannot be read, given twice, or against --image-….
    """
    from edgepack.contract import ContractRequest, Head, InputWish, OutputWish
    from edgepack.data import ImageLayout

    inputs = _gather(
        given,
        {
            "mean": ("input_mean", parse_values),
            "std": ("input_std", parse_values),
            "scale": ("input_scale", _parse_scale),
            "dtype": ("input_dtype", _choice(_DTYPES)),
            "layout": ("input_layout", lambda o, t: ImageLayout(_choice(_LAYOUTS)(o, t))),
        },
    )
    outputs = _gather(
        given,
        {
            "head": ("output_heads", lambda o, t: Head(_choice(_HEADS)(o, t))),
            "layout": ("output_layout", lambda o, t: ImageLayout(_choice(_LAYOUTS)(o, t))),
        },
    )
    request = ContractRequest(
        inputs=tuple(InputWish(name=name, **wish) for name, wish in inputs.items()),
        outputs=tuple(OutputWish(name=name, **wish) for name, wish in outputs.items()),
    )
    stated = [f"--{key.replace('_', '-')}" for key in _IMAGE_OPTIONS if given.get(key) is not None]
    if stated and request.asks_preprocessing:
        raise UsageError(
            f"{', '.join(stated)} preprocess pictures before the model, but with --input-mean, "
            "--input-std, --input-scale or --input-dtype uint8 the model takes raw pixels",
            remedy=f"Leave {', '.join(stated)} out: pictures then go in from 0 to 255.",
        )
    return request


def parse_values(option: str, text: str) -> tuple[float, ...]:
    """Read numbers or fractions separated by commas.

    Raises:
        UsageError: anything else.
    """
    return tuple(_parse_number(option, each, text) for each in text.split(","))


def _parse_scale(option: str, text: str) -> float:
    return _parse_number(option, text, text)


def _parse_number(option: str, text: str, whole: str) -> float:
    above, slash, below = (each.strip() for each in text.partition("/"))
    is_number = _NUMBER.fullmatch(above) is not None
    if slash:
        is_number = is_number and _NUMBER.fullmatch(below) is not None and float(below) != 0.0
    if not is_number:
        raise UsageError(
            f"{option}: expected numbers or fractions, not {whole!r}",
            remedy=f"Write for instance {option} 0.5, {option} 1/255 or {option} NAME=0.5.",
        )
    return float(above) / float(below) if slash else float(above)


def _choice(known: tuple[str, ...]) -> Callable[[str, str], str]:
    def parse(option: str, text: str) -> str:
        fitting = [each for each in known if each.lower() == text.lower()]
        if not fitting:
            raise UsageError(
                f"{option}: expected {', '.join(known[:-1])} or {known[-1]}, not {text!r}",
                remedy=f"Write for instance {option} {known[0]} or {option} NAME={known[0]}."
                + (" The file to write is named with -o." if known is _HEADS else ""),
            )
        return fitting[0]

    return parse


def _gather(
    given: Mapping[str, Any],
    readers: Mapping[str, tuple[str, Callable[[str, str], Any]]],
) -> dict[str | None, dict[str, Any]]:
    """Give what is asked of each input or output, by its name; None is the only one."""
    wishes: dict[str | None, dict[str, Any]] = {}
    for key, (parameter, parse) in readers.items():
        option = "--output" if parameter == "output_heads" else f"--{parameter.replace('_', '-')}"
        for text in given[parameter]:
            # Names may hold '='; values do not.
            name, equals, value = text.rpartition("=")
            wish = wishes.setdefault(name if equals else None, {})
            if key in wish:
                where = f"for {name!r}" if equals else "without a name"
                raise UsageError(
                    f"{option}: given twice {where}",
                    remedy=f"Give {option} once for each input or output, as NAME=VALUE.",
                )
            wish[key] = parse(option, value)
    if None in wishes and len(wishes) > 1:
        named = ", ".join(repr(name) for name in wishes if name is not None)
        raise UsageError(
            f"options for inputs or outputs are given with a name ({named}) and without one",
            remedy="Write NAME=VALUE for each.",
        )
    return wishes
