"""The documentation: links lead somewhere, and the commands it shows exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from catalyst_pxeboot.cli.main import make_parser
from tests.support.paths import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "doc").glob("*.md")])


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    for link in links:
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_parse(page: Path) -> None:
    """Each command line that is shown as a block is one that the parser takes."""
    for line in re.findall(r"^    catalyst-pxeboot (.*)$", page.read_text(), re.MULTILINE):
        words = shlex.split(line, comments=True)
        words = [{"FORMAT": "matchbox"}.get(word, word) for word in words]
        make_parser().parse_args(words)


def test_the_readme_is_short() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 160
    for page in (ROOT / "doc").glob("*.md"):
        assert f"doc/{page.name}" in text or page.name == "spec-keys.md", page.name
