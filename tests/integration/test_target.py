"""The catalyst door: against the stand-in always, against real catalyst where it is."""

from __future__ import annotations

import importlib
import logging
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from catalyst_pxeboot.tree.verify import verify_tree
from catalyst_pxeboot.util.files import list_files
from tests.golden.test_golden import NETWORK
from tests.integration.test_bad_input import snapshot
from tests.support import builders
from tests.support.efi import efi_program
from tests.support.paths import ROOT
from tests.support.stage2 import SPEC, STAMP, release_settings, storedir_stage2, write_stage2

CONF_KEYS = ("storedir", "digests", "digest_format", "options")
RELEASE_KEYS = {
    "portage_confdir": "/releases/portage/isos",
    "compression_mode": "pixz_x",
    "interpreter": "",
    "pkgcache_path": "/tmp/packages",
    "repos": ["/a", "/b"],
    "livecd/volid": "Gentoo-amd64-20261122",
    "boot/kernel": "gentoo",
    "boot/kernel/gentoo/dracut_args": ["--xz", "-a", "dmsquash-live"],
}


@pytest.fixture
def target_class() -> Any:
    """Return the class as catalyst finds it: by its module's name."""
    return importlib.import_module("catalyst.targets.pxeboot").pxeboot


def run_target(target_class: Any, settings: dict[str, object], *options: str) -> bool:
    conf = {key: settings.pop(key) for key in CONF_KEYS if key in settings}
    conf["options"] = list(options)
    return bool(target_class(conf, settings).run())


def test_builds_the_tree(
    target_class: Any, storedir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "catalyst"):
        assert run_target(target_class, release_settings(storedir) | RELEASE_KEYS) is True
    output = storedir / "builds/23.0-default" / f"pxeboot-amd64-{STAMP}"
    assert {"boot.ipxe", "boot/gentoo", "image.squashfs", "manifest.json", "DIGESTS"} <= set(
        list_files(output)
    )
    assert f"Published {output} in " in caplog.text


