"""What storing zeros sparsely did to a model, weights by weights, and why not more."""

from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import Final

from edgepack._fields import Fields

NOTHING_SPARSE: Final = "no weights are stored sparsely"


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredWeights:
    """Weights with zeros among them, as they came to be stored.

    Attributes:
        name: of the weights' tensor.
        num_weights: how many.
        num_zero: zeros among them.
        dense_storage: why they are stored densely; empty when they are stored sparsely.
        dense_kernel: why XNNPACK computes densely with them on every CPU; empty when it takes
            a sparse kernel where it has one.
    """

    name: str
    num_weights: int
    num_zero: int
    dense_storage: str
    dense_kernel: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SparseFacts:
    """What storing zeros sparsely did to a model.

    Attributes:
        bytes_before: size of the flatbuffer with every zero written out.
        bytes_after: size of the flatbuffer.
        weights: those with zeros among them, in the order in which ops read them.
    """

    bytes_before: int
    bytes_after: int
    weights: tuple[StoredWeights, ...]

    @property
    def num_sparse(self) -> int:
        """How many are stored sparsely."""
        return sum(not each.dense_storage for each in self.weights)

    @property
    def num_sparse_kernels(self) -> int:
        """How many XNNPACK takes a sparse kernel for, where it has one."""
        return sum(not each.dense_kernel for each in self.weights)


def keep_dense(facts: SparseFacts, reason: str) -> SparseFacts:
    """Give the facts of a model that is left as it was, for a reason."""
    return SparseFacts(
        bytes_before=facts.bytes_before,
        bytes_after=facts.bytes_before,
        weights=tuple(
            replace(
                each,
                dense_storage=each.dense_storage or reason,
                dense_kernel=each.dense_kernel or NOTHING_SPARSE,
            )
            for each in facts.weights
        ),
    )


def describe_sparse(facts: SparseFacts) -> tuple[str, ...]:
    """Say in sentences what was gained, and what not and why."""
    if not facts.weights:
        return ("no weight is zero, so nothing is stored sparsely",)
    gained = (
        f"{facts.num_sparse} of {len(facts.weights)} weights with zeros are stored sparsely: "
        f"{facts.bytes_after} bytes instead of {facts.bytes_before}"
    )
    sentences = [
        gained,
        *_count("stored densely", [each.dense_storage for each in facts.weights]),
    ]
    if facts.num_sparse_kernels:
        sentences.append(
            f"XNNPACK computes {facts.num_sparse_kernels} of them with sparse kernels, but on x86 "
            "CPUs with AVX"
        )
    return (
        *sentences,
        *_count("computed densely by XNNPACK", [each.dense_kernel for each in facts.weights]),
    )


def _count(what: str, reasons: list[str]) -> list[str]:
    counts = Counter(reason for reason in reasons if reason)
    return [f"{number} {what}: {reason}" for reason, number in counts.most_common()]


def sparse_facts_to_json(facts: SparseFacts) -> dict[str, object]:
    """Give the facts as JSON values."""
    return {**asdict(facts), "weights": [asdict(each) for each in facts.weights]}


def read_sparse_facts(fields: Fields) -> SparseFacts:
    """Read the facts from a table, noting faults in `fields`."""
    facts = SparseFacts(
        bytes_before=fields.integer("bytes_before", minimum=0),
        bytes_after=fields.integer("bytes_after", minimum=0),
        weights=tuple(_read_weights(each) for each in fields.tables("weights")),
    )
    fields.close()
    return facts


def _read_weights(fields: Fields) -> StoredWeights:
    weights = StoredWeights(
        name=fields.text("name", empty=True),
        num_weights=fields.integer("num_weights", minimum=0),
        num_zero=fields.integer("num_zero", minimum=0),
        dense_storage=fields.text("dense_storage", empty=True),
        dense_kernel=fields.text("dense_kernel", empty=True),
    )
    fields.close()
    return weights
