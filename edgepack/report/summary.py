"""What a report shows, as finished values: nothing here measures, reads or decides anything."""

from dataclasses import dataclass

from edgepack.fidelity import Judgement


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """One named thing that is known, or `unavailable` with the reason."""

    name: str
    value: str


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricFigures:
    """What the user's own metric says of a variant; higher is better.

    Attributes:
        value: None when it gives no finite number.
        drop: what is lost against the float model.
        drop_ci95: its interval.
    """

    value: float | None
    drop: float | None
    drop_ci95: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class VariantRow:
    """One recipe's result, or why there is none.

    Attributes:
        recipe: name of the recipe.
        passes: what it does, in words.
        num_bytes: size of the model; None when it was not built.
        compressed_bytes: its size inside the bundle.
        sqnr_db: worst output's signal to quantization noise against float.
        sqnr_ci95_db: its interval over samples.
        worst_channel_sqnr_db: least SQNR of one channel of any output; None without channels.
        worst_channel: which one that is, in words.
        top1_agreement: share of samples whose first class is the float model's.
        accuracy: share of samples whose first class is the label.
        drop_points: percentage points of accuracy lost against the float model.
        drop_points_ci95: its interval for paired samples.
        metric: what the user's own metric says; None without one.
        median_ns: median latency where `PackSummary.latency_on` says.
        within_budget: whether it meets the floors.
        reasons: why it does not.
        doubts: what else was found about it.
        done: what the passes did to it, in sentences.
        skipped_reason: why it was not built or not measured to the end.
        zero_share: share of weights that pruning set to zero; None without pruning.
        storage: what storing zeros sparsely gained, and where no sparse kernel uses them.
    """

    recipe: str
    passes: str = ""
    num_bytes: int | None = None
    compressed_bytes: int | None = None
    sqnr_db: float | None = None
    sqnr_ci95_db: tuple[float, float] | None = None
    worst_channel_sqnr_db: float | None = None
    worst_channel: str = ""
    top1_agreement: float | None = None
    top1_agreement_ci95: tuple[float, float] | None = None
    accuracy: float | None = None
    accuracy_ci95: tuple[float, float] | None = None
    drop_points: float | None = None
    drop_points_ci95: tuple[float, float] | None = None
    metric: MetricFigures | None = None
    median_ns: float | None = None
    median_ci95_ns: tuple[float, float] | None = None
    within_budget: bool = False
    reasons: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    done: tuple[str, ...] = ()
    skipped_reason: str | None = None
    zero_share: float | None = None
    storage: tuple[str, ...] = ()
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ParityRow:
    """How near one output of the converted model is to the source framework's.

    Attributes:
        output: its name.
        sqnr_db: signal to difference.
        max_abs_error: largest difference.
        cosine: of both as vectors.
        judgement: by what it was found near enough.
        top1_agreement: share of rows with the same largest class, for class outputs.
        equal_share: share of equal integers or truth values, for such outputs.
    """

    output: str
    sqnr_db: float
    max_abs_error: float
    cosine: float | None = None
    judgement: Judgement = Judgement.SQNR
    top1_agreement: float | None = None
    equal_share: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ParitySummary:
    """The comparison of the converted model with its source framework."""

    rows: tuple[ParityRow, ...]
    reference: str
    num_samples: int
    generated: bool
    minimum_db: float
    num_sets: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class PackSummary:
    """What was built for a target, and which of it was chosen.

    Attributes:
        model: the source file's name.
        latency_on: what the variants' latency was taken on; None when it was not taken.
        measured_on: what the choice rests on; None when nothing fit for the target was
            measured, so that the profile's order decided.
        chosen_reason: why that variant, one sentence that names it, without its full stop.
        max_drop_points: most percentage points of accuracy, or points of the user's own metric,
            that a variant may lose.
        is_confident: whether the floors are judged on the unfavorable ends of intervals.
        reference_accuracy: accuracy of the float model on the same samples.
        metric: name of the user's own metric.
        reference_metric: its value for the float model.
        num_samples: evaluation samples behind the fidelity figures.
        warnings: what the user must know of this pack.
        recipe_toml: the chosen recipe as the file that reproduces it.
    """

    model: str
    target: str
    variants: tuple[VariantRow, ...]
    chosen: str
    chosen_reason: str
    target_description: str = ""
    bundle: str | None = None
    bundle_bytes: int | None = None
    latency_on: str | None = None
    measured_on: str | None = None
    objective: str = "latency"
    min_sqnr_db: float | None = None
    min_agreement: float | None = None
    max_drop_points: float | None = None
    is_confident: bool = False
    reference_accuracy: float | None = None
    metric: str | None = None
    reference_metric: float | None = None
    num_samples: int | None = None
    parity: ParitySummary | None = None
    provenance: tuple[Fact, ...] = ()
    warnings: tuple[str, ...] = ()
    recipe_toml: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class PushSummary:
    """One device's transfer: payload bytes sent and skipped, runtime bytes apart.

    `wire_bytes` is what the sent ones were on the wire, `compression` what made them less.
    """

    device: str
    release: str = ""
    sent_bytes: int = 0
    skipped_bytes: int = 0
    wire_bytes: int = 0
    compression: str | None = None
    runtime_bytes: int = 0
    seconds: float = 0.0
    error: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchSeries:
    """One fresh process's timings; `marks` says what is doubtful about it."""

    init_ns: int
    first_ns: int
    samples_ns: tuple[int, ...]
    peak_memory_bytes: int | None = None
    marks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class StartRow:
    """How long a model took to its first answer: loading it, and the first inference.

    Attributes:
        is_cold: whether the model's file was on the disk alone, and not in memory.
        total_ns: both together; None where no launch began so.
        init_ns: loading.
        first_ns: the first inference.
        num_launches: whose medians these are.
        reason: why no launch began so.
    """

    is_cold: bool
    total_ns: int | None
    init_ns: int = 0
    first_ns: int = 0
    num_launches: int = 0
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class LatencyFigures:
    """Statistics over all launches; a figure that cannot be had is None.

    Attributes:
        unavailable: name of a figure that is None, and why it is.
    """

    median_ns: float
    median_ci95_ns: tuple[float, float] | None
    mean_ns: float
    std_ns: float
    min_ns: float
    max_ns: float
    p90_ns: float | None = None
    p90_ci95_ns: tuple[float, float] | None = None
    p99_ns: float | None = None
    p99_ci95_ns: tuple[float, float] | None = None
    unavailable: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class GoldenRow:
    """Whether the device gave the packed model's answers."""

    passed: bool
    max_abs_error: float | None = None
    sqnr_to_host_db: float | None = None
    sqnr_to_float_db: float | None = None
    num_samples: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """One quantity of the device's state, before and after.

    Where the device told neither, both hold why, and `is_known` is false. What is of the whole run
    is the same in both, and `is_throughout` true.
    """

    name: str
    before: str
    after: str
    is_known: bool = True
    is_throughout: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class OpRow:
    """An op as the runtime ran it.

    Attributes:
        place: in the order of running, from 1.
        name: as the runtime, or XNNPACK, calls it.
        is_delegated: whether XNNPACK ran it.
        run_ns: a run, on average.
        share: of the time of all ops.
    """

    place: int
    name: str
    is_delegated: bool
    run_ns: float
    share: float


