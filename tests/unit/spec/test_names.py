"""What names of images say: stamp, subarch, kind, title."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalyst_pxeboot.spec.names import default_output, read_name
from catalyst_pxeboot.spec.parse import parse_folders
from catalyst_pxeboot.util.errors import SourceError, SpecError

STAMP = "20261122T170000Z"
MINIMAL = f"install-amd64-minimal-{STAMP}"
IS = "amd64 minimal (2026-11-22)"


def write_label(path: Path, label: str) -> Path:
    """Write a file that has no more of an ISO than its volume's label."""
    path.write_bytes(bytes(32768) + b"\1CD001\1\0" + bytes(32) + label.ljust(32).encode())
    return path


@pytest.mark.parametrize(
    ("name", "subarch", "stamp", "title"),
    [
        (f"{MINIMAL}.iso", "amd64", STAMP, IS),
        (f"{MINIMAL} (1).iso", "amd64", STAMP, IS),
        (f"{MINIMAL}(2).iso", "amd64", STAMP, IS),
        (f"{MINIMAL} (copy 1).iso", "amd64", STAMP, IS),
        (f"{MINIMAL} - Copy.iso", "amd64", STAMP, IS),
        (f"{MINIMAL} - Copy (3).iso", "amd64", STAMP, IS),
        (f"{MINIMAL} copy 2.iso", "amd64", STAMP, IS),
        (f"{MINIMAL} 2.iso", "amd64", STAMP, IS),
        (f"{MINIMAL}.iso.1", "amd64", STAMP, IS),
        (f"{MINIMAL.upper()}.ISO", "amd64", STAMP, IS),
        (f"{MINIMAL.lower()}.iso", "amd64", STAMP, IS),
        (f"Gentoo_{MINIMAL}.iso", "amd64", STAMP, IS),
        (f"{STAMP} amd64 minimal.iso", "amd64", STAMP, IS),
        (f"{MINIMAL}-signed.iso", "amd64", STAMP, IS),
        (f"livegui-amd64-{STAMP} (10).iso", "amd64", STAMP, "amd64 livegui (2026-11-22)"),
        ("livegui-amd64-20261122.ISO", "amd64", "20261122", "amd64 livegui (2026-11-22)"),
        (f"admincd-amd64-{STAMP}.iso", "amd64", STAMP, "amd64 admincd (2026-11-22)"),
        ("admincd-k8-sse3-2026.1.iso", "k8-sse3", "2026.1", "k8-sse3 admincd 2026.1"),
        ("install-arm64-minimal-latest.iso", "arm64", "latest", "arm64 minimal latest"),
        (f"install-x86-minimal-{STAMP}_1.iso", "x86", STAMP, "x86 minimal (2026-11-22)"),
        (f"livecd-stage2-i686-{STAMP}.iso", "i686", STAMP, "i686 livecd (2026-11-22)"),
        ("amd64.iso", "amd64", "", "amd64"),
        ("my amd64 image 7.iso", "amd64", "", "amd64"),
    ],
)
def test_names_of_isos(tmp_path: Path, name: str, subarch: str, stamp: str, title: str) -> None:
    path = write_label(tmp_path / name, "")
    spec = parse_folders(path, tmp_path / "out", {})
    assert (spec.subarch, spec.version_stamp, spec.notes) == (subarch, stamp, ())
    assert spec.title == f"Gentoo Linux {title}"


@pytest.mark.parametrize("ending", ["part", "crdownload", "download", "partial", "aria2"])
def test_a_download_that_is_under_way(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"{MINIMAL}.iso.{ending}"
    with pytest.raises(SourceError) as raised:
        parse_folders(path, tmp_path / "out", {})
    assert str(raised.value) == (
        f"{path}: is a download that is not finished; wait for it, or start it again"
    )


def test_a_name_that_says_nothing_leaves_it_to_the_volume(tmp_path: Path) -> None:
    path = write_label(tmp_path / "amd64.iso", "Gentoo-amd64-livegui-20261122")
    spec = parse_folders(path, tmp_path / "out", {})
    assert spec.version_stamp == "20261122"
    assert spec.title == "Gentoo Linux amd64 livegui (2026-11-22)"


@pytest.mark.parametrize(
    ("stamp", "settings", "title"),
    [
        (STAMP, {}, "amd64 (2026-11-22)"),
        (STAMP, {"livecd/type": "gentoo-release-minimal"}, IS),
        (f"plasma-{STAMP}", {}, "amd64 plasma (2026-11-22)"),
        (f"openrc-{STAMP}", {"livecd/type": "gentoo-release-minimal"}, IS),
        (STAMP, {"livecd/volid": "gentoo-amd64-livegui"}, "amd64 livegui (2026-11-22)"),
        (STAMP, {"livecd/type": "generic-livecd"}, "amd64 (2026-11-22)"),
        (STAMP, {"livecd/type": "gentoo-release-minimal", "pxeboot/title": "Mine"}, None),
        ("test", {}, "amd64 test"),
    ],
)
def test_titles_of_folders(
    tmp_path: Path, stamp: str, settings: dict[str, object], title: str | None
) -> None:
    folder = tmp_path / f"livecd-stage2-amd64-{stamp}"
    spec = parse_folders(folder, tmp_path / "out", settings)
    assert spec.version_stamp == stamp
    assert spec.title == (f"Gentoo Linux {title}" if title else "Mine")


def test_a_label_is_only_read_of_an_iso(tmp_path: Path) -> None:
    (tmp_path / "amd64.iso").write_bytes(b"no ISO, minimal-20261122" * 2000)
    assert read_name(tmp_path / "amd64.iso", "", iso=True) == {"subarch": "amd64"}
    assert default_output(Path("x.iso.2")).name == "x-netboot"


def test_a_type_that_would_write_to_the_terminal(tmp_path: Path) -> None:
    settings: dict[str, object] = {"livecd/type": "gentoo-release-\x1b]0;x\x07"}
    with pytest.raises(SpecError, match=r"livecd/type: .* holds a control character"):
        parse_folders(tmp_path / f"livecd-stage2-amd64-{STAMP}", tmp_path / "out", settings)
