"""Which layer, at which precision, costs how much fidelity, and what follows from it.

`edgepack.optimize.ranking.sensitivity` measures it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from edgepack._fields import Fields, join_faults
from edgepack.comparison import LIMIT_DB, ratio_db
from edgepack.errors import OptimizeError
from edgepack.profile import Scheme


class Precision(StrEnum):
    """What one layer may be stored and computed in, named as the schemes of whole models are.

    `INT8` is int8 weights with int8 input and output; the others change the weights alone.
    """

    FLOAT16 = "float16"
    WEIGHT_ONLY_INT8 = "weight_only_int8"
    INT8 = "int8"
    WEIGHT_ONLY_INT4 = "weight_only_int4"


class Evidence(StrEnum):
    """How the cost at the outputs is known.

    `MEASURED`: on all samples. `PROBED`: on a few of them. `ESTIMATED`: from the layer's own
    error and from how int8 errors of the same layer reached the outputs.
    """

    MEASURED = "measured"
    PROBED = "probed"
    ESTIMATED = "estimated"


class KeptCost(StrEnum):
    """What a layer that stays in float adds."""

    BYTES = "bytes"
    MACS = "macs"
    BOTH = "both"


# int16x8 and dynamic_range store weights as weight_only_int8 does, and round activations less
# than int8 does.
_STAND_INS: Final[Mapping[str, str]] = MappingProxyType(
    {
        Scheme.DYNAMIC_RANGE: Precision.WEIGHT_ONLY_INT8,
        Scheme.INT16X8: Precision.WEIGHT_ONLY_INT8,
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerSensitivity:
    """What one layer costs at one precision, when all others stay in float.

    Attributes:
        layer: name of the tensor its op gives, as recipes name it.
        op: its name as the schema spells it.
        num_weights: how many, without the bias.
        num_macs: multiplications of one inference.
        scheme: the precision.
        local_sqnr_db: of the layer's own output.
        mean_shift_share: share of that error's energy that the mean of each channel makes up,
            which a corrected bias takes back.
        output_sqnr_db: of the model's worst output.
        corrected_sqnr_db: the same without the shift of the mean; probed or estimated.
        evidence: how `output_sqnr_db` is known.
    """

    layer: str
    op: str
    num_weights: int
    num_macs: int
    scheme: Precision
    local_sqnr_db: float
    mean_shift_share: float
    output_sqnr_db: float
    corrected_sqnr_db: float
    evidence: Evidence


@dataclass(frozen=True, kw_only=True, slots=True)
class Sensitivity:
    """What each layer of a model costs at each precision.

    Attributes:
        layers: in the order they run, each with one entry a precision.
        num_samples: that were looked at.
        num_evaluations: what it took, in runs of the whole model over all those samples,
            counted in multiplications; one layer at a time takes one for each entry.
    """

    layers: tuple[LayerSensitivity, ...]
    num_samples: int
    num_evaluations: float

    def at(self, scheme: str) -> tuple[LayerSensitivity, ...]:
        """Give the layers at one precision, or at what a whole model's scheme does to weights.

        Raises:
            ValueError: none that rounds weights.
        """
        precision = Precision(_STAND_INS.get(scheme, scheme))
        return tuple(each for each in self.layers if each.scheme is precision)


def rank_layers(
    sensitivity: Sensitivity,
    scheme: str,
    *,
    cost: KeptCost = KeptCost.BOTH,
    corrected: bool = False,
) -> tuple[str, ...]:
    """Give the layers in the order in which they are best left in float, the worst first.

    Ranked by noise at the output for each share of the model's bytes and multiplications that
    stay in float. A mean layer's share is added to each, as what it takes to go over to float
    and back: else layers of a few weights would come before those that matter.

    Args:
        sensitivity: of the model.
        scheme: a precision, or a scheme of the whole model.
        cost: what is saved.
        corrected: whether the bias will be corrected, so that shifts of the mean do not count.

    Raises:
        ValueError: a scheme that rounds no weights.
    """
    entries = sensitivity.at(scheme)
    num_weights = sum(each.num_weights for each in entries)
    num_macs = sum(each.num_macs for each in entries)

    def price(each: LayerSensitivity) -> float:
        shares = {
            KeptCost.BYTES: each.num_weights / max(num_weights, 1),
            KeptCost.MACS: each.num_macs / max(num_macs, 1),
        }
        share = sum(shares.values()) / len(shares) if cost is KeptCost.BOTH else shares[cost]
        return share + 1 / len(entries)

    ranked = sorted(entries, key=lambda each: -_noise(each, corrected=corrected) / price(each))
    return tuple(each.layer for each in ranked)


def predict_sqnr_db(
    sensitivity: Sensitivity,
    scheme: str,
    *,
    kept: Collection[str] = (),
    corrected: bool = False,
) -> float:
    """Give the SQNR of the worst output to expect when all layers but some have a precision.

    The errors of the layers are taken as independent: their energies add up.

    Args:
        sensitivity: of the model.
        scheme: a precision, or a scheme of the whole model.
        kept: layers that stay in float.
        corrected: whether the bias is corrected.

    Raises:
        ValueError: a scheme that rounds no weights.
    """
    left = [each for each in sensitivity.at(scheme) if each.layer not in kept]
    return ratio_db(1.0, sum(_noise(each, corrected=corrected) for each in left))


def _noise(each: LayerSensitivity, *, corrected: bool) -> float:
    """Give the energy of the error at the outputs, the signal's being 1."""
    level_db = each.corrected_sqnr_db if corrected else each.output_sqnr_db
    return 0.0 if level_db >= LIMIT_DB else 10.0 ** (-level_db / 10)


