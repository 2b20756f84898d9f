"""What the docs name exists."""

import re
from pathlib import Path

import pytest

from edgepack.cli import _VERBS

REPOSITORY = Path(__file__).parent.parent
PAGES = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_the_readme_lists_every_verb() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    section = text.partition("## Verbs")[2].partition("##")[0]
    assert re.findall(r"^\| `([a-z]+)", section, flags=re.MULTILINE) == list(_VERBS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_scripts_and_benchmarks_that_are_named_exist(page: Path) -> None:
    named = re.findall(
        r"\b((?:scripts|benchmarks)/[a-z0-9_.-]+[a-z0-9])", page.read_text(encoding="utf-8")
    )
    assert [name for name in named if not (REPOSITORY / name).exists()] == []