def test_unknown_key_is_one_clear_error(
    target_class: Any, storedir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from catalyst.support import CatalystError

    with pytest.raises(CatalystError):
        run_target(target_class, release_settings(storedir, pxeboot__bootarg="x"))
    assert [record.getMessage() for record in caplog.records] == [
        "CatalystError: pxeboot/bootarg: no such spec key (did you mean 'pxeboot/bootargs'?);"
        " correct or remove it"
    ]


def test_failure_is_one_logged_line_and_false(
    target_class: Any, storedir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (storedir_stage2(storedir) / "image.squashfs").unlink()
    assert run_target(target_class, release_settings(storedir)) is False
    assert [
        record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR
    ] == [
        f"{storedir_stage2(storedir)}/image.squashfs: the live root is missing;"
        " build livecd-stage2 again"
    ]


@pytest.mark.parametrize(
    "option", ["purge", "purgeonly", "purgetmponly", "fetch", "clear-autoresume"]
)
def test_no_option_removes_what_was_built(target_class: Any, storedir: Path, option: str) -> None:
    assert run_target(target_class, release_settings(storedir))
    before = {name: (storedir / name).read_bytes() for name in list_files(storedir)}
    leftover = storedir / "builds/23.0-default" / f".pxeboot-amd64-{STAMP}.staging"
    leftover.mkdir()

    assert run_target(target_class, release_settings(storedir), option) is True

    assert {name: (storedir / name).read_bytes() for name in list_files(storedir)} == before
    assert leftover.exists() is (option == "fetch")


@pytest.mark.parametrize("option", ["purgeonly", "purgetmponly", "fetch"])
def test_nothing_is_built_where_nothing_was_asked_for(
    target_class: Any, storedir: Path, option: str
) -> None:
    before = snapshot(storedir)
    assert run_target(target_class, release_settings(storedir), option) is True
    assert snapshot(storedir) == before


def test_source_is_not_needed_to_purge(target_class: Any, tmp_path: Path) -> None:
    assert run_target(target_class, release_settings(tmp_path), "purgetmponly") is True
    assert list(tmp_path.iterdir()) == []


# Real catalyst ------------------------------------------------------------------------------

needs_catalyst = pytest.mark.skipif(
    not {"CATALYST_SRC", "DECOMP_SRC", "CATALYST_PYTHON"} <= os.environ.keys(),
    reason="CATALYST_SRC and DECOMP_SRC name no checkouts, or CATALYST_PYTHON no interpreter"
    " with portage, snakeoil, fasteners, tomli and this package's own dependencies",
)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder like site-packages: catalyst's package and this project's wheel."""
    site = tmp_path_factory.mktemp("site")
    source = Path(os.environ["CATALYST_SRC"])
    shutil.copytree(source / "catalyst", site / "catalyst")
    shutil.copytree(Path(os.environ["DECOMP_SRC"]) / "DeComp", site / "DeComp")
    (site / "libmount.py").write_text("class Context:\n    pass\n")
    wheels = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def catalyst(
    installed: Path, storedir: Path, spec: str, *options: str
) -> subprocess.CompletedProcess[str]:
    conf = storedir.parent / "catalyst.conf"
    conf.write_text(
        f'storedir = "{storedir}"\nsharedir = "{os.environ["CATALYST_SRC"]}"\n'
        f'distdir = "{storedir}/dist"\ndigests = ["blake2b", "sha512"]\noptions = []\n'
    )
    path = storedir.parent / "installpxe.spec"
    path.write_text(spec)
    return subprocess.run(
        [os.environ["CATALYST_PYTHON"], "-OO", f"{os.environ['CATALYST_SRC']}/bin/catalyst",
         *options, "-c", conf, "-f", path],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(installed)},
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.catalyst
@needs_catalyst
def test_real_catalyst_builds_what_the_command_builds(installed: Path, storedir: Path) -> None:
    done = catalyst(installed, storedir, SPEC)
    assert done.returncode == 0, done.stdout + done.stderr
    output = storedir / "builds/23.0-default" / f"pxeboot-amd64-{STAMP}"
    assert f"Published {output}" in done.stdout
    first = snapshot(output)
    shutil.rmtree(output)

    command = subprocess.run(
        [sys.executable, "-m", "catalyst_pxeboot", "build",
         "-f", storedir.parent / "installpxe.spec",
         "-c", storedir.parent / "catalyst.conf"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert command.returncode == 0, command.stderr
    assert snapshot(output) == first


@pytest.mark.catalyst
@needs_catalyst
def test_real_catalyst_with_keys_for_the_machines(installed: Path, storedir: Path) -> None:
    own = ROOT / "tests/data/personal"
    spec = f"{SPEC}pxeboot/ssh_keys: {own}/authorized_keys\npxeboot/script: {own}/script\n"
    done = catalyst(installed, storedir, spec)
    assert done.returncode == 0, done.stderr
    tree = storedir / f"builds/23.0-default/pxeboot-amd64-{STAMP}"
    assert verify_tree(tree).faults == ()
    key = (own / "authorized_keys").read_bytes()
    assert key in (tree / "boot/personal.cpio").read_bytes()
    assert " dosshd" in (tree / "boot.ipxe").read_text()


@pytest.mark.catalyst
@needs_catalyst
def test_real_catalyst_with_single_machines_and_a_unified_kernel_image(
    installed: Path, storedir: Path
) -> None:
    stubs = storedir.parent / "stubs"
    stubs.mkdir()
    (stubs / "linuxx64.efi.stub").write_bytes(efi_program())
    spec = (
        f"{SPEC}pxeboot/hosts: {ROOT}/tests/data/hosts\npxeboot/loaders: ipxe uki\n"
        f"pxeboot/loader_path: {stubs}\npxeboot/first: uki\n"
    )
    done = catalyst(installed, storedir, spec)
    assert done.returncode == 0, done.stdout + done.stderr
    tree = storedir / f"builds/23.0-default/pxeboot-amd64-{STAMP}"
    assert verify_tree(tree).faults == ()
    assert (tree / "boot/gentoo.efi").is_file()
    assert (tree / "hosts/52-54-00-12-34-56.cpio").is_file()


@pytest.mark.catalyst
@needs_catalyst
def test_real_catalyst_with_a_release_builders_options(installed: Path, storedir: Path) -> None:
    extra = "".join(
        f"{key}: {value if isinstance(value, str) else ' '.join(value)}\n"
        for key, value in RELEASE_KEYS.items()
    )
    done = catalyst(installed, storedir, SPEC + extra, "-a")
    assert done.returncode == 0, done.stdout + done.stderr
    before = snapshot(storedir)
    for option in ("--purgetmponly", "--purgeonly", "--fetchonly"):
        done = catalyst(installed, storedir, SPEC, option)
        assert done.returncode == 0, done.stdout + done.stderr
        assert snapshot(storedir) == before


@pytest.mark.catalyst
@needs_catalyst
def test_real_catalyst_takes_every_key_through_a_release(installed: Path, tmp_path: Path) -> None:
    """Two architectures on one storedir, built, "uploaded" and purged as a release builder does."""
    store = tmp_path / "store"
    keys = (
        "pxeboot/root: http embedded nfs\n"
        "pxeboot/base_url: http://192.168.7.1:8080/gentoo\n"
        "pxeboot/nfs_root: 192.168.7.2:/srv/gentoo,vers=3\n"
        "pxeboot/verify_root: yes\n"
    )
    initramfs = builders.initramfs(NETWORK)
    write_stage2(storedir_stage2(store), initramfs=initramfs)
    write_stage2(
        storedir_stage2(store, subarch="arm64"),
        initramfs=initramfs, grub_cfg="arm64-dracut.cfg", kernel=builders.arm64_image(),
    )  # fmt: skip
    trees = {}
    for arch in ("amd64", "arm64"):
        spec = f"{SPEC.replace('amd64', arch)}{keys}pxeboot/release: {arch}-minimal-{STAMP}\n"
        done = catalyst(installed, store, spec, "-a")
        assert done.returncode == 0, done.stdout + done.stderr
        trees[arch] = spec
    folder = store / "builds/23.0-default"
    for arch in trees:
        assert verify_tree(folder / f"pxeboot-{arch}-{STAMP}").faults == ()
        assert (folder / f"netboot-root-{arch}-minimal-{STAMP}.squashfs").is_file()
    script = (folder / f"pxeboot-amd64-{STAMP}/pxelinux.cfg/default").read_text()
    assert "root=live:http://192.168.7.1:8080/gentoo/image.squashfs" in script
    before = snapshot(store)
    for spec in trees.values():
        done = catalyst(installed, store, spec, "--purgetmponly")
        assert done.returncode == 0, done.stdout + done.stderr
    assert snapshot(store) == before


@pytest.mark.catalyst
@needs_catalyst
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (SPEC + "pxeboot/bootarg: x\n", "did you mean 'pxeboot/bootargs'?"),
        (SPEC.replace(f"amd64-{STAMP}", "amd64-2025"), "no such livecd-stage2 build"),
        (SPEC.replace("subarch: amd64", "subarch: sparc64"), "has no network boot here"),
        (SPEC.replace("rel_type", "#rel_type"), "rel_type: this spec key is missing"),
    ],
)
def test_real_catalyst_fails_clearly(
    installed: Path, storedir: Path, spec: str, message: str
) -> None:
    done = catalyst(installed, storedir, spec)
    assert done.returncode == 2
    assert "Traceback" not in done.stdout + done.stderr
    # Once on catalyst's own log; portage, which catalyst imports, may log it again on stderr.
    errors = [line for line in done.stdout.splitlines() if "ERROR" in line]
    assert len(errors) == 1, done.stdout
    assert message in errors[0]
