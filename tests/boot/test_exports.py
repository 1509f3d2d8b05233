"""Real clients in QEMU whose iPXE gets an exported script from a web server of its own.

The exported file lies outside the tree, as it would on netboot.xyz's own server, and names the tree
by its address; a boot counts when the live root prints its token.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from catalyst_pxeboot.export.formats import Format, export_tree, write_export
from catalyst_pxeboot.lab.machine import Accel, UserLink, choose_accel, find_qemu, qemu_argv
from catalyst_pxeboot.lab.serve import serve_tree
from catalyst_pxeboot.lab.watch import Verdict, watch_machine
from catalyst_pxeboot.loader import LOADERS
from catalyst_pxeboot.model.loader import Loader
from catalyst_pxeboot.util.errors import CommandError
from tests.boot.test_loaders import IPXE_BIOS, TIMEOUT, make_tree
from tests.support import live_image as liveimage

#: QEMU's user network: this machine, as the client sees it.
_HOST = "10.0.2.2"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a web server's folder with a tree in `tree`."""
    folder = tmp_path_factory.mktemp("site")
    make_tree(folder, "dracut-net", pxeboot__root="embedded http")
    return folder


def boot(site: Path, form: Format, caller: str) -> tuple[Verdict, Mapping[str, int]]:
    """Export the site's tree and boot iPXE with the script `caller`.

    In it, EXPORT stands for the address of the export and TREE for the tree's.
    """
    with serve_tree(site) as server:
        url = f"http://{_HOST}:{server.port}"
        export = export_tree(site / "tree", form, base_url=f"{url}/tree")
        write_export(export, form, site / "export", force=True)
        script = caller.replace("EXPORT", f"{url}/export").replace("TREE", f"{url}/tree")
        (site / "caller.ipxe").write_text(script)
        try:
            qemu = find_qemu(IPXE_BIOS.machine)
            argv = qemu_argv(
                IPXE_BIOS.machine,
                UserLink(site, f"{url}/caller.ipxe"),
                qemu=qemu,
                accel=choose_accel(Accel.AUTO, qemu, IPXE_BIOS.machine),
            )
        except CommandError as error:
            pytest.skip(str(error))
        until = re.compile("^" + re.escape(liveimage.TOKEN))
        return watch_machine(argv, until=until, timeout=TIMEOUT), dict(server.fetched)


def assert_booted(verdict: Verdict, fetched: Mapping[str, int], site: Path) -> None:
    assert verdict.passed, "\n".join([verdict.reason, *verdict.console_tail])
    squashfs = (site / "tree/image.squashfs").stat().st_size
    assert fetched["/tree/image.squashfs"] == squashfs
    assert "/tree/boot.ipxe" not in fetched


@pytest.mark.more
def test_netboot_xyzs_menu_boots(site: Path) -> None:
    (site / "export").mkdir(exist_ok=True)
    caller = """#!ipxe
set live-timeout 1000
set cmdline said_by_the_caller
chain EXPORT/custom.ipxe
"""
    verdict, fetched = boot(site, Format.NETBOOT_XYZ, caller)
    assert_booted(verdict, fetched, site)
    assert " said_by_the_caller" in verdict.reason
    assert " root=live:/image.squashfs.img " in verdict.reason


@pytest.mark.more
def test_a_script_of_ones_own_boots_by_the_settings(site: Path) -> None:
    """The script is the one in the exported file's comment; entry 3 fetches its root by itself."""
    export = export_tree(site / "tree", Format.IPXE_VARS, base_url="http://base")
    comment = re.findall(r"^#   (.*)$", export.files[0].content.decode(), re.MULTILINE)
    lines = ["#!ipxe", *comment, ":failed", "echo Could not boot image", ""]
    caller = "\n".join(lines).replace("ADDRESS", "EXPORT").replace("set entry 1", "set entry 3")
    # Which files those are, nobody can tell before it runs.
    problems = LOADERS[Loader.IPXE].check(caller).problems
    assert all(line.endswith("depends on a setting that is not known here") for line in problems)
    (site / "export").mkdir(exist_ok=True)
    verdict, fetched = boot(site, Format.IPXE_VARS, caller)
    assert_booted(verdict, fetched, site)
    assert " root=live:http://" in verdict.reason
    assert "root check: the live root is the one" in "\n".join(verdict.console_tail)


@pytest.mark.more
def test_a_matchbox_profile_boots(site: Path) -> None:
    """The script is the one that matchbox makes of a profile."""
    export = export_tree(site / "tree", Format.MATCHBOX, base_url="http://base")
    profile = json.loads(export.files[0].content)["boot"]
    lines = [f"kernel {profile['kernel']} {' '.join(profile['args'])}"]
    lines += [f"initrd {initrd}" for initrd in profile["initrd"]]
    script = "\n".join(["#!ipxe", *lines, "boot", ""]).replace("http://base", "TREE")
    verdict, fetched = boot(site, Format.MATCHBOX, script)
    assert_booted(verdict, fetched, site)
