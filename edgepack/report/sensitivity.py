"""What each layer costs: a table and bars, on the terminal and as a page."""

from dataclasses import dataclass
from html import escape
from types import MappingProxyType
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from edgepack.optimize.ranking.layer_costs import (
    LayerSensitivity,
    Precision,
    Sensitivity,
    predict_sqnr_db,
)
from edgepack.report.bars import Bar, character_bar, plot_bars
from edgepack.report.document import write_document
from edgepack.report.labels import plain
from edgepack.report.markup import cell, plots, row_head, section, table, text_of
from edgepack.report.svg import Plot
from edgepack.report.units import count, decibels, share

_NUM_SHOWN: Final = 20
_BAR_WIDTH: Final = 12
_LONGEST_NAME: Final = 40
_STEP_DB: Final = 10

WORDS: Final = MappingProxyType(
    {
        Precision.INT8: "int8 weights and activations",
        Precision.WEIGHT_ONLY_INT8: "int8 weights",
        Precision.WEIGHT_ONLY_INT4: "int4 weights",
        Precision.FLOAT16: "float16 weights",
    }
)
"""What a layer is stored and computed in, in words; in the order of the page."""

_READING: Final = (
    "Each layer is quantized alone, all others stay in float; the SQNR is that of the model's "
    "worst output, so the lowest costs most. Without shift: the same when the shift of each "
    "channel's mean is taken back, as bias_correction does."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class RankedLayers:
    """The layers of one precision, the worst first.

    Attributes:
        shown: those with rows of their own.
        others: the rest.
    """

    shown: tuple[LayerSensitivity, ...]
    others: tuple[LayerSensitivity, ...]

    @property
    def empty_db(self) -> int:
        """Where bars have no length: whole tens, just beyond the best that is shown."""
        best_db = max((each.output_sqnr_db for each in self.shown), default=0.0)
        return max(_STEP_DB, _STEP_DB * (int(best_db) // _STEP_DB + 1))

    def length(self, level_db: float) -> float:
        """Give a bar's length: the lower the SQNR, the longer; full from 0 dB on."""
        return min(1.0, max(0.0, 1.0 - level_db / self.empty_db))


def rank_shown(sensitivity: Sensitivity, precision: Precision) -> RankedLayers:
    """Give the layers of a precision by their SQNR at the outputs, the worst first."""
    ranked = sorted(sensitivity.at(precision), key=lambda each: each.output_sqnr_db)
    return RankedLayers(shown=tuple(ranked[:_NUM_SHOWN]), others=tuple(ranked[_NUM_SHOWN:]))


def render_sensitivity(sensitivity: Sensitivity, precision: Precision) -> RenderableType:
    """Give the worst layers of one precision as a table with bars, the rest in one row."""
    ranked = rank_shown(sensitivity, precision)
    rows = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    rows.add_column("layer", overflow="fold", min_width=12)
    rows.add_column("weights", justify="right", no_wrap=True)
    for name in ("own SQNR", "at output", "without shift"):
        rows.add_column(name, justify="right", max_width=8)
    rows.add_column("", no_wrap=True, min_width=_BAR_WIDTH)
    for each in ranked.shown:
        rows.add_row(
            Text(plain(each.layer, longest=_LONGEST_NAME)),
            f"{each.num_weights:,}",
            decibels(each.local_sqnr_db),
            decibels(each.output_sqnr_db),
            decibels(each.corrected_sqnr_db),
            Text(character_bar(ranked.length(each.output_sqnr_db), width=_BAR_WIDTH)),
        )
    if ranked.others:
        whole_db, corrected_db = _together(sensitivity, precision, ranked)
        rows.add_row(
            Text(f"{count(len(ranked.others), 'other')} together", style="dim"),
            f"{sum(each.num_weights for each in ranked.others):,}",
            "",
            decibels(whole_db),
            decibels(corrected_db),
            Text(character_bar(ranked.length(whole_db), width=_BAR_WIDTH)),
        )
    return Group(
        Text(f"Sensitivity: {WORDS[precision]}", style="bold"),
        rows,
        Padding(Text(_READING), (0, 0, 0, 2)),
        Padding(Text(_effort(sensitivity)), (0, 0, 0, 2)),
    )


def sensitivity_page(sensitivity: Sensitivity, *, name: str, tool_version: str) -> str:
    """Write an analysis as one HTML page, each precision with its bars and its table.

    Args:
        sensitivity: of the model.
        name: of the model, from outside.
        tool_version: that made the page.
    """
    header = (
        f'<header><p class="over">{text_of(name)}</p>'
        "<h1>Which layer costs how much fidelity</h1>"
        f"<p>{escape(_READING)}</p><p>{escape(_effort(sensitivity))}</p></header>"
    )
    return write_document(
        name,
        header=header,
        sections=[_section(sensitivity, each) for each in WORDS],
        footer=f"EdgePack {escape(tool_version)}. SQNR: signal to quantization noise, in dB.",
    )


def _section(sensitivity: Sensitivity, precision: Precision) -> str:
    ranked = rank_shown(sensitivity, precision)
    rows = [_row(each) for each in ranked.shown]
    if ranked.others:
        whole_db, corrected_db = _together(sensitivity, precision, ranked)
        rows.append(
            f"<tr>{row_head(count(len(ranked.others), 'other') + ' together')}"
            + cell(f"{sum(each.num_weights for each in ranked.others):,}")
            + cell("")
            + cell("")
            + cell(decibels(whole_db))
            + cell(decibels(corrected_db))
            + cell("", number=False)
            + "</tr>"
        )
    columns = (
        ("Layer", False),
        ("Weights", True),
        ("Own SQNR", True),
        ("Mean shift", True),
        ("At output", True),
        ("Without shift", True),
        ("Known by", False),
    )
    return section(
        WORDS[precision],
        plots(_plot(ranked, precision)),
        table(f"Layers alone in {precision.value}, the worst first", columns, rows),
    )


def _row(each: LayerSensitivity) -> str:
    return (
        f"<tr>{row_head(each.layer, below=each.op)}"
        + cell(f"{each.num_weights:,}")
        + cell(decibels(each.local_sqnr_db))
        + cell(share(each.mean_shift_share, decimals=0))
        + cell(decibels(each.output_sqnr_db))
        + cell(decibels(each.corrected_sqnr_db))
        + cell(each.evidence.value, number=False)
        + "</tr>"
    )


def _plot(ranked: RankedLayers, precision: Precision) -> Plot | None:
    bars = [
        Bar(
            name=each.layer,
            length=ranked.length(each.output_sqnr_db),
            strong=min(ranked.length(each.corrected_sqnr_db), ranked.length(each.output_sqnr_db)),
            value=decibels(each.output_sqnr_db),
            title=f"{plain(each.layer)}: {decibels(each.output_sqnr_db)}, "
            f"{decibels(each.corrected_sqnr_db)} without the shift of the mean "
            f"({each.evidence.value})",
        )
        for each in ranked.shown
    ]
    worst = ranked.shown[0] if ranked.shown else None
    return plot_bars(
        bars,
        caption=f"SQNR at the output with one layer in {precision.value}. The longer a bar, the "
        f"more noise, from {ranked.empty_db} dB to 0; its dark part is left when shifts of the "
        "mean are taken back.",
        description=""
        if worst is None
        else f"{count(len(bars), 'bar')}; the longest is {plain(worst.layer, longest=120)} at "
        f"{decibels(worst.output_sqnr_db)}.",
    )


def _together(
    sensitivity: Sensitivity, precision: Precision, ranked: RankedLayers
) -> tuple[float, float]:
    """Give the SQNR of all others together, and the one without shifts of the mean."""
    kept = {each.layer for each in ranked.shown}
    whole, corrected = (
        predict_sqnr_db(sensitivity, precision, kept=kept, corrected=each) for each in (False, True)
    )
    return whole, corrected


def _effort(sensitivity: Sensitivity) -> str:
    one_by_one = len(sensitivity.layers)
    return (
        f"{count(sensitivity.num_samples, 'sample')}; took {sensitivity.num_evaluations:.1f} runs "
        f"of the model over them, one layer at a time takes {one_by_one:,}"
    )
