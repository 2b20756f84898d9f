"""`edgepack doctor`: what stands in the way of a deployment, all of it at once."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgepack.commands.console import print_json, show_work
from edgepack.commands.fleet_options import (
    check_targets,
    choice_options,
    is_fleet,
    plan_from,
    read_devices,
)
from edgepack.commands.options import (
    android_runtime_from,
    connect_options_from,
    device_options,
    find_target,
    json_option,
    root_option,
    runtime_options,
)
from edgepack.commands.preflight_view import (
    count_findings,
    preflight_json,
    show_preflight,
    show_preflights,
)
from edgepack.commands.rollout import (
    end_rollout,
    outcome_json,
    reach_options,
    roll_out,
    root_of,
)
from edgepack.errors import DeviceError, ExitCode, NotBegunError

if TYPE_CHECKING:
    from edgepack.fleet.rollout import Outcome
    from edgepack.profile import TargetProfile
    from edgepack.workflow.preflight import Preflight
    from edgepack.workflow.subject import Subject


class SubjectFile(click.Path):
    """A bundle or model; a second device in its place is told as that."""

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> str | bytes | os.PathLike[str]:
        """Give the path of a file that exists."""
        text = os.fspath(value)
        if not Path(text).exists() and re.search(r"[:@]", text):
            self.fail(
                f"{text!r} is no file; doctor takes one device, and after it a bundle or a model.",
                param,
                ctx,
            )
        return super().convert(value, param, ctx)


@click.command()
@click.argument("device", metavar="DEVICE|@FLEET.toml")
@click.argument(
    "subject",
    type=SubjectFile(exists=True, dir_okay=False, path_type=Path),
    metavar="[BUNDLE|TFLITE]",
    required=False,
)
@click.option("--target", metavar="NAME", help="Target to compare with [default: the bundle's].")
@choice_options
@device_options
@root_option
@runtime_options
@json_option
def doctor(
    *, device: str, subject: Path | None, target: str | None, as_json: bool, **given: Any
) -> int:
    """Find what stands in the way of a deployment to a device, before anything is sent.

    With a bundle or model, also whether its ops, its memory and its target suit the device. Errors
    would stop a deployment or make it answer wrongly; warnings and notes do not. Of a fleet all
    devices are asked, several at a time.
    """
    from edgepack.device.runtime.provision import RunnerChoice
    from edgepack.workflow.preflight import examine, weigh_cargo, without_answer
    from edgepack.workflow.site import default_root
    from edgepack.workflow.subject import open_subject

    opened = open_subject(subject) if subject is not None else None
    profile = find_target(target) or (opened.profile if opened is not None else None)
    if is_fleet((device,), given):
        return _examine_fleet(device, given, profile=profile, opened=opened, as_json=as_json)
    with show_work() as work:
        try:
            preflight = examine(
                device,
                connect=connect_options_from(given, work),
                root=given["root"] or default_root(profile),
                profile=profile,
                cargo=weigh_cargo(opened.content) if opened is not None else None,
                runner=RunnerChoice(given["runner"] or "auto"),
                on_step=work.step,
                android=android_runtime_from(given),
            )
        except DeviceError as error:
            preflight = without_answer(device, error)
    if as_json:
        print_json(preflight_json(preflight, profile))
    else:
        show_preflight(preflight)
    return ExitCode.FAILURE if count_findings(preflight, "error") else ExitCode.DONE


def _examine_fleet(
    named: str,
    given: Mapping[str, Any],
    *,
    profile: "TargetProfile | None",
    opened: "Subject | None",
    as_json: bool,
) -> int:
    from edgepack.workflow.examining import ExamineTask, examine_task
    from edgepack.workflow.preflight import weigh_cargo
    from edgepack.workflow.site import default_root

    devices = read_devices((named,), given["filters"])
    if profile is not None:
        check_targets(devices, profile.id)
    profiles = {each.address: profile or find_target(each.target) for each in devices}
    cargo = weigh_cargo(opened.content) if opened is not None else None
    reach = reach_options(given)
    tasks = [
        ExamineTask(
            address=each.address,
            root=root_of(each, given) or default_root(profiles[each.address]),
            profile=profiles[each.address],
            cargo=cargo,
            reach=reach,
        )
        for each in devices
    ]
    rolled = roll_out(tasks, examine_task, plan=plan_from(devices, given), given=given)
    found = [_preflight_of(each) for each in rolled.outcomes]
    if as_json:
        print_json(
            [
                outcome_json(outcome, lambda _: {})
                if preflight is None
                else preflight_json(preflight, profiles[outcome.device])
                | {"tries": outcome.num_tries}
                for outcome, preflight in zip(rolled.outcomes, found, strict=True)
            ]
        )
    else:
        show_preflights([each for each in found if each is not None])
    code = end_rollout(rolled)
    refused = any(each is not None and count_findings(each, "error") for each in found)
    return ExitCode.FAILURE if refused else code


def _preflight_of(outcome: "Outcome[Preflight]") -> "Preflight | None":
    """Give what was found; of a device that could not be asked why not, and None if not begun."""
    from edgepack.workflow.preflight import without_answer

    error = outcome.error
    if isinstance(error, DeviceError) and not isinstance(error, NotBegunError):
        return without_answer(outcome.device, error)
    return outcome.result
