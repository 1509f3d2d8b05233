"""The same live image gives the same tree, bit for bit, whoever builds it, where and when.

Each build runs in a process of its own with another path, umask, locale, time zone, hash seed and
Python options, one by the command and one by catalyst's stand-in, with the machine's own loaders.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.golden.test_golden import MEMTEST, NETWORK
from tests.support import builders
from tests.support.paths import ROOT, STANDIN
from tests.support.stage2 import SPEC, STAMP, storedir_stage2, write_stage2

#: catalyst's own way in: it reads the spec, then calls the class of the target's module.
BY_CATALYST = """
import sys
from pathlib import Path
from catalyst.targets.pxeboot import pxeboot
from catalyst_pxeboot.spec.file import read_conf, read_spec
spec, conf = (Path(word) for word in sys.argv[1:])
sys.exit(not pxeboot({**read_conf(conf), 'options': []}, dict(read_spec(spec))).run())
"""

KEYS = f"""pxeboot/release: amd64-minimal-{STAMP}
pxeboot/serial: ttyS0,115200
pxeboot/nfs_root: :/srv/gentoo
"""


def prepare(folder: Path, link: str) -> tuple[Path, Path]:
    """Put the live image, a spec and a catalyst.conf below `folder`."""
    store = folder / "store"
    initramfs = builders.initramfs(NETWORK, "none")
    write_stage2(storedir_stage2(store), initramfs=initramfs, extra=MEMTEST)
    spec, conf = folder / "installpxe.spec", folder / "catalyst.conf"
    spec.write_text(f"{SPEC}{KEYS}pxeboot/link: {link}\n")
    conf.write_text(f'storedir = "{store}"\ndigests = ["blake2b", "sha512"]\n')
    return spec, conf


def run_build(folder: Path, how: str, link: str, umask: str, env: Mapping[str, str]) -> Path:
    """Build below `folder`; return the folder of the tree and its flat files."""
    spec, conf = prepare(folder, link)
    if how == "command":
        argv = [sys.executable, "-m", "catalyst_pxeboot", "build", "-q", "-f", spec, "-c", conf]
    else:
        argv = [sys.executable, "-OO", "-c", BY_CATALYST, spec, conf]
    path = os.pathsep.join((str(STANDIN), str(ROOT)))
    done = subprocess.run(
        ["sh", "-c", f'umask {umask}; exec "$@"', "sh", *map(str, argv)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": path, **env},
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "store/builds/23.0-default"


def listing(folder: Path) -> list[tuple[object, ...]]:
    """List all that was built, with modes, times and content, in the order of the names."""
    found: list[tuple[object, ...]] = []
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if name.startswith("livecd-stage2"):
            continue
        info = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found.append((name, info.st_mode, info.st_mtime_ns, content))
    return found


UTC = {"TZ": "UTC", "LC_ALL": "C", "PYTHONHASHSEED": "1"}
FAR = {"TZ": "Pacific/Chatham", "LC_ALL": "C.UTF-8", "LANG": "tr_TR.UTF-8", "PYTHONHASHSEED": "2"}


@pytest.mark.parametrize("epoch", [{}, {"SOURCE_DATE_EPOCH": "1700000000"}], ids=["own", "given"])
def test_two_builders_make_the_same(tmp_path: Path, epoch: dict[str, str]) -> None:
    one = run_build(tmp_path / "a", "command", "auto", "022", UTC | epoch)
    other = run_build(tmp_path / "deep/er/b-c", "catalyst", "copy", "077", FAR | epoch)
    first, second = listing(one), listing(other)
    assert [row[0] for row in first] == [row[0] for row in second]
    for mine, theirs in zip(first, second, strict=True):
        assert mine == theirs, mine[0]
    names = {str(row[0]) for row in first}
    assert f"netboot-ipxe-amd64-minimal-{STAMP}.ipxe" in names
    assert f"pxeboot-amd64-{STAMP}/boot/root-check.cpio" in names
    if shutil.which("grub-mkimage") and Path("/usr/lib/grub/x86_64-efi").is_dir():
        assert f"pxeboot-amd64-{STAMP}/boot/grub/x86_64-efi/core.efi" in names


def test_a_tree_built_again_has_no_difference(tmp_path: Path) -> None:
    folder = run_build(tmp_path, "command", "auto", "022", UTC)
    tree = folder / f"pxeboot-amd64-{STAMP}"
    shutil.copytree(tree, tmp_path / "before")
    shutil.rmtree(tmp_path / "store/builds/23.0-default" / storedir_stage2(tmp_path).name)
    run_build(tmp_path, "catalyst", "auto", "027", FAR)
    subprocess.run(["diff", "-r", "--no-dereference", tmp_path / "before", tree], check=True)
    (tree / "boot.ipxe").write_text("#!ipxe\n")
    assert subprocess.run(["diff", "-rq", tmp_path / "before", tree], check=False).returncode == 1