def sensitivity_to_json(sensitivity: Sensitivity) -> dict[str, object]:
    """Give an analysis as JSON values."""
    return {
        "num_samples": sensitivity.num_samples,
        "num_evaluations": sensitivity.num_evaluations,
        "layers": [
            {
                "layer": each.layer,
                "op": each.op,
                "num_weights": each.num_weights,
                "num_macs": each.num_macs,
                "scheme": each.scheme.value,
                "local_sqnr_db": each.local_sqnr_db,
                "mean_shift_share": each.mean_shift_share,
                "output_sqnr_db": each.output_sqnr_db,
                "corrected_sqnr_db": each.corrected_sqnr_db,
                "evidence": each.evidence.value,
            }
            for each in sensitivity.layers
        ],
    }


def parse_sensitivity(table: Mapping[str, object]) -> Sensitivity:
    """Read an analysis from JSON values.

    Raises:
        OptimizeError: they break the schema; all faults are listed.
    """
    fields = Fields(table)
    sensitivity = Sensitivity(
        layers=tuple(_read_layer(each) for each in fields.tables("layers")),
        num_samples=fields.integer("num_samples", minimum=1),
        num_evaluations=fields.number("num_evaluations", minimum=0.0),
    )
    fields.close()
    if fields.faults:
        raise OptimizeError(
            join_faults("sensitivity analysis", fields.faults), remedy="Analyze the model again."
        )
    return sensitivity


def _read_layer(fields: Fields) -> LayerSensitivity:
    entry = LayerSensitivity(
        layer=fields.text("layer", empty=True),
        op=fields.text("op"),
        num_weights=fields.integer("num_weights", minimum=1),
        num_macs=fields.integer("num_macs", minimum=0),
        scheme=fields.choice("scheme", Precision),
        local_sqnr_db=fields.number("local_sqnr_db", minimum=-LIMIT_DB, maximum=LIMIT_DB),
        mean_shift_share=fields.number("mean_shift_share", minimum=0.0, maximum=1.0),
        output_sqnr_db=fields.number("output_sqnr_db", minimum=-LIMIT_DB, maximum=LIMIT_DB),
        corrected_sqnr_db=fields.number("corrected_sqnr_db", minimum=-LIMIT_DB, maximum=LIMIT_DB),
        evidence=fields.choice("evidence", Evidence),
    )
    fields.close()
    return entry
