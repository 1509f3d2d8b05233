"""A tree with the user's own files in it, for a client in QEMU."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from catalyst_pxeboot.cli.personal import tree_with
from catalyst_pxeboot.lab.machine import UserLink
from catalyst_pxeboot.personal.model import NO_PERSONAL, Personal
from catalyst_pxeboot.util.checksum import digest_bytes
from catalyst_pxeboot.util.errors import VerifyError
from catalyst_pxeboot.util.files import list_files
from tests.support.serve_trees import make_tree

GIVEN = Personal(script=b"#!/bin/sh\n", keymap="de")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("tree"))


def digests(tree: Path) -> dict[str, object]:
    return {path: digest_bytes((tree / path).read_bytes(), ["sha256"]) for path in list_files(tree)}


def test_nothing_given_is_the_tree_itself(tree: Path) -> None:
    with tree_with(tree, NO_PERSONAL) as shown:
        assert shown == tree


def test_the_view_has_files_and_words_and_ends(tree: Path) -> None:
    before = {
        path: digest_bytes((tree / path).read_bytes(), ["sha256"]) for path in list_files(tree)
    }
    with tree_with(tree, GIVEN) as shown:
        assert set(list_files(shown)) == before.keys()
        assert (shown / "boot/gentoo.igz").stat().st_size > (
            tree / "boot/gentoo.igz"
        ).stat().st_size
        script = (shown / "boot.ipxe").read_text()
        assert "set cmdline keymap=de rd.vconsole.keymap=de " in script
        assert "pxeboot.report" not in script  # no one would hear it
        assert (shown / "image.squashfs").is_symlink()
        assert shown.stat().st_mode & 0o777 == 0o755
    assert not shown.exists()
    assert digests(tree) == before


@pytest.mark.parametrize("given", [NO_PERSONAL, GIVEN])
def test_a_link_in_a_tree_is_refused(tree: Path, tmp_path: Path, given: Personal) -> None:
    """Who made the tree would have what it leads to sent to the client, which is theirs as well."""
    copy = shutil.copytree(tree, tmp_path / "tree")
    (copy / "boot/secret").symlink_to("/etc/hostname")
    with (
        pytest.raises(VerifyError, match="boot/secret: a symbolic link, which leads anywhere"),
        tree_with(copy, given),
    ):
        pass


def test_a_port_leads_to_the_client() -> None:
    link = UserLink(Path("/srv/tree"), "boot.ipxe", 2222)
    assert link.netdev.endswith(",bootfile=boot.ipxe,hostfwd=tcp:127.0.0.1:2222-:22")
    assert "hostfwd" not in UserLink(Path("/srv/tree"), "boot.ipxe").netdev
