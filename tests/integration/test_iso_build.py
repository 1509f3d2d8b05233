"""A netboot tree from an ISO: the same as from the folder that the ISO was made from."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import importlib
import json
import os
import struct
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from catalyst_pxeboot.build.pipeline import build, make_plan, parse_image
from catalyst_pxeboot.build.report import PAYLOAD, plan_lines
from catalyst_pxeboot.build.tree import Built
from catalyst_pxeboot.spec.names import default_output
from catalyst_pxeboot.spec.parse import Spec, check_keys, parse_folders, parse_settings
from catalyst_pxeboot.tree.verify import verify_tree
from catalyst_pxeboot.util.errors import PublishError, PxebootError, SourceError, SpecError
from catalyst_pxeboot.util.files import list_files
from catalyst_pxeboot.util.text import size
from tests.golden.test_golden import MEMTEST, NETWORK
from tests.integration.test_bad_input import snapshot
from tests.integration.test_target import catalyst, needs_catalyst, run_target
from tests.integration.test_target import installed as installed  # a fixture
from tests.support import builders
from tests.support.iso import plain_iso, rescue_iso
from tests.support.stage2 import SPEC, STAMP, release_settings, storedir_stage2, write_stage2

NAME = f"install-amd64-minimal-{STAMP}.iso"
CONF: dict[str, object] = {"digests": ["blake2b", "sha512"]}


@pytest.fixture(autouse=True)
def scratch(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """Let temporary folders be made in one of the test's, which must be empty at its end."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture(scope="session")
def stage2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a stage2 folder with all that a tree can have."""
    folder = tmp_path_factory.mktemp("iso-build") / f"livecd-stage2-amd64-{STAMP}"
    return write_stage2(
        folder,
        initramfs=builders.initramfs(NETWORK, "none"),
        squashfs=builders.squashfs_image() + os.urandom(5 << 20),
        extra=MEMTEST,
    )


@pytest.fixture(scope="session")
def iso(stage2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plain_iso(stage2, tmp_path_factory.mktemp("iso-build") / NAME)


def quiet(_line: str) -> None:
    pass


def build_from(source: Path, output: Path, **keys: object) -> Built:
    settings = CONF | {key.replace("__", "/"): value for key, value in keys.items()}
    return build(parse_folders(source, output, settings), report=quiet)


@pytest.mark.usefixtures("no_loaders")
@pytest.mark.parametrize("make", [rescue_iso, plain_iso])
def test_the_same_tree_as_from_the_folder(make: Any, stage2: Path, tmp_path: Path) -> None:
    source = make(stage2, tmp_path / NAME)
    before = snapshot(tmp_path)
    # The kind of image is in an ISO's name and in its spec, not in a folder's name.
    build_from(stage2, tmp_path / "from-folder", livecd__type="gentoo-release-minimal")
    built = build_from(source, tmp_path / "from-iso")
    assert snapshot(tmp_path / "from-iso") == snapshot(tmp_path / "from-folder")
    assert verify_tree(tmp_path / "from-iso").faults == ()
    assert before.items() <= snapshot(tmp_path).items()
    manifest = json.loads((tmp_path / "from-iso/manifest.json").read_text())
    assert manifest["release"]["title"] == "Gentoo Linux amd64 minimal (2026-11-22)"
    assert all(file.written == file.bytes for file in built.files)


@pytest.mark.usefixtures("no_loaders")
def test_kernels_that_are_unpacked_and_device_trees(tmp_path: Path) -> None:
    """What is made of the small files is made of those that were unpacked for a look."""
    folder = write_stage2(
        tmp_path / f"livecd-stage2-arm64-{STAMP}",
        kernel=builders.zboot_image(),
        grub_cfg="arm64-dracut.cfg",
        extra={"boot/dtbs/a/board.dtb": b"\xd0\x0d\xfe\xed" * 4},
    )
    source = plain_iso(folder, tmp_path / f"install-arm64-minimal-{STAMP}.iso")
    loaders = ["grub", "uboot"]
    live = "gentoo-release-minimal"
    build_from(folder, tmp_path / "from-folder", pxeboot__loaders=loaders, livecd__type=live)
    build_from(source, tmp_path / "from-iso", pxeboot__loaders=loaders)
    assert snapshot(tmp_path / "from-iso") == snapshot(tmp_path / "from-folder")
    assert (tmp_path / "from-iso/boot/gentoo.Image").is_file()


@pytest.mark.usefixtures("no_loaders")
def test_dry_run_is_the_same_and_writes_nothing(stage2: Path, iso: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    before = snapshot(tmp_path)
    from_iso = list(plan_lines(make_plan(parse_folders(iso, output, CONF))))
    spec = parse_folders(stage2, output, {**CONF, "livecd/type": "gentoo-release-minimal"})
    from_folder = list(plan_lines(make_plan(spec)))
    assert from_iso[0] == f"source   {iso}"
    assert from_iso[1:] == from_folder[1:]
    assert snapshot(tmp_path) == before


# What it is told, and when -----------------------------------------------------------------------


@pytest.mark.usefixtures("no_loaders")
def test_steps_and_progress(iso: Path, tmp_path: Path) -> None:
    source = tmp_path / NAME
    source.write_bytes(iso.read_bytes())
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    source.with_name(f"{NAME}.sha256").write_text(f"# SHA256 HASH\n{digest}  {NAME}\n")
    lines: list[str] = []
    told: dict[str, list[tuple[int, int]]] = {}
    build(
        parse_folders(source, tmp_path / "out", CONF), report=lines.append,
        progress=lambda what, done, total: told.setdefault(what, []).append((done, total)),
    )  # fmt: skip
    assert lines[:4] == [
        f"Checking {NAME}, {size(source.stat().st_size)}, by {NAME}.sha256",
        f"Digests of {NAME}: good (sha256)",
        f"Reading {source}",
        "Staging 5 payload files",
    ]
    assert told.keys() == {f"Checking {NAME}", "Staging the live root"}
    assert told[f"Checking {NAME}"][-1] == (source.stat().st_size, source.stat().st_size)
    root = (tmp_path / "out/image.squashfs").stat().st_size
    assert told["Staging the live root"][-1] == (root, root)


def test_a_wrong_digest_ends_it_before_anything_is_read(iso: Path, tmp_path: Path) -> None:
    source = tmp_path / NAME
    source.write_bytes(iso.read_bytes())
    side = source.with_name(f"{NAME}.DIGESTS")
    side.write_text(f"# SHA256 HASH\n{'0' * 64}  {NAME}\n")
    before = snapshot(tmp_path)
    lines: list[str] = []
    for act in (make_plan, build):
        with pytest.raises(SourceError) as raised:
            act(parse_folders(source, tmp_path / "out", CONF), report=lines.append)
        assert str(raised.value).startswith(f"{source}: {side.name} says sha256 0000")
    assert set(lines) == {f"Checking {NAME}, {size(source.stat().st_size)}, by {side.name}"}
    assert snapshot(tmp_path) == before


@pytest.mark.usefixtures("no_loaders")
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(errno.ENOSPC, "No space left")])
def test_nothing_stays_of_what_failed(iso: Path, tmp_path: Path, error: BaseException) -> None:
    before = snapshot(tmp_path)
    spec = parse_folders(iso, tmp_path / "out", CONF)

    def unlucky(_what: str, done: int, _total: int) -> None:
        if done > 1 << 20:
            raise error

    with pytest.raises((KeyboardInterrupt, PublishError)):
        build(spec, report=quiet, progress=unlucky)
    assert snapshot(tmp_path) == before


# Cloned, not copied ------------------------------------------------------------------------------


def clone_by(block: int, copy: int, request: int, order: bytes) -> int:
    """Do as btrfs and XFS do; refuse what they refuse, with `block` for their blocks."""
    assert request == 0x4020940D
    source, offset, length, target = struct.unpack("@qQQQ", order)
    if offset % block or length % 4096 or target or not length:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    os.pwrite(copy, os.pread(source, length, offset), target)
    return 0


@pytest.mark.usefixtures("no_loaders")
@pytest.mark.parametrize("link", ["auto", "reflink"])
def test_clones(
    iso: Path, stage2: Path, tmp_path: Path, link: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "ioctl", partial(clone_by, 2048))
    built = build_from(iso, tmp_path / "out", pxeboot__link=link)
    payload = {file.path: file for file in built.files if file.role in PAYLOAD}
    assert {"boot/gentoo", "boot/gentoo.igz", "image.squashfs"} < payload.keys()
    for path, file in payload.items():
        assert file.written == file.bytes % 4096, path
        assert (tmp_path / "out" / path).read_bytes() == (stage2 / path).read_bytes()
    assert verify_tree(tmp_path / "out").faults == ()


@pytest.mark.usefixtures("no_loaders")
def test_what_lies_across_blocks_is_copied(
    iso: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "ioctl", partial(clone_by, 1 << 30))
    built = build_from(iso, tmp_path / "out")
    assert all(file.written == file.bytes for file in built.files)
    assert verify_tree(tmp_path / "out").faults == ()
    with pytest.raises(PublishError) as raised:
        build_from(iso, tmp_path / "other", pxeboot__link="reflink")
    assert str(raised.value) == (
        f"pxeboot/link: {iso} cannot be taken over by reflink: Invalid argument; use auto"
    )


def test_no_hard_links_to_what_lies_in_an_iso(iso: Path, tmp_path: Path) -> None:
    spec = parse_folders(iso, tmp_path / "out", CONF | {"pxeboot/link": "hardlink"})
    for act in (make_plan, lambda spec: build(spec, report=quiet)):
        with pytest.raises(PublishError) as raised:
            act(spec)
        assert str(raised.value) == (
            f"pxeboot/link: {iso} is an ISO, and there are no hard links to what is in one;"
            " use auto, which clones or copies"
        )


@pytest.mark.usefixtures("no_loaders")
def test_an_iso_that_changes_while_it_is_copied(iso: Path, tmp_path: Path) -> None:
    source = tmp_path / NAME
    source.write_bytes(iso.read_bytes())

    def touch(_what: str, _done: int, _total: int) -> None:
        os.utime(source, (1, 1))

    with pytest.raises(SourceError) as raised:
        build(parse_folders(source, tmp_path / "out", CONF), report=quiet, progress=touch)
    assert str(raised.value).endswith("; wait until the ISO is complete, then build again")
    assert not (tmp_path / "out").exists()


# By a spec ---------------------------------------------------------------------------------------


def iso_settings(storedir: Path, word: str, **changes: object) -> dict[str, object]:
    settings = release_settings(storedir, pxeboot__iso=word, **changes)
    del settings["source_subpath"]
    return settings


@pytest.fixture
def iso_store(stage2: Path, iso: Path, tmp_path: Path) -> Path:
    """Return a storedir with an ISO where catalyst's release builders have it."""
    builds = tmp_path / "store/builds/23.0-default"
    builds.mkdir(parents=True)
    (builds / NAME).write_bytes(iso.read_bytes())
    return tmp_path / "store"


