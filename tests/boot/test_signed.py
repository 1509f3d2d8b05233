"""Signed trees boot, and a changed one does not: GRUB's check_signatures, by the tree's own key."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boot.test_loaders import GRUB_BIOS, GRUB_EFI, assert_boots, boot, changed, make_tree
from tests.support.boot import Client
from tests.unit.formats.signing.test_openpgp import Keyring

pytestmark = [
    pytest.mark.skipif(not shutil.which("gpg"), reason="no gpg"),
]


@pytest.fixture(scope="module")
def signed_tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="pg") as home:
        ring = Keyring(Path(home))
        before = os.environ.get("GNUPGHOME")
        os.environ["GNUPGHOME"] = home
        try:
            ring.make("release")
            folder = tmp_path_factory.mktemp("signed")
            yield make_tree(folder, "genkernel-like", pxeboot__gpg_key="release@example.org")
        finally:
            ring.forget()
            if before is None:
                del os.environ["GNUPGHOME"]
            else:
                os.environ["GNUPGHOME"] = before


@pytest.mark.parametrize("client", [GRUB_BIOS, GRUB_EFI], ids=lambda client: client.name)
def test_a_signed_tree_boots(signed_tree: Path, client: Client) -> None:
    assert_boots(signed_tree, client)


def flipped(tree: Path, copy: Path, name: str) -> Path:
    """Return a copy of the tree with one bit of a file changed."""
    copied = changed(tree, copy)
    content = bytearray((copied / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / name).write_bytes(content)
    return copied


def test_a_flipped_byte_is_refused(signed_tree: Path, tmp_path: Path) -> None:
    tree = flipped(signed_tree, tmp_path / "tree", "image.squashfs")
    result = boot(tree, GRUB_EFI, timeout=60)
    assert not result.passed
    assert "bad signature" in "\n".join(result.console_tail), result.console_tail


@pytest.mark.more
def test_a_changed_menu_is_not_shown(signed_tree: Path, tmp_path: Path) -> None:
    """GRUB says nothing of it and shows its prompt, which opens signed files only."""
    tree = flipped(signed_tree, tmp_path / "tree", "boot/grub/grub.cfg")
    result = boot(tree, GRUB_EFI, timeout=60)
    assert not result.passed
    assert result.reason == "the console shows 'grub> '"


@pytest.mark.more
def test_a_missing_signature_is_refused(signed_tree: Path, tmp_path: Path) -> None:
    tree = changed(signed_tree, tmp_path / "tree")
    (tree / "boot/gentoo.sig").unlink()
    result = boot(tree, GRUB_EFI, timeout=60)
    assert not result.passed
    console = "\n".join(result.console_tail)
    assert "File not found" in console and "Signatures are checked" in console, console
