"""The user's own templates."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalyst_pxeboot.util.errors import TemplateError
from tests.support.mirror import NEW, contents, nothing_changes, run


def test_own_templates(mirror: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    (own / "menu").mkdir(parents=True)
    (own / "menu/menu.ipxe.j2").write_text("#!ipxe\n{% include 'more.j2' %}\n")
    (own / "more.j2").write_text("# {{ groups[0].newest.title }}\n")
    run(mirror)
    assert run(mirror, own).written == ("menu.ipxe", "releases.json")
    assert (mirror / "menu.ipxe").read_text() == (
        f"#!ipxe\n# Gentoo Linux amd64 {NEW}, 800 MiB of memory\n"
    )
    assert run(mirror, own).written == ()
    (own / "more.j2").write_text("# another")  # what is included counts as well
    assert run(mirror, own).written == ("menu.ipxe", "releases.json")
    assert run(mirror).written == ("menu.ipxe", "releases.json")


def test_faulty_templates_change_nothing(mirror: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    (own / "menu").mkdir(parents=True)
    (own / "menu/menu.ipxe.j2").write_text("{{ nothing }}")
    run(mirror)
    before = contents(mirror)
    with pytest.raises(TemplateError, match="'nothing' is undefined"):
        run(mirror, own)
    assert contents(mirror) == before
    nothing_changes(
        mirror,
        f"{own}/none: is not a folder of templates; name a folder, or take the shipped templates",
        templates=own / "none",
    )
