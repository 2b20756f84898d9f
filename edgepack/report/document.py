"""The frame of every page: no script, no network, light and dark."""

from collections.abc import Iterable
from typing import Final

from edgepack.report.markup import text_of
from edgepack.report.style import STYLE_SHEET

# A fault in the escaping would still be harmless.
_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)


def write_document(title: str, *, header: str, sections: Iterable[str], footer: str) -> str:
    """Write one self-contained HTML document.

    Args:
        title: of the report, from outside.
        header: markup of what stands above all sections.
        sections: markup of each.
        footer: markup of the last line.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text_of(title)} · EdgePack report</title>\n"
        f"<style>{STYLE_SHEET}</style>\n</head>\n<body>\n"
        f"{header}\n<main>\n" + "\n".join(sections) + "\n</main>\n"
        f"<footer><p>{footer}</p></footer>\n"
        "</body>\n</html>\n"
    )
