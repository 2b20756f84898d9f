"""Options that say what a variant must keep of the float model, and how that is judged."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from edgepack.commands.options import NumberRange, apply_options
from edgepack.errors import UsageError

if TYPE_CHECKING:
    from edgepack.data.metric import Metric
    from edgepack.optimize.judging.floors import Floors

F = TypeVar("F", bound=Callable[..., Any])

# Below it a plain number is taken by some for a share of 1.
_SMALLEST_PLAIN_POINTS: Final = 0.1


def floor_options(function: F) -> F:
    """Add the options of the floors and of the metric they are judged by."""
    return apply_options(
        click.option(
            "--min-sqnr",
            type=NumberRange(0, 300),
            metavar="DB",
            help="Floor for every output's SQNR against float [default: 20 without labels].",
        ),
        click.option(
            "--min-agreement",
            metavar="SHARE",
            help="Floor for the top-1 agreement with float [default: 90% without labels].",
        ),
        click.option(
            "--max-drop",
            metavar="POINTS",
            help="With labels: percentage points of accuracy that may be lost [default: 1%, unless "
            "--min-sqnr or --min-agreement is given]. With --metric: how much of it may be lost.",
        ),
        click.option(
            "--metric",
            metavar="MODULE:FUNCTION",
            help="Your own measure of quality, or FILE.py:FUNCTION. It is called as "
            "f(outputs, labels) with all evaluated samples and returns a number, higher is better. "
            "outputs is an array (N, ...), or a dict of arrays by name when the model has several; "
            "labels are yours in any shape, or the inputs when there are none.",
        ),
        click.option(
            "--confident",
            is_flag=True,
            help="Judge each floor on the unfavorable end of the 95% interval: what holds for "
            "other samples too.",
        ),
    )(function)


def make_floors(given: Mapping[str, Any]) -> "Floors":
    """Make the floors from `floor_options`.

    Raises:
        UsageError: an option is not right, or a metric without what may be lost of it.
    """
    from edgepack.optimize.judging.floors import Floors

    drop, metric = given["max_drop"], given["metric"]
    if metric is not None and drop is None:
        raise UsageError(
            f"--metric {metric}: expected --max-drop with it, as a metric's scale is not known",
            remedy="Say how much of it may be lost in its own points: --max-drop 0.01 lets 0.92 "
            "become 0.91.",
        )
    sqnr_db, agreement = given["min_sqnr"], given["min_agreement"]
    plain = Floors()
    return Floors(
        min_sqnr_db=plain.min_sqnr_db if sqnr_db is None else sqnr_db,
        min_agreement=plain.min_agreement
        if agreement is None
        else parse_share("--min-agreement", agreement),
        max_drop=parse_points("--max-drop", drop)
        if metric is None
        else parse_loss("--max-drop", drop),
        is_confident=given["confident"],
        is_default=sqnr_db is None and agreement is None and drop is None,
    )


def parse_share(option: str, text: str) -> float:
    """Read `90%` or `0.9` as a share.

    Raises:
        UsageError: neither, or outside 0 to 1.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%?)", text.strip())
    share = float(match[1]) / (100 if match[2] else 1) if match else -1.0
    if not 0.0 <= share <= 1.0:
        raise UsageError(
            f"{option}: expected a share such as 90% or 0.9, not {text!r}",
            remedy=f"Write for instance {option} 90%.",
        )
    return share


def parse_points(option: str, text: str | None) -> float | None:
    """Read `1%` or `1` as percentage points.

    Raises:
        UsageError: neither, or outside 0 to 100.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%?)", text.strip())
    points = float(match[1]) if match else -1.0
    if match and not match[2] and 0.0 < points < _SMALLEST_PLAIN_POINTS:
        raise UsageError(
            f"{option}: {text} could be {points:g} percentage points or a share of "
            f"{100 * points:g}%",
            remedy=f"Write {option} {points:g}% for the first, {option} {100 * points:g}% for the "
            "second.",
        )
    if not 0.0 <= points <= 100.0:  # noqa: PLR2004 - percentage points
        raise UsageError(
            f"{option}: expected percentage points such as 1%, not {text!r}",
            remedy=f"Write for instance {option} 1%.",
        )
    return points


def parse_loss(option: str, text: str | None) -> float | None:
    """Read how much of the user's own metric may be lost, in its own points.

    Raises:
        UsageError: no number, or below 0.
    """
    if text is None:
        return None
    if not re.fullmatch(r"\d+(\.\d+)?", text.strip()):
        raise UsageError(
            f"{option}: expected a number in the metric's own points such as 0.01, not {text!r}",
            remedy=f"With --metric, {option} 0.01 lets 0.92 become 0.91.",
        )
    return float(text)


def parse_metric(text: str | None) -> "Metric | None":
    """Read `module:function` or `file.py:function`.

    Raises:
        UsageError: neither.
    """
    from edgepack.data.metric import Metric
    from edgepack.data.own_code import names_function

    if text is None:
        return None
    if not names_function(text):
        raise UsageError(
            f"--metric: expected module:function or FILE.py:function, not {text!r}",
            remedy="Write for instance --metric score.py:f1.",
        )
    return Metric(source=text, folder=Path.cwd())
