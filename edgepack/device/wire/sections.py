"""The text a device's probe script answers with: named sections of untrusted lines."""

import re
from typing import Final

_MARK: Final = re.compile(r"@@([a-z0-9_]{1,32})")
_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e\u00a0-\ud7ff]+")
MAX_TEXT: Final = 200
MAX_LINES: Final = 512


def split_sections(text: str) -> dict[str, tuple[str, ...]]:
    """Give the non-empty lines of each section; a section begins with a line `@@name`.

    Lines are stripped of control characters and cut at 4 KiB; a section ends at 512 lines.
    """
    sections: dict[str, list[str]] = {}
    lines: list[str] = []
    for raw in text.splitlines():
        mark = _MARK.fullmatch(raw.strip())
        if mark:
            lines = sections.setdefault(mark[1], [])
            continue
        line = clean_text(raw, limit=4096)
        if line and len(lines) < MAX_LINES:
            lines.append(line)
    return {name: tuple(found) for name, found in sections.items()}


def clean_text(text: str, *, limit: int = MAX_TEXT) -> str:
    """Replace what a terminal should not be sent, trim, and cut to the limit."""
    return _UNPRINTABLE.sub(" ", text[: 2 * limit]).strip()[:limit].strip()


def parse_count(text: str, *, maximum: int) -> int | None:
    """Read a whole number from 0 to the maximum; None for anything else."""
    digits = text.strip()
    if not digits.isascii() or not digits.isdigit() or len(digits) > 20:  # noqa: PLR2004 - 64 bits
        return None
    value = int(digits)
    return value if value <= maximum else None
