"""The page's section on a pack: why which variant was chosen, and every candidate."""

from collections.abc import Sequence
from html import escape
from typing import Final

from edgepack.report.candidates import Place, RankedRow, rank_candidates, tell_others
from edgepack.report.labels import device_name, plain, visible
from edgepack.report.losses import account, drop_metric, drop_points
from edgepack.report.markup import (
    cell,
    latency_cell,
    legend,
    noted_row,
    plots,
    row_head,
    section,
    share_cell,
    table,
    text_of,
)
from edgepack.report.merits import Cost, Worth
from edgepack.report.pareto import draw_legend, plot_pareto
from edgepack.report.rows import Standing, standing
from edgepack.report.summary import PackSummary, VariantRow
from edgepack.report.units import (
    ABSENT,
    count,
    decibel_ends,
    decibels,
    file_size,
    share,
    share_interval,
)

# So many rows and no more are read at a glance.
_MANY: Final = 12
_BADGES: Final = {
    Standing.CHOSEN: "good",
    Standing.CHOSEN_OUTSIDE: "fault",
    Standing.INSIDE: "",
    Standing.OUTSIDE: "fault",
    Standing.SKIPPED: "",
}
_PLACES: Final = {
    Place.CHOSEN: "chosen",
    Place.FRONT: "Pareto front: no other inside the floors is better in one of latency, size and "
    "SQNR and as good in the rest",
    Place.BEHIND: "inside the floors, but another is no worse in anything",
    Place.OUTSIDE: "outside the floors",
}


def variants_section(pack: PackSummary) -> str:
    """Write the section: the reason, the Pareto chart, the table, and the recipe's file."""
    ranked = rank_candidates(pack)
    reason = f"Chosen: {plain(pack.chosen_reason)}."
    parts = [f'<p class="lead">{escape(reason)}{_floors(pack)}</p>', *_chart(pack, ranked)]
    first = [each for each in ranked if each.place in {Place.CHOSEN, Place.FRONT}]
    if len(ranked) <= _MANY or not first:
        parts.append(_table(pack, ranked, _caption(pack)))
    else:
        others = [each for each in ranked if each not in first]
        told = tell_others(ranked)
        parts.append(_table(pack, first, _caption(pack)))
        parts.append(
            f"<details><summary>{escape(told[0].upper() + told[1:])}</summary>"
            f"{_table(pack, others, 'The other candidates, by the same numbers')}</details>"
        )
    if pack.recipe_toml:
        parts.append(
            "<details><summary>The recipe as a file that reproduces the chosen variant</summary>"
            f"<pre>{escape(visible(pack.recipe_toml))}</pre></details>"
        )
    if pack.bundle is not None:
        size = f", {file_size(pack.bundle_bytes)}" if pack.bundle_bytes is not None else ""
        parts.append(f"<p>Bundle <code>{text_of(pack.bundle)}</code>{escape(size)}</p>")
    return section("Variants", *parts)


def _chart(pack: PackSummary, ranked: Sequence[RankedRow]) -> tuple[str, ...]:
    panels = [
        plot_pareto(pack, cost=cost, worth=worth)
        for worth in (Worth.SQNR, Worth.ANSWERS)
        for cost in (Cost.LATENCY, Cost.SIZE)
    ]
    if not any(panels):
        return ()
    there = {each.place for each in ranked}
    marks = [(draw_legend(place), words) for place, words in _PLACES.items() if place in there]
    return plots(*panels), legend(marks, "Numbers are those of the table below.")


def _floors(pack: PackSummary) -> str:
    floors = []
    if pack.min_sqnr_db is not None:
        floors.append(f"SQNR of at least {pack.min_sqnr_db:g} dB")
    if pack.min_agreement is not None:
        floors.append(f"at least {share(pack.min_agreement)} agreement with float")
    if pack.max_drop_points is not None:
        points = "point" if pack.max_drop_points == 1 else "points"
        what = f"percentage {points} of accuracy" if pack.metric is None else "of the metric"
        floors.append(f"at most {pack.max_drop_points:g} {what} lost")
    if not floors:
        return ""
    judged = ", judged on the bounds of their 95% intervals" if pack.is_confident else ""
    told = f"{', '.join(floors)}{judged}"
    return f" The floors: {escape(told)}; the objective: {text_of(pack.objective)}."


