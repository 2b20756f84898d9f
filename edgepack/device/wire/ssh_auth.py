"""Logging in: the agent's keys, key files, and what the user types."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Final

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from paramiko.pkey import PublicBlob, UnknownKeyType

from edgepack.device.wire.sections import clean_text
from edgepack.device.wire.ssh_config import SshSettings
from edgepack.errors import AuthError, ConnectError, DeviceTimeoutError
from edgepack.signing.agent import Agent

Prompt = Callable[[str], str]
"""Asks the user for a secret without showing it; only where there is a terminal."""

_NUM_PROMPTS: Final = 3  # as OpenSSH's NumberOfPasswordPrompts
_TYPING_SECONDS: Final = 120.0


class Login:
    """One attempt to log in on a connected transport, in OpenSSH's order of methods.

    Keeps what was offered for the error message; secrets are kept nowhere.
    """

    def __init__(
        self,
        transport: paramiko.Transport,
        settings: SshSettings,
        *,
        prompt: Prompt | None,
        timeout_seconds: float,
    ) -> None:
        self._transport = transport
        self._settings = settings
        self._prompt = prompt
        self._timeout_seconds = timeout_seconds
        self._where = f"{settings.user}@{settings.host_name}"
        self._offered: list[str] = []
        self._allowed: list[str] = []
        self._accepted: set[str] = set()
        self._is_done = False

    def run(self) -> None:
        """Log in.

        Raises:
            AuthError: everything was refused.
            ConnectError: the connection was lost.
            DeviceTimeoutError: the host did not answer in time.
        """
        self._transport.auth_timeout = self._timeout_seconds
        # Asked first as OpenSSH does: the answer lists the methods, and a host may let
        # a user without password in.
        self._try(None, partial(self._transport.auth_none, self._settings.user))
        steps: tuple[tuple[str, Callable[[], None]], ...] = (
            ("publickey", self._offer_keys),
            ("keyboard-interactive", self._offer_answers),
            ("password", self._offer_password),
        )
        # A method may be accepted and another still be wanted (a key, then a code).
        while not self._is_done:
            num_accepted = len(self._accepted)
            for method, step in steps:
                if method in self._allowed and method not in self._accepted:
                    step()
                if len(self._accepted) > num_accepted:
                    break
            else:
                raise self._refusal()

    def _try(self, offer: str | None, attempt: Callable[[], Sequence[str]]) -> bool:
        """Make one attempt; tell whether the host accepted it."""
        if offer is not None:
            self._offered.append(offer)
        try:
            remaining = attempt()
        except paramiko.BadAuthenticationType as error:
            self._allowed = list(error.allowed_types)
            return False
        except paramiko.AuthenticationException as error:
            if "timeout" in str(error).lower():
                raise DeviceTimeoutError(
                    f"{self._where} did not answer the login within {self._timeout_seconds:.0f} s.",
                    remedy="See whether the device is overloaded, or try again.",
                ) from None
            if not self._transport.is_active():
                raise self._refusal(
                    "The host closed the connection; it may have been offered too many keys."
                ) from None
            return False
        except (paramiko.SSHException, EOFError, OSError) as error:
            if self._transport.is_active():  # such as: no signature algorithm in common
                self._offered[-1:] = [f"{offer} ({error})"]
                return False
            raise ConnectError(
                f"{self._where} closed the connection during the login.",
                remedy="See the device's own log (journalctl -u ssh) for the reason.",
            ) from None
        self._allowed = list(remaining)
        self._is_done = not remaining
        return True

    def _offer_keys(self) -> None:
        user = self._settings.user
        with closing(Agent(self._settings.identity_agent)) as agent:
            for offer, key in self._keys(agent):
                if self._try(offer, partial(self._transport.auth_publickey, user, key)):
                    self._accepted.add("publickey")
                    return

    def _keys(self, agent: Agent) -> Iterator[tuple[str, paramiko.PKey]]:
        own = {_public_blob(path): path for path in self._settings.identity_files}
        seen: set[bytes] = set()
        # Keys the user named first, as OpenSSH does: hosts stop listening after a few.
        agent_keys = sorted(agent.get_keys(), key=lambda key: key.asbytes() not in own)
        for agent_key in agent_keys:
            blob = agent_key.asbytes()
            if self._settings.identities_only and blob not in own:
                continue
            seen.add(blob)
            yield f"{agent_key.get_name()} key of the agent", agent_key
        for path in self._settings.identity_files:
            if _public_blob(path) in seen or not path.is_file():
                continue
            key = self._load(path)
            if key is not None and key.asbytes() not in seen:
                seen.add(key.asbytes())
                yield str(path), key

    def _load(self, path: Path) -> paramiko.PKey | None:
        passphrase: bytes | None = None
        for num_asked in range(_NUM_PROMPTS + 1):
            try:
                # paramiko 5.1 wants bytes here, whatever its annotation says.
                return paramiko.PKey.from_path(path, passphrase)  # type: ignore[arg-type]
            except TypeError:  # so says cryptography 50 of a key that needs a passphrase
                pass
            except OSError as error:
                self._offered.append(f"{path} ({error.strerror})")
                return None
            except (ValueError, UnsupportedAlgorithm, paramiko.SSHException, UnknownKeyType):
                if passphrase is None:
                    self._offered.append(f"{path} (no private key that can be read)")
                    return None
            if self._prompt is None:
                self._offered.append(f"{path} (locked by a passphrase, no terminal to ask for it)")
                return None
            if num_asked < _NUM_PROMPTS:
                passphrase = self._prompt(f"Passphrase for {path}: ").encode()
        self._offered.append(f"{path} (wrong passphrase)")
        return None

    def _offer_answers(self) -> None:
        prompt = self._prompt
        if prompt is None:
            self._offered.append("keyboard-interactive (no terminal to ask on)")
            return

        def answer(title: str, instructions: str, fields: list[tuple[str, bool]]) -> list[str]:
            del title, instructions
            return [prompt(f"({self._where}) {clean_text(text)} ") for text, _ in fields]

        # The answers are typed while paramiko waits for the host.
        self._transport.auth_timeout = max(self._timeout_seconds, _TYPING_SECONDS)
        attempt = partial(self._transport.auth_interactive, self._settings.user, answer)
        for _ in range(_NUM_PROMPTS):
            if self._try("keyboard-interactive", attempt):
                self._accepted.add("keyboard-interactive")
                break
        self._transport.auth_timeout = self._timeout_seconds

    def _offer_password(self) -> None:
        if self._prompt is None:
            self._offered.append("password (no terminal to ask on)")
            return
        log_in = partial(self._transport.auth_password, self._settings.user, fallback=False)
        for _ in range(_NUM_PROMPTS):
            password = self._prompt(f"{self._where}'s password: ")
            if self._try("password", partial(log_in, password)):
                self._accepted.add("password")
                return

    def _refusal(self, detail: str = "") -> AuthError:
        offered = ", ".join(dict.fromkeys(self._offered)) or "nothing (no key, no agent)"
        allowed = ", ".join(self._allowed) or "nothing further"
        more = f" {detail}" if detail else ""
        return AuthError(
            f"{self._where} refused the login. Offered: {offered}. The host allows: {allowed}."
            f"{more}",
            remedy="Name the right key with --identity FILE, or install yours with "
            f"`ssh-copy-id {self._where}`.",
        )


def _public_blob(path: Path) -> bytes | None:
    """Read the public half beside a private key file, to know the key without unlocking it."""
    try:
        words = Path(f"{path}.pub").read_text(encoding="utf-8", errors="replace").split()
        blob: bytes = PublicBlob.from_string(" ".join(words[:2])).key_blob
    except (OSError, ValueError, IndexError):
        return None
    return blob