@dataclass(frozen=True, kw_only=True, slots=True)
class TimePoint:
    """A stretch of timed runs, and what was read at its end.

    Attributes:
        seconds: of inference since the first timed run of the measurement.
        launch: its number, from 1.
        median_ns: of the stretch.
        frequency_khz: clock of the fastest core; None where it is not told.
        temperature_c: of the hottest zone; None where it is not told.
    """

    seconds: float
    launch: int
    median_ns: int
    frequency_khz: int | None
    temperature_c: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class SustainedFigures:
    """The beginning and the end of a load that went on.

    Attributes:
        seconds: of inference in all.
        window_seconds: of the beginning and of the end.
        first_ns: median of the beginning.
        last_ns: median of the end.
    """

    seconds: float
    window_seconds: float
    first_ns: int
    last_ns: int

    @property
    def ratio(self) -> float:
        """The end's median as a multiple of the beginning's."""
        return self.last_ns / max(self.first_ns, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class EnergyRow:
    """Energy of an inference, or why it is not known.

    Attributes:
        gross_nj: all that the counter saw; None where there is none.
        gross_ci95_nj: its interval.
        above_idle_nj: without what the device takes in idle; None where that is not known.
        idle_watts: that.
        remark: the counter or sensor, or why there is none.
    """

    gross_nj: float | None
    gross_ci95_nj: tuple[float, float] | None = None
    above_idle_nj: float | None = None
    idle_watts: float | None = None
    remark: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkSummary:
    """One model measured on one device, or why it was not.

    Attributes:
        device: what the user calls the device.
        board: what the device says it is; empty when unknown.
        model: the release or the file.
        recipe: the bundle's recipe; None for a bare model.
        is_bundle: whether the model came from a verified bundle.
        lacks_xnnpack: whether the runtime has no XNNPACK; its latency is then compared only with
            that of its like.
        verdict: `valid`, `noisy`, `throttled` or `contended`.
        golden: None when there was nothing to compare with.
        likeness: what must be alike in measurements that are compared, as far as it is told.
        distinction: what of it sets this one apart from others of the report, in a few words each.
        timeline: how it went, stretch by stretch.
        sustained: of a load that went on; None of a usual measurement.
        ops: what each op takes, the slowest first; empty where the runner tells none.
        precision: how far the median's interval reaches, and how far it was to reach at most, as
            shares; None where none was asked for.
        energy: of an inference; None where there is no measurement.
        starts: the cold and the warm start.
        error: why there is no measurement; the figures are then absent.
    """

    device: str
    model: str
    board: str = ""
    recipe: str | None = None
    is_bundle: bool = True
    engine: str = ""
    lacks_xnnpack: bool = False
    num_threads: int | None = None
    launches: tuple[LaunchSeries, ...] = ()
    latency: LatencyFigures | None = None
    verdict: str = ""
    reasons: tuple[str, ...] = ()
    golden: GoldenRow | None = None
    facts: tuple[Fact, ...] = ()
    conditions: tuple[Condition, ...] = ()
    provenance: tuple[Fact, ...] = ()
    likeness: tuple[Fact, ...] = ()
    distinction: tuple[str, ...] = ()
    timeline: tuple[TimePoint, ...] = ()
    sustained: SustainedFigures | None = None
    ops: tuple[OpRow, ...] = ()
    precision: tuple[float, float] | None = None
    energy: EnergyRow | None = None
    starts: tuple[StartRow, ...] = ()
    error: str | None = None

    @property
    def num_runs(self) -> int:
        """Timed runs of all launches."""
        return sum(len(launch.samples_ns) for launch in self.launches)

    @property
    def peak_memory_bytes(self) -> int | None:
        """Largest peak of any launch that could tell it."""
        peaks = [e.peak_memory_bytes for e in self.launches if e.peak_memory_bytes is not None]
        return max(peaks, default=None)


@dataclass(frozen=True, kw_only=True, slots=True)
class DeployReport:
    """Everything one report shows; any part may be absent.

    Attributes:
        title: what was deployed or measured, for people.
        created: when, as the caller writes it; empty to leave it out.
        tool_version: of EdgePack.
    """

    title: str
    pack: PackSummary | None = None
    pushes: tuple[PushSummary, ...] = ()
    benchmarks: tuple[BenchmarkSummary, ...] = ()
    created: str = ""
    tool_version: str = ""
