"""A Dask cluster as an executor."""

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Final

from edgepack.errors import ConnectError, UsageError

_CONNECT_SECONDS: Final = 30


@contextmanager
def open_cluster(address: str) -> Iterator[Executor]:
    """Give a cluster's executor until the end of the context.

    What its workers have begun goes on there when the context is left early.

    Args:
        address: of the scheduler, such as `tcp://10.0.0.1:8786`.

    Raises:
        UsageError: `distributed` is not installed, or the address is none.
        ConnectError: no scheduler answers there.
    """
    try:
        from distributed import Client  # noqa: PLC0415 - an extra, and a second to import
    except ImportError:
        raise UsageError(
            "--scheduler: expected the package distributed, which is not installed",
            remedy="pip install 'edgepack[dask]'; the workers need edgepack too.",
        ) from None
    try:
        client = Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
    except ValueError as error:
        raise UsageError(
            f"--scheduler {address}: {error}", remedy="Write tcp://HOST:PORT, as dask says it."
        ) from None
    except (OSError, TimeoutError):
        raise ConnectError(
            f"no Dask scheduler answers at {address}",
            remedy="Start one with `dask scheduler`, and workers with `dask worker ADDRESS`.",
        ) from None
    with client:
        # A push tried twice says so itself; Dask would do so without a word.
        yield client.get_executor(pure=False, retries=0)
