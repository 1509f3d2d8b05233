"""Loose settings become one checked Spec."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalyst_pxeboot.build.pipeline import parse_image
from catalyst_pxeboot.model.arch import all_arches, find_arch
from catalyst_pxeboot.model.loader import Loader
from catalyst_pxeboot.model.settings import LinkMode, Serial, Server
from catalyst_pxeboot.spec.keys import ignored_warnings, known_keys, tables
from catalyst_pxeboot.spec.parse import check_keys, parse_folders, parse_settings
from catalyst_pxeboot.util.errors import SourceError, SpecError
from tests.support.stage2 import STAMP, release_settings, write_stage2


def test_release_spec(tmp_path: Path) -> None:
    spec = parse_settings(release_settings(tmp_path))
    builds = tmp_path / "builds/23.0-default"
    assert spec.arch.name == "amd64"
    assert spec.source == builds / f"livecd-stage2-amd64-{STAMP}"
    assert spec.output == builds / f"pxeboot-amd64-{STAMP}"
    assert spec.title == "Gentoo Linux amd64 (2026-11-22)"
    assert spec.kernels == ()
    assert spec.bootargs is None
    assert spec.timeout is None
    assert spec.loaders == (Loader.IPXE, Loader.PXELINUX, Loader.GRUB)
    assert spec.link is LinkMode.AUTO
    assert spec.digests == ("blake2b", "sha512")


def test_every_key(tmp_path: Path) -> None:
    spec = parse_settings(
        release_settings(
            tmp_path,
            boot__kernel=["gentoo", "rescue"],
            boot__kernel__gentoo__console=["ttyS0,115200", "tty0"],
            livecd__bootargs="dokeymap",
            pxeboot__bootargs=["quiet", "splash"],
            pxeboot__title=["My", "rescue", "image"],
            pxeboot__timeout="-1",
            pxeboot__loaders=["grub", "ipxe", "grub"],
            pxeboot__loader_path=str(tmp_path),
            pxeboot__serial="ttyS1,9600n8",
            pxeboot__link="copy",
            pxeboot__templates=str(tmp_path),
            digest_format="bsd",
        )
    )
    assert spec.kernels == ("gentoo", "rescue")
    assert spec.consoles == {"gentoo": ("ttyS0,115200", "tty0")}
    assert spec.bootargs == ("dokeymap",)
    assert spec.extra_bootargs == ("quiet", "splash")
    assert spec.title == "My rescue image"
    assert spec.timeout == -1
    assert spec.loaders == (Loader.GRUB, Loader.IPXE)
    assert spec.loader_path == (tmp_path,)
    assert spec.serial == Serial("ttyS1", 9600)
    assert spec.serial.unit == 1
    assert spec.link is LinkMode.COPY
    assert spec.templates == tmp_path
    assert spec.digest_format == "bsd"


def test_server(tmp_path: Path) -> None:
    def server(*words: str) -> Server | None:
        return parse_settings(release_settings(tmp_path, pxeboot__server=list(words))).server

    assert server("10.1.2.3") == Server("10.1.2.3", "255.255.255.0", "10.1.2.100", "10.1.2.199")
    assert server(
        "192.168.1.1/25", "range=192.168.1.9-192.168.1.20", "interface=lan0", "http_port=8080",
        "http_prefix=gentoo", "tftp_prefix=t", "tftp_root=/srv",
    ) == Server(
        "192.168.1.1", "255.255.255.128", "192.168.1.9", "192.168.1.20", "lan0", 8080, "gentoo",
        "t", "/srv",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["pxe.example"],
            "'pxe.example' is not an IPv4 address with a network's length; write it as"
            " 192.168.1.1/24",
        ),
        (
            ["10.1.2.3", "intrface=x"],
            "'intrface=x' is unknown (did you mean 'interface'?); after the address write"
            " range=…, interface=…, http_port=…, http_prefix=…, tftp_prefix=…, tftp_root=…",
        ),
        (["10.1.2.3", "http_port=www"], "'www' is not an HTTP port; write http_port=80"),
    ],
)
def test_a_server_that_is_wrong(tmp_path: Path, words: list[str], message: str) -> None:
    with pytest.raises(SpecError) as raised:
        parse_settings(release_settings(tmp_path, pxeboot__server=words))
    assert str(raised.value) == f"pxeboot/server: {message}"


def test_none_and_absent_are_the_same(tmp_path: Path) -> None:
    keys = ("pxeboot/timeout", "pxeboot/title", "livecd/bootargs", "pxeboot/serial", "boot/kernel")
    settings = release_settings(tmp_path)
    assert parse_settings(settings | dict.fromkeys(keys)) == parse_settings(settings)


def test_no_digests(tmp_path: Path) -> None:
    settings = release_settings(tmp_path)
    del settings["digests"]
    assert parse_settings(settings).digests == ()


@pytest.mark.parametrize(
    ("folder", "subarch", "stamp", "rel_type"),
    [
        (f"builds/23.0-default/livecd-stage2-amd64-{STAMP}", "amd64", STAMP, "23.0-default"),
        ("builds/rel/livecd-stage2-k8-sse3-plasma-2026", "k8-sse3", "plasma-2026", "rel"),
        ("livecd-stage2-i486-openrc-2026", "i486", "openrc-2026", ""),
    ],
)
def test_folders_tell_by_their_names(
    tmp_path: Path, folder: str, subarch: str, stamp: str, rel_type: str
) -> None:
    spec = parse_folders(tmp_path / folder, tmp_path / "out", {})
    assert (spec.subarch, spec.version_stamp, spec.rel_type) == (subarch, stamp, rel_type)
    assert spec.source == tmp_path / folder
    assert spec.output == tmp_path / "out"


def test_a_folder_of_any_name_tells_by_its_kernel(tmp_path: Path) -> None:
    write_stage2(tmp_path / "live")
    spec = parse_image(tmp_path / "live", tmp_path / "out", {})
    assert (spec.arch.name, spec.version_stamp) == ("amd64", "")
    assert spec.notes == ("subarch amd64: by its kernel, as the name live does not have it",)


def test_a_tree_is_not_written_into_its_source(tmp_path: Path) -> None:
    write_stage2(tmp_path / "live")
    (tmp_path / "link").symlink_to("live")
    output = tmp_path / "link/boot/tree"
    with pytest.raises(SpecError) as raised:
        parse_folders(tmp_path / "live", output, {"subarch": "amd64"})
    assert str(raised.value) == f"output: {output} lies in the source; give a folder elsewhere"


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as raised:
        parse_image(tmp_path / "live", tmp_path / "out", {})
    assert str(raised.value) == (
        f"{tmp_path}/live: no such livecd-stage2 build;"
        " check the path, or run catalyst on the livecd-stage2 spec first"
    )
    spec = parse_folders(tmp_path / "live", tmp_path / "out", {"subarch": "arm64"})
    assert (spec.arch.name, spec.version_stamp) == ("arm64", "")
    assert spec.title == "Gentoo Linux arm64"


#: source_subpath, version_stamp and livecd/type of release engineering's stage2 specs, and where
#: the stage2 build lies that catalyst makes of each.
RELEASE_SPECS = [
    ("amd64", f"livecd-stage1-amd64-{STAMP}", STAMP, "gentoo-release-minimal", "minimal"),
    ("amd64", f"livecd-stage1-amd64-plasma-{STAMP}", f"plasma-{STAMP}", "gentoo-release-livecd",
     "livecd"),
    ("arm64", f"livecd-stage1-arm64-{STAMP}.tar.xz", STAMP, "gentoo-release-minimal", "minimal"),
    ("i486", f"livecd-stage1-i486-openrc-{STAMP}", f"openrc-{STAMP}", "gentoo-release-minimal",
     "minimal"),
    ("rv64_lp64d", f"livecd-stage1-rv64_lp64d-{STAMP}.tar.xz", STAMP, "gentoo-release-minimal",
     "minimal"),
]  # fmt: skip


@pytest.mark.parametrize(("subarch", "seed", "stamp", "kind", "title"), RELEASE_SPECS)
def test_a_stage2_spec_with_another_target(
    tmp_path: Path, subarch: str, seed: str, stamp: str, kind: str, title: str
) -> None:
    spec = parse_settings(
        {
            "storedir": str(tmp_path), "subarch": subarch, "version_stamp": stamp,
            "target": "pxeboot", "rel_type": "23.0-default", "livecd/type": kind,
            "source_subpath": f"23.0-default/{seed}", "digests": ["sha512"],
        }
    )  # fmt: skip
    stage2 = f"23.0-default/livecd-stage2-{subarch}-{stamp}"
    assert spec.source == tmp_path / "builds" / stage2
    assert spec.title == f"Gentoo Linux {subarch} {title} (2026-11-22)"
    assert spec.notes == (
        f"source_subpath: {seed} is what livecd-stage2 begins with; taking {stage2}",
    )


@pytest.mark.parametrize("ending", [".tar.xz", ".tar.zst", ".tar.bz2", ".tar.gz", ".squashfs", ""])
def test_a_packed_source_means_its_folder(tmp_path: Path, ending: str) -> None:
    folder = tmp_path / f"builds/23.0-default/livecd-stage2-amd64-{STAMP}"
    settings = release_settings(tmp_path, source_subpath=f"23.0-default/{folder.name}{ending}")
    assert parse_settings(settings).source == folder
    folder.mkdir(parents=True)
    folder.with_name(folder.name + ending).mkdir(exist_ok=True)
    assert parse_settings(settings).source == folder


def test_keys_that_mean_nothing_are_named() -> None:
    keys = ["target", "profile", "livecd/type", "boot/kernel/gentoo/sources", "boot/kernel"]
    assert ignored_warnings(keys) == (
        "profile: means nothing to the target pxeboot",
        "boot/kernel/gentoo/sources: means nothing to the target pxeboot",
    )


def test_keys_of_release_specs_are_known() -> None:
    keys = set(release_settings(Path("/x"))) - {"storedir", "digests", "digest_format", "options"}
    keys |= {
        "portage_confdir", "compression_mode", "pkgcache_path", "interpreter", "repos",
        "keep_repos", "livecd/bootargs", "livecd/volid", "livecd/fstype", "livecd/iso",
        "livecd/type", "livecd/cdtar", "livecd/rcadd", "livecd/gk_mainargs", "livecd/fsscript",
        "livecd/depclean", "boot/kernel", "boot/kernel/gentoo/distkernel",
        "boot/kernel/gentoo/dracut_args", "boot/kernel/gentoo/config",
        "boot/kernel/gentoo/packages", "boot/kernel/gentoo/console",
    }  # fmt: skip
    check_keys(keys)


def test_unknown_keys_name_the_nearest() -> None:
    keys = [*tables()["required"], "pxeboot/bootarg", "livecd/bootarg", "http", "frobnicate"]
    with pytest.raises(SpecError) as raised:
        check_keys(keys)
    assert [str(problem) for problem in raised.value.problems] == [
        "pxeboot/bootarg: no such spec key (did you mean 'pxeboot/bootargs'?);"
        " correct or remove it",
        "livecd/bootarg: no such spec key (did you mean 'livecd/bootargs'?); correct or remove it",
        "http: no such spec key; a value that holds a colon must stand on its key's own line",
        "frobnicate: no such spec key; correct or remove it",
    ]


def test_missing_keys_are_named() -> None:
    with pytest.raises(SpecError) as raised:
        check_keys(["subarch", "target", "rel_type"])
    assert [str(problem) for problem in raised.value.problems] == [
        "source_subpath: this spec key is missing; add it, see the README",
        "version_stamp: this spec key is missing; add it, see the README",
    ]


def test_per_kernel_keys_need_a_known_end() -> None:
    assert "boot/kernel/x/config" in known_keys(["boot/kernel/x/config"])
    assert "boot/kernel/x/colour" not in known_keys(["boot/kernel/x/colour"])


def test_subarches_belong_to_one_architecture() -> None:
    names = [name for arch in all_arches() for name in arch.subarches]
    assert len(names) == len(set(names))
    assert find_arch("i486").name == "x86"
    assert find_arch("armv7a_hardfp").name == "arm"
    assert {arch.name for arch in all_arches()} >= {"amd64", "x86", "arm64", "arm"}
