"""The page docs/model-support.md, from the results of runs."""

import os
import platform
import re
import time
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from runs import Result, Source

WANTED_SHARE = 0.95
EXACT_DB = 300
_LONGEST_REASON = 300
_ALL_FELL = "converters to give a model"
"""What the message holds when every converter of the chain fell."""
_HEAD = """\
# Model support

What `edgepack convert` makes of models of every framework, measured. This page is written by
`scripts/model-support`; do not edit it.

Every model is converted in a process of its own, with limits of memory and time, and counts as
passing when a model came out that computes what its source computes: every output against the
source framework on several sets of generated inputs (`docs/architecture.md`, decision 2). The
models are made by `scripts/zoo` with random weights from a fixed seed, or are real ones fetched by
`scripts/fetch-models`. Run it again, or any part of it:

    scripts/model-support
    scripts/model-support --resume --again --cases 'onnx-*'
"""
_LEGEND = """\
`chain` names the converter that the chain chose by itself; the rows below it are the others, each
alone. Parity is the worst output's.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Issue:
    """A known fault of a converter.

    Attributes:
        fault: regular expression that its message matches.
        converters: whose it is; empty for any.
        upstream: links, or that none was found.
    """

    fault: str
    converters: tuple[str, ...]
    upstream: str


def render(
    sources: Sequence[Source],
    results: Mapping[str, Sequence[Result]],
    *,
    missing: Sequence[str],
    issues: Path,
    versions: Mapping[str, Mapping[str, str]],
) -> tuple[str, float]:
    """Give the page, and the share of model files that the chain passes."""
    known = read_issues(issues)
    passed = sum(results[source.key][0].passed for source in sources)
    share = passed / len(sources) if sources else 0.0
    parts = [
        _HEAD,
        "\n".join(_conditions(versions)),
        "## Totals\n",
        "\n".join(_totals(sources, results, passed, len(missing))),
        "## What fails\n",
        "\n".join(_failures(sources, results, known)),
        "## All models\n",
        _LEGEND,
        "\n".join(_models(sources, results)),
    ]
    if missing:
        parts += ["## Not run\n", "These have no result: " + ", ".join(f"`{m}`" for m in missing)]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts), share


def read_issues(path: Path) -> tuple[Issue, ...]:
    """Read the known faults."""
    tables = tomllib.loads(path.read_text("utf-8"))["issue"]
    return tuple(
        Issue(
            fault=each["fault"],
            converters=tuple(each.get("converters", ())),
            upstream=each["upstream"],
        )
        for each in tables
    )


def _conditions(versions: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    from importlib.metadata import version  # noqa: PLC0415 - beside its use

    from edgepack import __version__  # noqa: PLC0415 - as above

    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    yield f"- Date: {time.strftime('%Y-%m-%d', time.gmtime())}; EdgePack {__version__}"
    yield (
        f"- Machine: {_processor()}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, "
        f"{platform.system()} {platform.machine()}, Python {platform.python_version()}; "
        "shared with other work, so the seconds are upper bounds"
    )
    yield f"- The converted model runs on ai-edge-litert {version('ai-edge-litert')}"
    for name, packages in versions.items():
        listed = ", ".join(f"{package} {number}" for package, number in packages.items())
        yield f"- Toolchain `{name}`: {listed}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor()
    found = re.search(r"^model name\s*: (.+)$", info.read_text(), re.MULTILINE)
    return found[1] if found else platform.processor()


def _totals(
    sources: Sequence[Source],
    results: Mapping[str, Sequence[Result]],
    passed: int,
    num_missing: int,
) -> Iterator[str]:
    cases = {source.case for source in sources}
    whole = {
        case
        for case in cases
        if all(results[each.key][0].passed for each in sources if each.case == case)
    }
    yield (
        f"**{passed} of {len(sources)} model files pass ({passed / max(1, len(sources)):.1%})**; "
        f"{len(whole)} of {len(cases)} models pass in every format tried.\n"
    )
    if num_missing:
        yield f"{num_missing} more files have no result yet; the last section names them.\n"
    yield "| format | files | pass |"
    yield "|---|---:|---:|"
    for form in sorted({source.form for source in sources}):
        passing = [results[each.key][0].passed for each in sources if each.form == form]
        yield f"| {form} | {len(passing)} | {sum(passing)} ({sum(passing) / len(passing):.1%}) |"
    yield ""
    yield "| converter | tried | pass |"
    yield "|---|---:|---:|"
    tried: dict[str, list[bool]] = {}
    for source in sources:
        for name, has_passed in _outcomes(source, results[source.key]).items():
            tried.setdefault(name, []).append(has_passed)
    for name, outcomes in sorted(tried.items()):
        share = sum(outcomes) / len(outcomes)
        yield f"| {name} | {len(outcomes)} | {sum(outcomes)} ({share:.1%}) |"
    yield ""


def _outcomes(source: Source, results: Sequence[Result]) -> dict[str, bool]:
    """Give for each converter that was tried on a source whether it passed.

    What was refused before any converter came to it counts for none.
    """
    fault = results[0].fault or ""
    is_refused = ".onnx" in source.file and _ALL_FELL not in fault
    fell = () if results[0].passed or is_refused else source.converters
    outcomes: dict[str, bool] = dict.fromkeys(fell, False)
    for each in results:
        outcomes |= dict.fromkeys((name for name, _ in each.fallen), False)
        if each.passed and each.chosen and each.chosen != "none":
            outcomes[each.chosen] = True
        elif each.converter is not None:
            outcomes[each.converter] = False
    return outcomes


def _failures(
    sources: Sequence[Source], results: Mapping[str, Sequence[Result]], issues: Sequence[Issue]
) -> Iterator[str]:
    rows = [
        (source, converter, reason)
        for source in sources
        for converter, reason in _reasons(results[source.key])
    ]
    if not rows:
        yield "Nothing."
        return
    yield (
        "`chain` means that no converter made a model that passes, so the model fails. The other "
        "rows are single converters that fell where another one passes.\n"
    )
    yield "| model | format | converter | reason | upstream |"
    yield "|---|---|---|---|---|"
    for source, converter, reason in sorted(rows, key=lambda row: row[1] != "chain"):
        yield (
            f"| {source.case} | {source.form} | {converter} | {_cell(reason)} | "
            f"{_upstream(converter, reason, issues)} |"
        )


def _reasons(results: Sequence[Result]) -> Iterator[tuple[str, str]]:
    told = set()
    for each in results:
        if not each.passed and each.fault is not None:
            told.add(each.converter)
            yield each.converter or "chain", each.fault
    for converter, reason in results[0].fallen:
        if converter not in told:
            yield converter, reason


def _upstream(converter: str, reason: str, issues: Iterable[Issue]) -> str:
    for issue in issues:
        fits = not issue.converters or converter == "chain" or converter in issue.converters
        if fits and re.search(issue.fault, reason, re.DOTALL):
            return issue.upstream
    return "none found"


def _models(sources: Sequence[Source], results: Mapping[str, Sequence[Result]]) -> Iterator[str]:
    yield "| model | format | converter | result | parity | seconds | peak MiB | bytes |"
    yield "|---|---|---|---|---:|---:|---:|---:|"
    for source in sources:
        for each in results[source.key]:
            yield (
                f"| {source.case} | {source.form} | {_converter(each)} | "
                f"{'pass' if each.passed else '**fail**'} | {_parity(each)} | {each.seconds:.0f} | "
                f"{each.peak_memory_bytes / 2**20:.0f} | {each.size_bytes or ''} |"
            )


def _converter(result: Result) -> str:
    if result.converter is not None:
        return result.converter
    if result.chosen is None:
        return "chain"
    return "chain: converted already" if result.chosen == "none" else f"chain: {result.chosen}"


def _parity(result: Result) -> str:
    if result.sqnr_db is None:
        return ""
    text = "exact" if result.sqnr_db >= EXACT_DB else f"{result.sqnr_db:.0f} dB"
    other = [each for each in result.judged if each not in {"sqnr", "equal"}]
    return f"{text} ({', '.join(other)})" if other else text


def _cell(text: str) -> str:
    line = " ".join(text.split()).replace("|", "\\|")
    return line if len(line) <= _LONGEST_REASON else f"{line[:_LONGEST_REASON]}…"