def _caption(pack: PackSummary) -> str:
    about = plain(pack.target_description or pack.target)
    caption = f"Variants of {plain(pack.model, longest=120)} for {about}"
    if pack.num_samples is not None:
        caption += f", compared with float on {count(pack.num_samples, 'sample')}"
    if pack.latency_on is not None and any(row.median_ns is not None for row in pack.variants):
        caption += f", timed on {device_name(pack.latency_on)}"
    below = [
        words
        for words, values in (
            ("its interval", [row.sqnr_ci95_db for row in pack.variants]),
            ("that of the worst channel", [row.worst_channel_sqnr_db for row in pack.variants]),
        )
        if any(value is not None for value in values)
    ]
    if below:
        caption += f"; below each SQNR, {' and '.join(below)}"
    if any(row.drop_points is not None for row in pack.variants):
        caption += (
            "; below each accuracy, its interval, and what is lost against float with its own"
        )
    if pack.metric is not None:
        caption += f"; the metric is {plain(pack.metric, longest=80)}, and below it what is lost"
        caption += " with its interval"
    return caption


def _table(pack: PackSummary, ranked: Sequence[RankedRow], caption: str) -> str:
    rows = pack.variants
    optional = (
        (any(row.top1_agreement is not None for row in rows), "Agreement"),
        (any(row.accuracy is not None for row in rows), "Accuracy"),
        (any(row.metric is not None for row in rows), "Metric"),
        (any(row.median_ns is not None for row in rows), "Median latency"),
    )
    shown = [name for is_there, name in optional if is_there]
    columns = [("Recipe", False), ("Size", True), ("SQNR", True)]
    columns += [(name, True) for name in shown] + [("Standing", False)]
    return table(caption, columns, (_row(each, pack, shown) for each in ranked))


def _metric_cell(row: VariantRow) -> str:
    if row.metric is None or row.metric.value is None:
        return cell(ABSENT)
    return cell(f"{row.metric.value:.4g}", *drop_metric(row))


def _accuracy_cell(row: VariantRow) -> str:
    if row.accuracy is None:
        return cell(ABSENT)
    spread = "" if row.accuracy_ci95 is None else share_interval(row.accuracy_ci95)
    return cell(share(row.accuracy), spread, *drop_points(row))


def _row(ranked: RankedRow, pack: PackSummary, shown: Sequence[str]) -> str:
    row = ranked.row
    state = standing(row, chosen=pack.chosen)
    packed = "" if row.compressed_bytes is None else f"{file_size(row.compressed_bytes)} packed"
    worst, spread = row.worst_channel_sqnr_db, row.sqnr_ci95_db
    cells = [
        row_head(f"{ranked.number}. {plain(row.recipe, longest=64)}", below=row.passes),
        cell(file_size(row.num_bytes) if row.num_bytes is not None else ABSENT, packed),
        cell(
            decibels(row.sqnr_db) if row.sqnr_db is not None else ABSENT,
            "" if spread is None else decibel_ends(spread),
            "" if worst is None else f"worst {decibels(worst)}",
        ),
    ]
    optional = {
        "Agreement": share_cell(row.top1_agreement, row.top1_agreement_ci95),
        "Accuracy": _accuracy_cell(row),
        "Metric": _metric_cell(row),
        "Median latency": latency_cell(row.median_ns, row.median_ci95_ns),
    }
    cells += [optional[name] for name in shown]
    notes = [row.skipped_reason] if row.skipped_reason is not None else list(row.reasons)
    notes += [*row.doubts, *account(row)]
    front = " on the front" if ranked.place is Place.FRONT else ""
    badge = f'<span class="badge {_BADGES[state]}">{escape(state.value)}</span>'
    cells.append(f'<td class="text">{badge}<span class="why">{front}</span></td>')
    kind = {Place.SKIPPED: "skipped", Place.CHOSEN: "chosen"}.get(ranked.place, "")
    return noted_row(cells, notes, kind=kind)
