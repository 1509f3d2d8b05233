"""What `verify` says of the initrd that streams a root, whoever wrote the manifest."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from catalyst_pxeboot.build import stream as build_stream
from catalyst_pxeboot.build.pipeline import build, make_plan
from catalyst_pxeboot.build.stream import read_certificates
from catalyst_pxeboot.formats.verity import BLOCK
from catalyst_pxeboot.spec.parse import parse_settings
from catalyst_pxeboot.stream.tools import NoTools
from catalyst_pxeboot.tree.verify import verify_tree
from catalyst_pxeboot.util.checksum import digest_bytes
from catalyst_pxeboot.util.errors import PxebootError
from tests.support import builders
from tests.support.stage2 import release_settings, storedir_stage2, write_stage2

ADDON = "boot/gentoo.net.cpio"
SQUASHFS = "image.squashfs"
HASHES = f"{SQUASHFS}.verity"


@pytest.fixture
def tree(tmp_path: Path, streaming: None, no_loaders: None) -> Path:
    return make_tree(tmp_path)


def make_tree(folder: Path, **keys: str) -> Path:
    write_stage2(
        storedir_stage2(folder),
        initramfs=builders.initramfs(builders.dracut_members()),
        squashfs=builders.squashfs_image(size=300 * BLOCK),
    )
    settings = release_settings(folder, **keys)
    return build(parse_settings(settings), report=lambda _line: None).output


def swap(tree: Path, name: str, change: Callable[[bytes], bytes]) -> list[str]:
    """Change a file as someone would who writes the manifest anew; return what is wrong then."""
    file = tree / name
    content = change(file.read_bytes())
    file.unlink()
    file.write_bytes(content)
    manifest: dict[str, Any] = json.loads((tree / "manifest.json").read_text())
    entry = next(entry for entry in manifest["files"] if entry["path"] == name)
    entry["digests"] = dict(digest_bytes(content, sorted(entry["digests"])))
    entry["bytes"] = len(content)
    (tree / "manifest.json").write_text(json.dumps(manifest))
    return [fault.message for fault in verify_tree(tree).faults if "DIGEST" not in fault.message]


def test_a_whole_tree(tree: Path) -> None:
    assert verify_tree(tree).faults == ()
    content = (tree / ADDON).read_bytes()
    assert b"pxeboot/tools.squashfs\0" in content and b"initqueue/settled/00-stream.sh\0" in content


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (SQUASHFS, lambda data: data[:-1] + b"!"),
        (ADDON, lambda data: data.replace(b" 300 4\n", b" 299 4\n")),
        (ADDON, lambda data: data.replace(b" 300 4\n", b" 300 5\n")),
        (ADDON, lambda data: data.replace(b"root.hash", b"root.hush")),
    ],
)
def test_another_root_or_another_root_hash(
    tree: Path, name: str, change: Callable[[bytes], bytes]
) -> None:
    faults = swap(tree, name, change)
    assert f"{ADDON}: it does not hold the root hash of {SQUASHFS}" in faults


@pytest.mark.parametrize(
    "change", [lambda data: data[:-1] + b"!", lambda data: data[:-4096], lambda data: data + b"!"]
)
def test_another_hash_tree(tree: Path, change: Callable[[bytes], bytes]) -> None:
    assert f"{HASHES}: it is not the hash tree of {SQUASHFS}" in swap(tree, HASHES, change)


def test_a_tree_without_its_hash_tree(tree: Path) -> None:
    manifest: dict[str, Any] = json.loads((tree / "manifest.json").read_text())
    manifest["files"] = [file for file in manifest["files"] if file["path"] != HASHES]
    (tree / "manifest.json").write_text(json.dumps(manifest))
    (tree / HASHES).unlink()
    faults = [fault.message for fault in verify_tree(tree).faults]
    assert f"{HASHES}: it is not the hash tree of {SQUASHFS}" in faults


def test_a_host_without_the_programs_makes_no_hash_tree(
    tmp_path: Path, streaming: None, no_loaders: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = NoTools("nbdkit", "not found on this host", "install nbdkit")
    monkeypatch.setattr(build_stream, "find_missing", lambda *_where: missing)
    tree = make_tree(tmp_path)
    assert not (tree / HASHES).exists() and not (tree / ADDON).exists()
    settings = release_settings(tmp_path)
    plan = make_plan(parse_settings(settings))
    assert any("nbdkit: not found on this host" in note for note in plan.notes)


def test_a_damaged_archive(tree: Path) -> None:
    faults = swap(tree, ADDON, lambda data: data[:5000])
    assert any(fault.startswith(f"{ADDON}: ends early") for fault in faults)


def test_the_certificates_are_in_the_addon(
    tmp_path: Path, streaming: None, no_loaders: None
) -> None:
    known = ssl.create_default_context().get_ca_certs(binary_form=True)
    if not known:
        pytest.skip("this machine trusts no certificate (ca-certificates)")
    file = tmp_path / "ca.pem"
    file.write_text(ssl.DER_cert_to_PEM_cert(known[0]))
    content = (make_tree(tmp_path, pxeboot__ca_file=str(file)) / ADDON).read_bytes()
    assert b"pxeboot/ca.pem\0" in content and file.read_bytes() in content


@pytest.mark.parametrize("content", [None, b"", b"no certificate", b"\xff\xfe", bytes(2 << 20)])
def test_what_is_no_certificate_is_refused(
    tmp_path: Path, content: bytes | None, streaming: None, no_loaders: None
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(PxebootError, match=r"^pxeboot/ca_file: .*ca\.pem"):
        read_certificates(file)
    with pytest.raises(PxebootError, match=r"^pxeboot/ca_file: "):
        make_tree(tmp_path / "store", pxeboot__ca_file=str(file))
    assert not list((tmp_path / "store").rglob("pxeboot-*"))
