"""What the passes did to a variant, in sentences; pure."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from edgepack.optimize.equalizing.equalize import EqualizeFacts
from edgepack.optimize.fusing.fusion import FusionFacts
from edgepack.optimize.pruning.structured import ChannelFacts

if TYPE_CHECKING:
    from edgepack.optimize.choosing.variant import Variant

_SHOWN_NAMES: Final = 4


def describe_passes(variant: "Variant") -> tuple[str, ...]:
    """Say what fusion, channel pruning and equalization did, and what was left in float and why.

    Nothing of zeros: `describe_sparse` tells of those.
    """
    sentences: list[str] = []
    if variant.fusion_facts is not None:
        sentences += _describe_fusion(variant.fusion_facts)
    if variant.channel_facts is not None:
        sentences += _describe_channels(variant.channel_facts)
    if variant.equalize_facts is not None:
        sentences += _describe_equalization(variant.equalize_facts)
    if variant.float_layers:
        sentences.append(
            "left in float, as channels of unlike ranges meet there: "
            f"{_list_names(variant.float_layers)}"
        )
    if variant.float_ops:
        sentences.append(
            f"left in float, as the quantizer fails at them: {_list_names(variant.float_ops)}"
        )
    return tuple(sentences)


def _describe_fusion(facts: FusionFacts) -> Iterator[str]:
    parts = [
        words
        for number, words in (
            (facts.num_folded, f"{_count(facts.num_folded, 'constant')} folded"),
            (facts.num_hard_swish, f"{_count(facts.num_hard_swish, 'HARD_SWISH op')} made"),
        )
        if number
    ]
    if parts:
        yield f"fusion: {', '.join(parts)}"


def _describe_channels(facts: ChannelFacts) -> Iterator[str]:
    gone = 1 - facts.num_macs_after / facts.num_macs_before if facts.num_macs_before else 0.0
    yield (
        f"channel pruning: {gone:.1%} of the multiplications are gone, "
        f"{facts.num_channels_after:,} of {facts.num_channels_before:,} channels remain"
    )
    blocked = Counter(group.blocked for group in facts.groups if group.blocked is not None)
    if blocked:
        reasons = _list_names([f"{reason} ({number})" for reason, number in blocked.most_common()])
        total = _count(blocked.total(), "group")
        yield f"channel pruning: {total} of channels had to stay whole: {reasons}"


def _describe_equalization(facts: EqualizeFacts) -> Iterator[str]:
    if not (facts.num_scaled or facts.num_moved or facts.num_copied):
        yield f"equalization: helps none of {_count(facts.num_groups, 'group')} of channels"
        return
    yield (
        f"equalization: {facts.num_scaled} of {_count(facts.num_groups, 'group')} of channels "
        f"scaled, {facts.num_moved} moved, {_count(facts.num_copied, 'silent channel')} put to "
        f"use; with these tensors alone rounded, {facts.before_db:.1f} dB became "
        f"{facts.after_db:.1f} dB"
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun if number == 1 else f'{noun}s'}"


def _list_names(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN_NAMES
    shown = ", ".join(names[:_SHOWN_NAMES])
    return f"{shown} and {more} more" if more > 0 else shown
