"""What the user asks of a model's inputs and outputs."""

from dataclasses import dataclass, fields

from edgepack.contract.preprocessing import Head
from edgepack.data import ImageLayout


@dataclass(frozen=True, kw_only=True, slots=True)
class InputWish:
    """What is asked of one input; None asks nothing.

    Attributes:
        name: of the input; None is the only one.
        scale: raw values are multiplied by this inside the model.
        mean: then this is subtracted; one value, or one a channel.
        std: then they are divided by this; one value, or one a channel.
        dtype: element type of raw values: `uint8` or `float32`.
        layout: order of an image's axes.
    """

    name: str | None
    scale: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    dtype: str | None = None
    layout: ImageLayout | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputWish:
    """What is asked of one output; None asks nothing.

    Attributes:
        name: of the output; None is the only one.
        head: what is appended.
        layout: order of an image's axes.
    """

    name: str | None
    head: Head | None = None
    layout: ImageLayout | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ContractRequest:
    """All that is asked of a model's inputs and outputs.

    Attributes:
        inputs: one entry for each input that something is asked of.
        outputs: likewise.
    """

    inputs: tuple[InputWish, ...] = ()
    outputs: tuple[OutputWish, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is asked, so that the model stays as it is."""
        return not self.inputs and not self.outputs

    @property
    def asks_preprocessing(self) -> bool:
        """Whether data are raw values for some input."""
        return any(
            getattr(wish, each.name) is not None
            for wish in self.inputs
            for each in fields(wish)
            if each.name not in {"name", "layout"}
        )
