"""The record of a measurement: raw samples and everything that stood around them, as JSON.

The schema is versioned. Statistics and validity are computed from the raw values whenever a
record is made or read; those in the file stand there for other readers, and a file whose
figures do not follow from its own samples is refused.
"""

import datetime as dt
import json
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final

import edgepack
from edgepack._fields import Fields, join_faults
from edgepack.device.survey import facts as device_facts
from edgepack.device.survey import state as device_state
from edgepack.device.survey.facts import DeviceFacts
from edgepack.device.survey.state import DeviceState
from edgepack.errors import DeviceError, MeasureError
from edgepack.measure import cooling
from edgepack.measure import energy as energies
from edgepack.measure import golden as golden_check
from edgepack.measure import launch as raw
from edgepack.measure import plan as planning
from edgepack.measure import profile as profiling
from edgepack.measure import starts as starting
from edgepack.measure import validity as judging
from edgepack.measure.cooling import Rest
from edgepack.measure.energy import EnergyFigures, Idle, figure_energy
from edgepack.measure.engine import EngineFacts, read_engine
from edgepack.measure.golden import GoldenVerdict
from edgepack.measure.launch import LatencyLaunch, optional_text
from edgepack.measure.plan import BenchmarkPlan
from edgepack.measure.profile import NOT_ASKED, OpProfile
from edgepack.measure.shortfall import find_shortfall
from edgepack.measure.starts import StartFigures, figure_starts
from edgepack.measure.stats import LatencySummary, summarize
from edgepack.measure.sustained import sustain
from edgepack.measure.validity import Validity

SCHEMA: Final = 1
GIVE_RESULT: Final = "Give the file that `edgepack bench -o` or `deploy --results` wrote."
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_CHECKED: Final = ("num_launches", "num_samples", "median_ns", "p90_ns", "min_ns", "max_ns")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelIdentity:
    """What was measured.

    Attributes:
        name: the bundle's name, or the model file's.
        sha256: digest of the `.tflite` that ran.
        num_bytes: its size.
        bundle_sha256: digest of the bundle it came from; None for a bare model.
        version: of the bundle.
        target: the bundle's target profile.
        recipe: what the variant was made by.
    """

    name: str
    sha256: str
    num_bytes: int
    bundle_sha256: str | None = None
    version: str | None = None
    target: str | None = None
    recipe: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """Who measured, from where, and when.

    Attributes:
        tool_version: of EdgePack.
        host: operating system and architecture of the machine that drove the measurement.
        time: when it ended, UTC, ISO 8601.
    """

    tool_version: str
    host: str
    time: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """A finished measurement.

    Attributes:
        device_name: what the user calls the device.
        device: what it says of itself.
        model: what was measured.
        engine: what ran it.
        plan: how long it was to take.
        fitted_plan: the plan as fitted to the model's speed, which was carried out.
        launches: raw times.
        summary: computed from them.
        golden: whether the answers were right; None when there was nothing to compare with.
        before: the device's state before the first launch.
        after: its state after the last.
        validity: computed from launches and states.
        provenance: who, where and when.
        profile: what each op takes, of runs that were not timed otherwise.
        rests: waits for the device to cool, one before each launch; empty when none were asked for.
        idle: what the device takes in idle; None where it tells no energy.
        ended_early: which launch failed, and why, so that those before it are all there are.
    """

    device_name: str
    device: DeviceFacts
    model: ModelIdentity
    engine: EngineFacts
    plan: BenchmarkPlan
    fitted_plan: BenchmarkPlan
    launches: tuple[LatencyLaunch, ...]
    summary: LatencySummary
    golden: GoldenVerdict | None
    before: DeviceState
    after: DeviceState
    validity: Validity
    provenance: Provenance
    profile: OpProfile = NOT_ASKED
    rests: tuple[Rest, ...] = ()
    idle: Idle | None = None
    ended_early: str | None = None

    @property
    def energy(self) -> EnergyFigures:
        """What an inference takes, or why that is not known."""
        return figure_energy(self.launches, self.idle)

    @property
    def shortfall(self) -> str | None:
        """What of the plan had no room in its time; None when all of it had."""
        return find_shortfall(
            self.plan,
            self.launches,
            fitted=self.fitted_plan,
            has_failed=self.ended_early is not None,
        )

    @property
    def starts(self) -> StartFigures:
        """How long the model takes to its first answer, from the disk and from memory."""
        return figure_starts(self.launches)

    @property
    def launch_samples_ns(self) -> list[tuple[int, ...]]:
        """The timed samples of each launch."""
        return [launch.samples_ns for launch in self.launches]

    @property
    def peak_memory_bytes(self) -> int | None:
        """Largest peak of any launch that could tell it."""
        peaks = (launch.peak_memory_bytes for launch in self.launches)
        return max((peak for peak in peaks if peak is not None), default=None)


