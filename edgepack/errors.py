"""The error tree: every failure a user can cause or meet has a class, a remedy and an exit code."""

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """Exit codes of the command line."""

    DONE = 0
    FAILURE = 1
    USAGE = 2
    BUG = 3
    LIMIT = 4
    INTERRUPTED = 130


class EdgePackError(Exception):
    """A failure with a message for the user: what was expected, what came, what to do next.

    Attributes:
        kind: stable slug of the class, printed by `--json`.
        exit_code: what the command line exits with.
        message: what was expected and what came instead.
        remedy: what the user can do next.
    """

    kind: ClassVar[str] = "error"
    exit_code: ClassVar[ExitCode] = ExitCode.FAILURE

    def __init__(self, message: str, *, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n{self.remedy}" if self.remedy else self.message

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions cross process boundaries (pools, workers); the default would drop
        # the keyword-only remedy and fail to unpickle.
        return (_rebuild, (type(self), self.message, self.remedy))


def _rebuild(cls: type[EdgePackError], message: str, remedy: str) -> EdgePackError:
    return cls(message, remedy=remedy)


class UsageError(EdgePackError):
    """The command line asks for something that does not exist or contradicts itself."""

    kind = "usage"
    exit_code = ExitCode.USAGE


class ProfileError(EdgePackError):
    """A target profile is unknown, malformed, or breaks its schema."""

    kind = "profile"
    exit_code = ExitCode.USAGE


class UnknownTargetError(ProfileError):
    """There is no target of that name."""

    kind = "unknown_target"


class RecipeError(EdgePackError):
    """A recipe is unknown, malformed, or cannot be applied as asked."""

    kind = "recipe"
    exit_code = ExitCode.USAGE


class ModelError(EdgePackError):
    """A model file is unreadable, truncated, of another format, or not supported."""

    kind = "model"


class ConversionError(EdgePackError):
    """A converter failed on a model."""

    kind = "conversion"


class ParityError(EdgePackError):
    """A converted model does not compute what its source computes."""

    kind = "parity"


class ContractError(EdgePackError):
    """What was asked of a model's inputs and outputs does not fit the model."""

    kind = "contract"
    exit_code = ExitCode.USAGE


class DataError(EdgePackError):
    """Calibration or evaluation data do not fit the model, or hold unusable values."""

    kind = "data"


class CacheError(EdgePackError):
    """A result cannot be kept in the user's cache."""

    kind = "cache"


class ToolchainError(EdgePackError):
    """A toolchain could not be created or its worker did not answer."""

    kind = "toolchain"


class OptimizeError(EdgePackError):
    """A pass could not produce the variant it was asked for."""

    kind = "optimize"


class OutputError(EdgePackError):
    """A result cannot be written where the user wants it."""

    kind = "output"


class BundleError(EdgePackError):
    """A bundle is damaged, hostile, or not a bundle."""

    kind = "bundle"


class SignatureError(EdgePackError):
    """A bundle is not signed as it must be, or a key or list of signers cannot be used."""

    kind = "signature"


class DeviceError(EdgePackError):
    """A device could not be reached or did not do what was asked."""

    kind = "device"


class ConnectError(DeviceError):
    """No connection to the device could be made, or it was lost."""

    kind = "connect"


class DroppedError(ConnectError):
    """The host took the connection and hung up before its greeting, as a busy SSH server does."""

    kind = "dropped"


class HostKeyError(ConnectError):
    """The device's host key is unknown, changed, or not the pinned one."""

    kind = "host_key"


class AuthError(ConnectError):
    """The device refused every credential that was offered."""

    kind = "auth"


class DeviceTimeoutError(DeviceError):
    """A step on the device or on the way to it took longer than its limit."""

    kind = "timeout"


class KilledError(DeviceError):
    """A program on the device was killed, as Linux does when memory runs out."""

    kind = "killed"


class LockedError(DeviceError):
    """Another host uses the device."""

    kind = "locked"


class ProvisionError(DeviceError):
    """No runtime fits the device, or it could not be installed there."""

    kind = "provision"


class NotBegunError(DeviceError):
    """A device of several that was not begun, as the verb ended before its turn."""

    kind = "not_begun"


class UncertainError(DeviceError):
    """Broken off in a step that is not to be done twice; whether it was done is not known."""

    kind = "uncertain"


class DeployError(DeviceError):
    """A release could not be staged, verified or made current."""

    kind = "deploy"


class MeasureError(EdgePackError):
    """A measurement could not be taken, or its result cannot be trusted."""

    kind = "measure"


class GoldenError(MeasureError):
    """The model on the device answers otherwise than the packed model, so it is not timed."""

    kind = "golden"


class HistoryError(EdgePackError):
    """The history of results cannot be read or added to."""

    kind = "history"


class FleetError(EdgePackError):
    """A fleet file breaks its schema, or a filter leaves no device."""

    kind = "fleet"
    exit_code = ExitCode.USAGE


class JournalError(EdgePackError):
    """The journal of a fleet cannot be written, or is not the one to go on from."""

    kind = "journal"


class LimitError(EdgePackError):
    """A limit or gate the user set is not met."""

    kind = "limit"
    exit_code = ExitCode.LIMIT
