"""A benchmark of many devices: each result is kept at once, and the whole can be gone on with."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.commands.fleet_options import check_targets, plan_from, read_devices
from edgepack.commands.history import remember
from edgepack.commands.options import wishes_from
from edgepack.commands.rollout import (
    journal_path,
    keep_journal,
    reach_options,
    read_earlier,
    roll_out,
    root_of,
    tell_counts,
)
from edgepack.errors import JournalError, MeasureError

if TYPE_CHECKING:
    from edgepack.commands.rollout import Rolled
    from edgepack.measure.record import Measurement
    from edgepack.workflow.subject import Subject

Measured = tuple["Measurement", ...]


def bench_fleet(
    subjects: "Sequence[tuple[Path, Subject]]", named: tuple[str, ...], given: Mapping[str, Any]
) -> "Rolled[Measured]":
    """Time one subject, or two in turns, on each device; with a journal those that are left.

    Args:
        subjects: one or two, with their files.
        named: devices as the user wrote them.
        given: the options' values.

    Raises:
        FleetError: of the devices.
        JournalError: of the journal.
    """
    from edgepack.workflow.timing import BenchTask, bench_task

    devices = read_devices(named, given["filters"])
    target = subjects[0][1].profile
    if target is not None:
        check_targets(devices, target.id)
    files = [(path.resolve(), opened.sha256) for path, opened in subjects]
    reach, wishes = reach_options(given), wishes_from(given)
    tasks = [
        BenchTask(
            subject=files[0],
            against=files[1] if len(files) > 1 else None,
            address=each.address,
            root=root_of(each, given),
            reach=reach,
            wishes=wishes,
        )
        for each in devices
    ]
    path = journal_path(named, given, verb="bench", release=files[0][1][:12])
    subject = _name_subject(files, given)
    with keep_journal(path, subject=subject, resume=given["resume"]) as journal:
        earlier = None
        if journal is not None and path is not None:
            addresses = [each.address for each in devices]
            earlier = read_earlier(journal, addresses, partial(_parse_stored, path=path))
        rolled = roll_out(
            tasks,
            bench_task,
            plan=plan_from(devices, given),
            given=given,
            journal=journal,
            stored=_to_stored,
            on_done=remember,
            earlier=earlier,
        )
    tell_counts(rolled, path)
    return rolled


def _name_subject(files: Sequence[tuple[Path, str]], given: Mapping[str, Any]) -> str:
    """Say what is measured and how: results of other plans do not stand beside these."""
    from dataclasses import asdict

    wishes = {key: value for key, value in asdict(wishes_from(given)).items() if value is not None}
    wishes |= {"runner": given["runner"]} if given["runner"] else {}
    words = ["bench", " against ".join(sha256 for _, sha256 in files)]
    return " ".join([*words, json.dumps(wishes)] if wishes else words)


def _to_stored(measured: Measured) -> object:
    from edgepack.measure.record import to_json

    return [to_json(each) for each in measured]


def _parse_stored(device: str, stored: object, *, path: Path) -> Measured:
    """Read what `_to_stored` gave.

    Raises:
        JournalError: it is damaged.
    """
    from edgepack.measure.record import parse_measurement

    tables = stored if isinstance(stored, list) else []
    try:
        if not tables or not all(isinstance(each, dict) for each in tables):
            raise MeasureError("expected a list of results", remedy="")  # noqa: TRY301 - one end of both
        return tuple(parse_measurement(each) for each in tables)
    except MeasureError as error:
        raise JournalError(
            f"{path}: the result of {device} is damaged: {error.message}",
            remedy="Leave --resume out to measure all of them again.",
        ) from error
