"""A Dask cluster as an executor."""

from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, ParamSpec, TypeVar

from edgepack.errors import ConnectError, EdgePackError, UsageError

P = ParamSpec("P")
T = TypeVar("T")

_CONNECT_SECONDS: Final = 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """A cluster that is reached.

    Attributes:
        executor: runs functions on its workers.
        num_threads: of all workers when it was reached; more tasks at a time would only wait.
    """

    executor: Executor
    num_threads: int


class _ClusterExecutor(Executor):
    """Dask's executor, whose own faults are those of an executor and no bugs of the task.

    A worker that dies has its task begun again by the scheduler, `allowed-failures` times (three,
    distributed 2026.8; `retries` counts exceptions alone); then `KilledWorker` comes. A push or a
    benchmark may be begun again at any point.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Begin a function on a worker."""
        told: Future[T] = Future()
        told.set_running_or_notify_cancel()
        try:
            inner = self._executor.submit(fn, *args, **kwargs)
        except Exception as error:  # Dask's are of no class of their own; others go on
            if not _is_of_cluster(error):
                raise
            raise _broken(error) from error

        def tell(done: Future[T]) -> None:
            error = None if done.cancelled() else done.exception()
            if done.cancelled():
                told.set_exception(BrokenExecutor("the cluster canceled it"))
            elif error is None:
                told.set_result(done.result())
            else:
                told.set_exception(_broken(error) if _is_of_cluster(error) else error)

        inner.add_done_callback(tell)
        return told


def _is_of_cluster(error: BaseException) -> bool:
    """Tell an error of Dask, or of a worker that cannot import what it is to run."""
    if isinstance(error, EdgePackError):
        return False
    module = type(error).__module__.partition(".")[0]
    return module in {"distributed", "dask"} or isinstance(error, ImportError)


def _broken(error: BaseException) -> BrokenExecutor:
    return BrokenExecutor(f"{type(error).__name__}: {error}")


@contextmanager
def open_cluster(address: str) -> Iterator[Cluster]:
    """Reach a cluster until the end of the context.

    What its workers have begun goes on there when the context is left early.

    Args:
        address: of the scheduler, such as `tcp://10.0.0.1:8786`.

    Raises:
        UsageError: `distributed` is not installed, or the address is none.
        ConnectError: no scheduler answers there, or it has no workers.
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
        num_threads = sum(client.nthreads().values())
        if not num_threads:
            raise ConnectError(
                f"the Dask scheduler at {address} has no workers",
                remedy=f"Start some with `dask worker {address}`.",
            )
        # A push tried twice says so itself; Dask would do so without a word.
        executor = client.get_executor(pure=False, retries=0)
        yield Cluster(executor=_ClusterExecutor(executor), num_threads=num_threads)
