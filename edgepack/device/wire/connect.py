"""Opening the device the user named."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from edgepack.device.wire.adb import AdbDevice
from edgepack.device.wire.adb_client import connect_client
from edgepack.device.wire.address import TransportKind, parse_address
from edgepack.device.wire.host_keys import HostKeyPolicy, check_pin
from edgepack.device.wire.local import LocalDevice
from edgepack.device.wire.ssh import SshDevice
from edgepack.device.wire.ssh_connection import CONNECT_SECONDS, ConnectOptions, SshConnector
from edgepack.device.wire.transport import Device
from edgepack.errors import ConnectError, UsageError

__all__ = ["ConnectOptions", "open_device"]


@contextmanager
def open_device(text: str, *, options: ConnectOptions | None = None) -> Iterator[Device]:
    """Open the device the user named, and close it at the end.

    Args:
        text: an address as `parse_address` takes it.
        options: how to connect; None for the configuration's ways alone.

    Raises:
        UsageError: the address, an option or the SSH configuration is not right.
        ConnectError: no connection could be made.
        HostKeyError: the host key is unknown, changed, revoked, or not the pinned one.
        AuthError: the host refused every credential, or a device behind adb does not trust
            this computer.
        DeviceTimeoutError: a step took longer than its limit; says which.
    """
    address = parse_address(text)
    options = options or ConnectOptions()
    pin = None if options.host_key is None else check_pin(options.host_key)
    if options.identity is not None and not options.identity.is_file():
        raise UsageError(
            f"--identity: expected a private key file, found none at {options.identity}.",
            remedy="Name an existing key, or leave --identity out.",
        )
    if address.kind is TransportKind.LOCAL:
        yield LocalDevice()
        return
    if address.kind is TransportKind.ADB:
        limit_seconds = options.connect_timeout_seconds or CONNECT_SECONDS
        yield AdbDevice(connect_client(address.host, timeout_seconds=limit_seconds))
        return
    with ExitStack() as stack:
        policy = HostKeyPolicy(accept_new=options.accept_new_host_key, pin=pin)
        try:
            transport, wire = SshConnector(options, stack).connect(address, policy)
        except ConnectError as error:
            if text != "local" or type(error) is not ConnectError:
                raise
            raise ConnectError(
                error.message, remedy="Did you mean local: (with a colon), this machine?"
            ) from error
        yield SshDevice(transport, wire, name=str(address))