def make_measurement(
    *,
    device_name: str,
    device: DeviceFacts,
    model: ModelIdentity,
    engine: EngineFacts,
    plan: BenchmarkPlan,
    fitted_plan: BenchmarkPlan,
    launches: tuple[LatencyLaunch, ...],
    golden: GoldenVerdict | None,
    before: DeviceState,
    after: DeviceState,
    provenance: Provenance | None = None,
    profile: OpProfile = NOT_ASKED,
    rests: tuple[Rest, ...] = (),
    idle: Idle | None = None,
    ended_early: str | None = None,
) -> Measurement:
    """Make a measurement of raw values: its summary and validity follow from them."""
    return Measurement(
        device_name=device_name,
        device=device,
        model=model,
        engine=engine,
        plan=plan,
        fitted_plan=fitted_plan,
        launches=launches,
        summary=summarize([launch.samples_ns for launch in launches]),
        golden=golden,
        before=before,
        after=after,
        validity=judging.judge(
            launches,
            before=before,
            after=after,
            num_threads=engine.num_threads,
            num_cores=device.num_cores,
            board=device.board,
            precision=plan.precision,
            is_sustained=plan.is_sustained,
            rests=rests,
        ),
        provenance=provenance or _provenance(),
        profile=profile,
        rests=rests,
        idle=idle,
        ended_early=ended_early,
    )


def _provenance() -> Provenance:
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    return Provenance(
        tool_version=edgepack.__version__,
        host=f"{platform.system()} {platform.machine()}",
        time=now.isoformat(),
    )


def to_json(measurement: Measurement) -> dict[str, object]:
    """Give a measurement as JSON values; `parse_measurement` is its inverse."""
    return {
        "schema": SCHEMA,
        "device": {
            "name": measurement.device_name,
            **device_facts.to_json(measurement.device),
        },
        "model": asdict(measurement.model),
        "engine": asdict(measurement.engine),
        "plan": planning.to_json(measurement.plan),
        "fitted_plan": planning.to_json(measurement.fitted_plan),
        "launches": [raw.to_json(launch) for launch in measurement.launches],
        "summary": _summary_to_json(measurement.summary),
        "golden": golden_check.to_json(measurement.golden),
        "state": {
            "before": device_state.to_json(measurement.before),
            "after": device_state.to_json(measurement.after),
        },
        "validity": judging.to_json(measurement.validity),
        "provenance": asdict(measurement.provenance),
        "profile": profiling.to_json(measurement.profile),
        "energy": energies.to_json(measurement.energy, measurement.idle),
        "starts": starting.to_json(measurement.starts),
        "rests": cooling.to_json(measurement.rests),
        "ended_early": measurement.ended_early,
        "shortfall": measurement.shortfall,
        "sustained": _sustained_to_json(measurement),
    }


def _sustained_to_json(measurement: Measurement) -> dict[str, object] | None:
    """Give the beginning and the end of a sustained load; it follows from the samples."""
    if not measurement.plan.is_sustained:
        return None
    found = sustain(measurement.launches[0])
    return {**asdict(found), "ratio": found.ratio}


def _summary_to_json(summary: LatencySummary) -> dict[str, object]:
    table: dict[str, object] = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in asdict(summary).items()
    }
    return table | {"unavailable": dict(summary.unavailable)}


def write_measurement(measurement: Measurement) -> bytes:
    """Write a measurement as JSON text, UTF-8."""
    return json.dumps(to_json(measurement), allow_nan=False).encode()