@pytest.mark.usefixtures("no_loaders")
@pytest.mark.parametrize("where", ["below", "anywhere"])
def test_the_target_builds_from_an_iso(
    iso_store: Path, stage2: Path, tmp_path: Path, where: str
) -> None:
    pxeboot = importlib.import_module("catalyst.targets.pxeboot").pxeboot
    word = f"23.0-default/{NAME}"
    if where == "anywhere":
        word = str(iso_store / "builds" / word)
    assert run_target(pxeboot, iso_settings(iso_store, word)) is True
    output = iso_store / "builds/23.0-default" / f"pxeboot-amd64-{STAMP}"
    other = tmp_path / "other"
    write_stage2(
        storedir_stage2(other), initramfs=builders.initramfs(NETWORK, "none"), extra=MEMTEST,
        squashfs=(stage2 / "image.squashfs").read_bytes(),
    )  # fmt: skip
    assert run_target(pxeboot, release_settings(other)) is True
    folder = other / "builds/23.0-default" / f"pxeboot-amd64-{STAMP}"
    assert snapshot(output) == snapshot(folder)
    assert list_files(output)


@pytest.mark.catalyst
@needs_catalyst
def test_real_catalyst_builds_from_an_iso(installed: Path, iso_store: Path) -> None:
    lines = [line for line in SPEC.splitlines() if not line.startswith("source_subpath")]
    lines.append(f"pxeboot/iso: 23.0-default/{NAME}")
    done = catalyst(installed, iso_store, "\n".join(lines) + "\n")
    assert done.returncode == 0, done.stdout + done.stderr
    output = iso_store / "builds/23.0-default" / f"pxeboot-amd64-{STAMP}"
    assert f"Published {output} in " in done.stdout
    assert verify_tree(output).faults == ()
    done = catalyst(installed, iso_store, "\n".join(lines[:-1]) + "\n")
    assert done.returncode == 2
    assert "source_subpath: this spec key is missing" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source_subpath": "x/y"},
         "pxeboot/iso: is given beside source_subpath; name the ISO or the folder"),
        ({"pxeboot/iso": "../x.iso"},
         "pxeboot/iso: '../x.iso' leads out of <storedir>/builds; give a path below it"),
        ({"pxeboot/keyring": "keys.gpg"},
         "pxeboot/keyring: 'keys.gpg' is not an absolute path; write it from the root, /"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_the_keys(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(SpecError) as raised:
        parse_settings(iso_settings(tmp_path, "x.iso") | changes)
    assert str(raised.value) == message


def test_one_of_the_two_is_needed(tmp_path: Path) -> None:
    keys = {"subarch", "version_stamp", "target", "rel_type"}
    check_keys({*keys, "pxeboot/iso"})
    check_keys({*keys, "source_subpath"})
    message = "source_subpath: this spec key is missing"
    with pytest.raises(SpecError, match=message):
        check_keys(keys)
    settings = release_settings(tmp_path)
    del settings["source_subpath"]
    with pytest.raises(SpecError, match=message):
        parse_settings(settings)
    with pytest.raises(SpecError) as raised:
        parse_folders(tmp_path / NAME, tmp_path / "out", {"pxeboot/iso": "x.iso"})
    assert str(raised.value) == (f"pxeboot/iso: the source is {tmp_path / NAME}; name one of them")


def test_a_keyring_for_a_folder(stage2: Path, tmp_path: Path) -> None:
    spec = parse_folders(stage2, tmp_path / "out", {"pxeboot/keyring": "/keys.gpg"})
    with pytest.raises(SourceError) as raised:
        make_plan(spec)
    assert str(raised.value) == (
        f"pxeboot/keyring: {stage2} is not an ISO, and nothing else is signed; leave it out"
    )


# By name -----------------------------------------------------------------------------------------


def named(name: str, **settings: object) -> Spec:
    return parse_folders(Path("/srv") / name, Path("/out"), settings)


def test_release_type_by_place() -> None:
    assert named(f"builds/23.0-default/{NAME}").rel_type == "23.0-default"
    assert named(NAME).rel_type == ""


def test_what_was_said_counts_more(tmp_path: Path) -> None:
    spec = named(f"x86-64-{STAMP}.iso", subarch="amd64")
    assert (spec.subarch, spec.version_stamp) == ("amd64", STAMP)
    assert named(NAME, version_stamp="7").version_stamp == "7"


@pytest.mark.parametrize("name", [f"live-{STAMP}.iso", f"x86-64-{STAMP}.iso", "image"])
def test_a_name_that_does_not_tell(iso: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.symlink_to(iso)
    spec = parse_image(path, tmp_path / "out", {})
    assert spec.subarch == "amd64"
    assert spec.version_stamp == (STAMP if STAMP in name else "20261122")  # else the label's
    assert spec.notes == (f"subarch amd64: by its kernel, as the name {name} does not have it",)


def test_a_name_that_does_not_tell_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(PxebootError) as raised:
        parse_image(tmp_path / "live.iso", tmp_path / "out", {})
    assert str(raised.value) == f"{tmp_path / 'live.iso'}: no such ISO; check the path"


def test_where_a_tree_goes_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stem = NAME.removesuffix(".iso")
    assert default_output(Path("/srv") / NAME) == tmp_path / f"{stem}-netboot"
    assert default_output(Path("x.ISO")) == tmp_path / "x-netboot"
    assert default_output(Path("../livecd-stage2-amd64-1/")) == (
        tmp_path / "livecd-stage2-amd64-1-netboot"
    )
    assert default_output(Path()) == tmp_path / f"{tmp_path.name}-netboot"
