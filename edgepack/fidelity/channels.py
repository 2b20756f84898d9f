"""Which axis of an output holds channels; a guess from its shape alone, pure."""

from typing import Final

_CHANNELS_RANK: Final = 2
_SEQUENCE_RANK: Final = 3
_IMAGE_RANK: Final = 4


def find_channel_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Guess which axes of an output hold channels, the last or the one behind the batch.

    Of three axes the shorter of the two holds them, and the longer one places, time or anchors:
    (1, 84, 8400) and (1, 8400, 84) both have 84 channels. Rows and columns of a picture are no
    channels, so equal sizes side by side are taken for a picture's.

    Args:
        shape: of the output, its batch first.

    Returns:
        One axis; both where neither of two is less than half the other; none without channels.
    """
    rank = len(shape)
    if rank < _CHANNELS_RANK:
        return ()
    last = rank - 1
    axes: tuple[int, ...] = (last,)
    if rank == _SEQUENCE_RANK and shape[1] != 1:
        shorter, longer = sorted((1, last), key=lambda each: shape[each])
        axes = (1, last) if 2 * shape[shorter] > shape[longer] else (shorter,)
    elif rank == _IMAGE_RANK and shape[1] != shape[2]:
        axes = (1,) if shape[2] == shape[3] or shape[1] < shape[3] else (last,)
    return tuple(axis for axis in axes if shape[axis] > 1)
