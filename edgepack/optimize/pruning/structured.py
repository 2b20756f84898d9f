"""Channel pruning: whole channels out of the graph, the layers that read them fitted anew.

Unlike single zeros it makes the model quicker on every runtime, as tensors are really smaller.
The work is done in a child process: channels that stand or fall together (`channels`), the order
in which they hurt least (`selection`), the fit of what remains (`reconstruction`), and their
removal (`removal`).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from edgepack._fields import Fields
from edgepack.errors import OptimizeError, RecipeError
from edgepack.evaluate import Feeds
from edgepack.model import Model, read_model
from edgepack.optimize.walking.pass_process import run_pass, spread_feeds

_TIMEOUT_SECONDS: Final = 3600.0
_MAXIMUM_SAMPLES: Final = 256
_REMEDY: Final = "Leave --prune out, or prune single weights with --prune magnitude:SHARE."


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupFacts:
    """What became of channels that stand or fall together.

    Attributes:
        name: of the tensors that they are made in.
        num_before: how many there were.
        num_after: how many remain.
        blocked: why they had to stay; None when they might go.
    """

    name: str
    num_before: int
    num_after: int
    blocked: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ChannelFacts:
    """What channel pruning did to the float model, before any quantization.

    Attributes:
        num_macs_before: multiplications of one inference.
        num_macs_after: likewise, afterwards.
        raw_bytes_before: size of the flatbuffer.
        raw_bytes_after: likewise, afterwards.
        groups: of channels, in the order of the layers that make them.
    """

    num_macs_before: int
    num_macs_after: int
    raw_bytes_before: int
    raw_bytes_after: int
    groups: tuple[GroupFacts, ...]

    @property
    def num_channels_before(self) -> int:
        """Channels of all groups that might go."""
        return sum(group.num_before for group in self.groups if group.blocked is None)

    @property
    def num_channels_after(self) -> int:
        """Those of them that remain."""
        return sum(group.num_after for group in self.groups if group.blocked is None)


def prune_structured(
    model: Model,
    share: float,
    calibration: Feeds | None,
    *,
    reconstruct: bool = True,
) -> tuple[Model, ChannelFacts]:
    """Take channels out of a float model until a share of its multiplications is gone.

    Args:
        model: float32, without loops and without state between samples.
        share: above 0, below 1; the next possible step above it is taken.
        calibration: real inputs; up to 256 of them, evenly chosen, are used.
        reconstruct: whether the layers that remain are fitted to the float model's outputs;
            without it the same channels go (for comparisons).

    Raises:
        RecipeError: no calibration data.
        OptimizeError: a quantized model or one with loops or state, so many multiplications
            cannot go, or the child failed.
    """
    if not calibration:
        raise RecipeError(
            "pruning channels looks at what layers read, but no calibration data was given",
            remedy="Give real inputs with --data, or prune single weights with "
            "--prune magnitude:SHARE.",
        )
    _check_kind(model)
    feeds = spread_feeds(calibration, _MAXIMUM_SAMPLES)
    request = {"share": share, "reconstruct": reconstruct}

    def explain(reason: str) -> OptimizeError:
        return OptimizeError(f"channels could not be pruned: {reason}", remedy=_REMEDY)

    with run_pass(
        "edgepack.optimize.pruning.structured_worker", model, feeds, request, explain=explain
    ) as done:
        pruned = read_model((done.folder / "pruned.tflite").read_bytes())
    facts = _read_answer(done.facts, model, pruned)
    _check_share(facts, share)
    _check_contract(model, pruned)
    return pruned, facts


def channel_facts_to_json(facts: ChannelFacts) -> dict[str, object]:
    """Give channel pruning's facts as JSON values."""
    return {**asdict(facts), "groups": [asdict(group) for group in facts.groups]}


def read_channel_facts(fields: Fields) -> ChannelFacts:
    """Read channel pruning's facts from a table, noting faults in `fields`."""
    facts = ChannelFacts(
        num_macs_before=fields.integer("num_macs_before", minimum=0),
        num_macs_after=fields.integer("num_macs_after", minimum=0),
        raw_bytes_before=fields.integer("raw_bytes_before", minimum=0),
        raw_bytes_after=fields.integer("raw_bytes_after", minimum=0),
        groups=tuple(_read_group(each) for each in fields.tables("groups")),
    )
    fields.close()
    return facts


def _read_group(fields: Fields) -> GroupFacts:
    group = GroupFacts(
        name=fields.text("name"),
        num_before=fields.integer("num_before", minimum=0),
        num_after=fields.integer("num_after", minimum=0),
        blocked=fields.nullable_text("blocked"),
    )
    fields.close()
    return group


def _check_kind(model: Model) -> None:
    hindrance = None
    if model.is_quantized:
        hindrance = "a quantized one"
    elif model.traits.has_loop:
        hindrance = "one with a loop or branch"
    elif model.is_stream:
        hindrance = "one that keeps state between samples"
    if hindrance is not None:
        raise OptimizeError(
            f"pruning channels needs a float32 model that runs straight through, not {hindrance}",
            remedy="Give the float model it was made from, or leave --prune out.",
        )


def _read_answer(answer: Mapping[str, Any], model: Model, pruned: Model) -> ChannelFacts:
    return ChannelFacts(
        num_macs_before=int(answer["num_macs_before"]),
        num_macs_after=int(answer["num_macs_after"]),
        raw_bytes_before=model.num_bytes,
        raw_bytes_after=pruned.num_bytes,
        groups=tuple(GroupFacts(**each) for each in answer["groups"]),
    )


def _check_share(facts: ChannelFacts, share: float) -> None:
    gone = 1 - facts.num_macs_after / max(facts.num_macs_before, 1)
    if gone < share:
        reasons = sorted({each.blocked for each in facts.groups if each.blocked is not None})
        raise OptimizeError(
            f"expected channels to go until {share:.0%} of the multiplications are gone, but only "
            f"{gone:.0%} can go" + (f" ({'; '.join(reasons)})" if reasons else ""),
            remedy="Give a smaller share, or leave --prune out.",
        )


def _check_contract(model: Model, pruned: Model) -> None:
    if pruned.signature != model.signature:
        raise OptimizeError(
            "expected pruning channels to keep the inputs and outputs, but they changed",
            remedy="Leave --prune out, and report the model.",
        )