def parse_measurement(table: Mapping[str, object]) -> Measurement:
    """Read a measurement from JSON values.

    Raises:
        MeasureError: another schema, or breaking it; all faults are listed.
    """
    fields = Fields(table)
    schema = fields.integer("schema")
    if not fields.faults and schema != SCHEMA:
        fields.fault("schema", f"expected {SCHEMA}, not {schema}")
    if fields.faults:  # keys of another schema would only read as noise
        raise _refused(fields.faults)
    device_name, device = _read_device(fields)
    model = _read_model(fields.table("model", required=True))
    engine = read_engine(fields.table("engine", required=True))
    plan = planning.read_plan(fields.table("plan", required=True))
    fitted_plan = planning.read_plan(fields.table("fitted_plan", required=True))
    limit = max(fitted_plan.max_samples, 1)
    launches = tuple(raw.read_launch(t, max_samples=limit) for t in fields.tables("launches"))
    if not launches:
        fields.fault("launches", "expected at least one")
    golden = golden_check.read_verdict(fields.table("golden", required=True))
    state = fields.table("state", required=True)
    before, after = _read_state(state, "before"), _read_state(state, "after")
    state.close()
    judging.read_validity(fields.table("validity", required=True))
    provenance = _read_provenance(fields.table("provenance", required=True))
    # Results of older versions have none.
    has_profile = fields.has("profile")
    profile = profiling.read_profile(fields.table("profile")) if has_profile else NOT_ASKED
    rests = cooling.read_rests(fields, "rests")
    idle = _read_idle(fields)
    ended_early = optional_text(fields, "ended_early")
    stored = fields.raw("summary")
    for key in ("sustained", "starts", "shortfall"):  # which follow from the rest
        fields.raw(key)
    fields.close()
    if fields.faults or device is None or before is None or after is None:
        raise _refused(fields.faults)
    measurement = make_measurement(
        device_name=device_name,
        device=device,
        model=model,
        engine=engine,
        plan=plan,
        fitted_plan=fitted_plan,
        launches=launches,
        golden=golden,
        before=before,
        after=after,
        provenance=provenance,
        profile=profile,
        rests=rests,
        idle=idle,
        ended_early=ended_early,
    )
    computed = _summary_to_json(measurement.summary)
    if not isinstance(stored, dict) or any(stored.get(key) != computed[key] for key in _CHECKED):
        raise _refused(["summary: its figures do not follow from the launches' samples"])
    return measurement


def _read_idle(fields: Fields) -> Idle | None:
    """Read the one part of the energy that does not follow from the launches."""
    energy = fields.raw("energy")
    if not isinstance(energy, dict) or energy.get("idle") is None:
        return None
    return energies.read_idle(fields.table("energy").table("idle"))


def _refused(faults: list[str]) -> MeasureError:
    return MeasureError(
        join_faults("measurement", faults[:20]),
        remedy="The result was changed, or another version wrote it; measure again.",
    )


def _read_device(fields: Fields) -> tuple[str, DeviceFacts | None]:
    value = fields.raw("device")
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        fields.fault("device", "expected a table with a name")
        return "", None
    rest = {key: each for key, each in value.items() if key != "name"}
    try:
        return value["name"], device_facts.parse_facts(rest)
    except DeviceError as error:
        fields.fault("device", error.message)
        return "", None


def _read_state(fields: Fields, key: str) -> DeviceState | None:
    value = fields.raw(key)
    if not isinstance(value, dict):
        fields.fault(key, "missing; expected a table")
        return None
    try:
        return device_state.parse_state(value)
    except DeviceError as error:
        fields.fault(key, error.message)
        return None


def _read_model(fields: Fields) -> ModelIdentity:
    model = ModelIdentity(
        name=fields.text("name"),
        sha256=fields.text("sha256"),
        num_bytes=fields.integer("num_bytes", minimum=1),
        bundle_sha256=optional_text(fields, "bundle_sha256"),
        version=optional_text(fields, "version"),
        target=optional_text(fields, "target"),
        recipe=optional_text(fields, "recipe"),
    )
    for key, value in (("sha256", model.sha256), ("bundle_sha256", model.bundle_sha256)):
        if value and not _SHA256.fullmatch(value):
            fields.fault(key, "expected 64 hex digits")
    fields.close()
    return model


def _read_provenance(fields: Fields) -> Provenance:
    provenance = Provenance(
        tool_version=fields.text("tool_version"),
        host=fields.text("host"),
        time=fields.text("time"),
    )
    fields.close()
    return provenance
