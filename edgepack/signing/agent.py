"""The SSH agent, which signs without giving its keys away."""

import os
import socket
from typing import Final

import paramiko
from paramiko.agent import AgentSSH

_SECONDS: Final = 10.0


class Agent(AgentSSH):
    """The agent at a given socket; paramiko's own class only knows `SSH_AUTH_SOCK`.

    Without an agent it has no keys, which is no fault: the key files come next.
    """

    def __init__(self, path: str | None = None) -> None:
        super().__init__()
        path = path or os.environ.get("SSH_AUTH_SOCK")
        if not path or path == "none":
            return
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(_SECONDS)
        try:
            connection.connect(path)
            self._connect(connection)  # type: ignore[attr-defined]  # as paramiko's own do
        except (OSError, paramiko.SSHException):
            connection.close()

    def close(self) -> None:
        """Close the connection to the agent."""
        self._close()  # type: ignore[attr-defined]  # as paramiko's own do
