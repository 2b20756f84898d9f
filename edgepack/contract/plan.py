"""What is done at each input and output of one model, as plain values."""

from dataclasses import dataclass
from typing import Final

from edgepack.contract.preprocessing import Head, Preprocessing
from edgepack.data import ImageLayout
from edgepack.model import TensorSpec

_TO_LAST: Final = (0, 2, 3, 1)
_TO_FIRST: Final = (0, 3, 1, 2)
SHARED: Final = "shared"
"""Stands for the writer of a tensor that is several outputs at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InputPlan:
    """What is done at one input.

    Attributes:
        spec: the input as it is.
        layout: its order of axes; None when it is no image.
        wanted_layout: the order it is to have.
        dtype: the element type it is to have.
        preprocessing: what moves into the model; None leaves it to the caller.
        source_channel_axis: the channels' axis in the source's layout.
    """

    spec: TensorSpec
    layout: ImageLayout | None
    wanted_layout: ImageLayout | None
    dtype: str
    preprocessing: Preprocessing | None
    source_channel_axis: int

    @property
    def permutation(self) -> tuple[int, ...] | None:
        """Axes of the input as it is, in the order wanted; None when they stay."""
        return _turn(self.layout, self.wanted_layout)

    @property
    def wanted_shape(self) -> tuple[int, ...]:
        """The shape it is to have."""
        return _turned(self.spec.shape, self.permutation)

    @property
    def is_raw(self) -> bool:
        """Whether data for it are raw values."""
        return self.preprocessing is not None or self.takes_pixels

    @property
    def takes_pixels(self) -> bool:
        """Whether it takes bytes where the model before took real numbers."""
        return self.dtype == "uint8" and self.spec.dtype != "uint8"


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputPlan:
    """What is done at one output.

    Attributes:
        spec: the output as it is.
        layout: its order of axes; None when it is no image.
        wanted_layout: the order it is to have.
        head: what is appended.
        writer: the op that gives it now; empty for an input handed through, `SHARED` for a
            tensor that is another output too.
    """

    spec: TensorSpec
    layout: ImageLayout | None
    wanted_layout: ImageLayout | None
    head: Head | None
    writer: str

    @property
    def permutation(self) -> tuple[int, ...] | None:
        """Axes of the output as it is, in the order wanted; None when they stay."""
        return _turn(self.layout, self.wanted_layout)

    @property
    def wanted_shape(self) -> tuple[int, ...]:
        """The shape it is to have."""
        if self.head is Head.ARGMAX:
            shape, axis = self.spec.shape, self.class_axis
            return (*shape[:axis], *shape[axis + 1 :])
        return _turned(self.spec.shape, self.permutation)

    @property
    def wanted_dtype(self) -> str:
        """The element type it is to have."""
        return "int32" if self.head is Head.ARGMAX else self.spec.dtype

    @property
    def class_axis(self) -> int:
        """The axis that counts classes, in the output as it is."""
        return 1 if self.layout is ImageLayout.NCHW else len(self.spec.shape) - 1

    @property
    def is_changed(self) -> bool:
        """Whether anything is done here."""
        return self.head is not None or self.permutation is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class ContractPlan:
    """What is done at each input and output of one model, in its order."""

    inputs: tuple[InputPlan, ...]
    outputs: tuple[OutputPlan, ...]

    @property
    def is_empty(self) -> bool:
        """Whether the model stays as it is."""
        return not any(
            each.is_raw or each.permutation is not None for each in self.inputs
        ) and not any(each.is_changed for each in self.outputs)


def channel_axis(layout: ImageLayout | None, rank: int) -> int:
    """Give the channels' axis: the last one, except for images with channels first."""
    return 1 if layout is ImageLayout.NCHW else max(rank - 1, 0)


def _turned(shape: tuple[int, ...], order: tuple[int, ...] | None) -> tuple[int, ...]:
    return shape if order is None else tuple(shape[axis] for axis in order)


def _turn(here: ImageLayout | None, wanted: ImageLayout | None) -> tuple[int, ...] | None:
    if here is wanted or here is None or wanted is None:
        return None
    return _TO_LAST if wanted is ImageLayout.NHWC else _TO_FIRST
