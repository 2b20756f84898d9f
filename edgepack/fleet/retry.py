"""What is tried again, how often and when."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from edgepack.errors import ConnectError, DroppedError, EdgePackError

_LONGEST_SECONDS: Final = 20.0


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """How often a device is tried.

    Attributes:
        num_dropped: further tries of one that hangs up before it greets: it is there, and busy.
        num_lost: further tries of one that refuses connections, or whose link was lost.
        base_seconds: about the pause before the first of them; it doubles each time.
    """

    num_dropped: int = 6
    num_lost: int = 2
    base_seconds: float = 0.4

    def pause_seconds(
        self, error: EdgePackError, *, num_tries: int, draw: Callable[[], float]
    ) -> float | None:
        """Give the pause before the next try; None when there is to be none.

        Args:
            error: what the last try ended with.
            num_tries: tries so far, at least 1.
            draw: gives a number from 0 to 1 at random, so that those which were turned away
                together do not come back together.
        """
        if num_tries > self._num_retries(error):
            return None
        whole = min(_LONGEST_SECONDS, self.base_seconds * 2.0 ** (num_tries - 1))
        return whole * (0.5 + 0.5 * draw())

    def _num_retries(self, error: EdgePackError) -> int:
        if isinstance(error, DroppedError):
            return self.num_dropped
        # Not its other subclasses: a wrong key or login is as wrong a second later.
        return self.num_lost if type(error) is ConnectError else 0


NO_RETRIES: Final = RetryPolicy(num_dropped=0, num_lost=0)
