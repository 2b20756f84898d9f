"""Lists of allowed signers, in the format of `ssh-keygen -Y verify -f`: who may sign what, when.

Source: ssh-keygen(1), ALLOWED SIGNERS, and sshsig.c of OpenSSH 9.2. Certificates are not
supported, and a faulty line makes the whole list unusable instead of being passed over.
"""

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from edgepack._fields import join_faults, nearest
from edgepack.errors import SignatureError
from edgepack.signing.public_key import PublicKey, is_key_type, read_public_words

MAXIMUM_BYTES: Final = 64 * 2**10
_OPTIONS: Final = ("cert-authority", "namespaces", "valid-after", "valid-before")
_OPTION: Final = re.compile(r'([A-Za-z-]+)(?:=("(?:\\"|[^"])*+"))?(,|$)')
_TIME: Final = re.compile(r"(\d{4})(\d\d)(\d\d)(?:(\d\d)(\d\d)(\d\d)?)?(Z|UTC)?", re.IGNORECASE)
_REMEDY: Final = (
    "Mend the lines named above: PRINCIPALS [OPTIONS] KEYTYPE KEY, as ssh-keygen(1) describes "
    "under ALLOWED SIGNERS."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SignerLine:
    """A line of a list.

    Attributes:
        number: of the line, from 1.
        principals: patterns of the identities whose key it is, separated by commas.
        key: their key.
        namespaces: patterns of what it may sign; None is everything.
        valid_after: when it begins to count.
        valid_before: the last moment at which it counts.
    """

    number: int
    principals: str
    key: PublicKey
    namespaces: str | None = None
    valid_after: datetime | None = None
    valid_before: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class AllowedSigners:
    """A list of who may sign.

    Attributes:
        name: what it is called in messages: its file.
        lines: of the list.
    """

    name: str
    lines: tuple[SignerLine, ...]

    @property
    def num_keys(self) -> int:
        """How many different keys it names."""
        return len({line.key for line in self.lines})


def load_allowed_signers(path: Path) -> AllowedSigners:
    """Read a list from a file.

    Raises:
        SignatureError: it cannot be read, or is no such list.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAXIMUM_BYTES + 1)
    except OSError as error:
        raise SignatureError(
            f"{path}: the list of allowed signers cannot be read: {error.strerror or error}",
            remedy="Check the path and its permissions.",
        ) from error
    return parse_allowed_signers(data, name=str(path))


def parse_allowed_signers(data: bytes, *, name: str) -> AllowedSigners:
    """Read a list.

    Raises:
        SignatureError: it has faulty lines; all are named.
    """
    if len(data) > MAXIMUM_BYTES:
        raise SignatureError(
            f"{name}: expected a list of allowed signers of at most {MAXIMUM_BYTES} bytes",
            remedy="List only who signs bundles.",
        )
    lines: list[SignerLine] = []
    faults: list[str] = []
    text = data.decode("utf-8", errors="surrogateescape")
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip(" \t\r")
        if not line or line.startswith("#"):
            continue
        try:
            lines.append(_parse_line(line, number))
        except ValueError as error:
            faults.append(f"line {number}: {error}")
    if faults:
        raise SignatureError(join_faults(name, faults), remedy=_REMEDY)
    return AllowedSigners(name=name, lines=tuple(lines))


def _parse_line(line: str, number: int) -> SignerLine:
    if not line.replace("\t", " ").isprintable():
        raise ValueError("expected printable text")
    principals, rest = _split_principals(line)
    word, _, after = rest.partition(" ")
    options: Mapping[str, str] = {}
    if not is_key_type(word):
        end = _find_end_of_options(rest)
        options, rest = _parse_options(rest[:end]), rest[end:].strip()
        word, _, after = rest.partition(" ")
    if not is_key_type(word):
        raise ValueError(f"expected a key's type such as ssh-ed25519, not {word[:40]!r}")
    try:
        key = read_public_words(word, (after.split() or [""])[0])
    except ValueError as error:
        raise ValueError(f"expected a {word} key in base64, but {error}") from error
    after_time = _parse_time(options, "valid-after")
    before_time = _parse_time(options, "valid-before")
    if after_time is not None and before_time is not None and before_time <= after_time:
        raise ValueError("valid-before is not later than valid-after")
    return SignerLine(
        number=number,
        principals=principals,
        key=key,
        namespaces=options.get("namespaces"),
        valid_after=after_time,
        valid_before=before_time,
    )


def _split_principals(line: str) -> tuple[str, str]:
    """Give the first field, which may stand in quotes, and the rest with single spaces."""
    if line.startswith('"'):
        principals, quote, rest = line[1:].partition('"')
        if not quote:
            raise ValueError("the principals' quote is not closed")
    else:
        words = line.split(maxsplit=1)
        principals, rest = words[0], words[1] if len(words) > 1 else ""
    if '"' in principals or not principals:
        raise ValueError(f"expected principals such as alice@example.org, not {principals[:40]!r}")
    rest = rest.replace("\t", " ").strip()
    if not rest:
        raise ValueError("expected a key after the principals")
    return principals, rest


def _find_end_of_options(text: str) -> int:
    """Find the first space outside quotes."""
    is_quoted, is_escaped = False, False
    for position, character in enumerate(text):
        if character == " " and not is_quoted:
            return position
        if character == '"' and not is_escaped:
            is_quoted = not is_quoted
        is_escaped = character == "\\"
    if is_quoted:
        raise ValueError("a quote is not closed")
    return len(text)


def _parse_options(text: str) -> dict[str, str]:
    options: dict[str, str] = {}
    position = 0
    while position < len(text):
        match = _OPTION.match(text, position)
        if match is None:
            raise ValueError(f"expected options such as {_EXAMPLE}, not {text[position:][:40]!r}")
        name, value = match[1].lower(), match[2]
        if name not in _OPTIONS:
            raise ValueError(f"unknown option {match[1][:40]!r}{nearest(name, _OPTIONS)}")
        if name == "cert-authority":
            raise ValueError(
                "cert-authority: certificates are not supported; list each signer's own key"
            )
        if name in options:
            raise ValueError(f"{name} stands twice")
        if value is None:
            raise ValueError(f'{name}: expected a value in quotes, as in {name}="…"')
        options[name] = value[1:-1].replace('\\"', '"')
        position = match.end()
    if text.endswith(","):
        raise ValueError("an option is missing after the last comma")
    return options


_EXAMPLE: Final = 'namespaces="edgepack"'


def _parse_time(options: Mapping[str, str], name: str) -> datetime | None:
    """Read a time, which is this machine's local one unless it ends in Z."""
    text = options.get(name)
    if text is None:
        return None
    match = _TIME.fullmatch(text)
    if match is not None:
        numbers = [int(each or 0) for each in match.groups()[:6]]
        try:
            year, month, day, hour, minute, second = numbers
            time = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
            if match[7]:
                return time
            return time.replace(tzinfo=None).astimezone(UTC)
        except (ValueError, OverflowError, OSError):
            pass  # no such day, or one that no clock has
    raise ValueError(f"{name}: expected YYYYMMDD or YYYYMMDDHHMM[SS], perhaps with Z, not {text!r}")


def matches(text: str, patterns: str) -> bool:
    """Tell whether a text matches a list of patterns, as ssh_config(5) describes under PATTERNS.

    `*` and `?` stand for any characters; what matches a pattern behind `!` does not match.
    """
    is_match = False
    for each in patterns.split(","):
        pattern = each.removeprefix("!").replace("[", "[[]")  # brackets mean nothing to OpenSSH
        if fnmatch.fnmatchcase(text, pattern):
            if each.startswith("!"):
                return False
            is_match = True
    return is_match


def find_signer(
    signers: AllowedSigners,
    key: PublicKey,
    *,
    namespace: str,
    now: datetime,
    identity: str | None = None,
) -> SignerLine:
    """Find the line by which a key may sign.

    Args:
        signers: the list.
        key: that made a signature.
        namespace: that the signature is for.
        now: what time it is.
        identity: who must have signed; None is anybody on the list.

    Raises:
        SignatureError: there is none, and why not.
    """
    lines = [line for line in signers.lines if line.key == key]
    if not lines:
        raise SignatureError(
            f"signed with the {key}, which {signers.name} does not list",
            remedy="If you trust who signed, have this key added there; otherwise get the bundle "
            "from someone the list names.",
        )
    refusals: list[str] = []
    for line in lines:
        refusal = _refuse(line, namespace=namespace, now=now, identity=identity)
        if refusal is None:
            return line
        refusals.append(f"{refusal} ({signers.name}, line {line.number})")
    raise SignatureError(
        join_faults(f"signed with the {key}, which may not sign this", refusals),
        remedy="Have the list mended, or the bundle signed with a key that may.",
    )


def _refuse(line: SignerLine, *, namespace: str, now: datetime, identity: str | None) -> str | None:
    """Say why a line does not let its key sign; None when it does."""
    if identity is not None and not matches(identity, line.principals):
        return f"it is the key of {line.principals}, not of {identity}"
    if line.namespaces is not None and not matches(namespace, line.namespaces):
        return f"it may sign for the namespaces {line.namespaces!r} only, not for {namespace!r}"
    if line.valid_after is not None and now < line.valid_after:
        return f"it is not valid before {_show(line.valid_after)}"
    if line.valid_before is not None and now > line.valid_before:
        return f"it expired at {_show(line.valid_before)}"
    return None


def _show(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"
