"""What people read of a tree: index.html for a browser, README.txt for any pager.

Both say the same, from one set of values. index.html names the digest of every other file, so it
is made last before the manifest; it does not name its own, nor the manifest's and the digest
files', which are made after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from catalyst_pxeboot import __version__
from catalyst_pxeboot.formats.initramfs import Generator
from catalyst_pxeboot.loader import LOADERS
from catalyst_pxeboot.model.arch import Qemu
from catalyst_pxeboot.model.files import MadeFile, Role, TreeFile
from catalyst_pxeboot.model.loader import Loader
from catalyst_pxeboot.model.manifest import CLEARSIGNED, MANIFEST
from catalyst_pxeboot.model.settings import Server
from catalyst_pxeboot.plan.signers import Signers
from catalyst_pxeboot.plan.summary import menu_entries
from catalyst_pxeboot.plan.tree import Plan
from catalyst_pxeboot.render.kexec import KEXEC, render_kexec
from catalyst_pxeboot.render.limits import limit_lines, limit_rows, limit_warnings
from catalyst_pxeboot.render.templates import render_file
from catalyst_pxeboot.util.sums import MANIFEST_DIGEST, signed_sums, sum_files
from catalyst_pxeboot.util.text import mebibytes, size

INDEX = "index.html"
README = "README.txt"

#: The placeholder for the tree's address where it is not known. The page's script replaces it by
#: the address that the page came from.
PLACEHOLDER = "http://SERVER/FOLDER"

#: The DHCP configuration that the page shows.
_DNSMASQ = "dhcp/dnsmasq.conf"

#: coreutils' program for each digest, the preferred one first.
_SUM_PROGRAMS = {
    "sha512": "sha512sum",
    "sha256": "sha256sum",
    "blake2b": "b2sum",
    "sha384": "sha384sum",
    "sha224": "sha224sum",
    "sha1": "sha1sum",
    "md5": "md5sum",
}

#: How the page groups files, by role.
_GROUPS: Mapping[str, tuple[Role, ...]] = {
    "The live image": (
        Role.KERNEL, Role.INITRAMFS, Role.SQUASHFS, Role.ROOT_HEADER, Role.PADDING,
        Role.ROOT_CHECK, Role.STREAM, Role.HASH_TREE, Role.MEMTEST, Role.DEVICE_TREE,
    ),
    "For the machines that boot here": (Role.PERSONAL,),
    "Boot loaders": (Role.LOADER, Role.UKI),
    "Configurations": (Role.CONFIG,),
    "Texts and scripts": (Role.TEXT, Role.SCRIPT, Role.PAGE),
    "Signatures": (Role.SIGNATURE,),
}  # fmt: skip

#: Memory to work with in a virtual machine, beside what reaching the live root takes, in MiB.
_ROOM = 512


@dataclass(frozen=True, slots=True)
class FileView:
    """A file as the page's template sees it."""

    path: str
    size: str  # for people
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class GroupView:
    """Files of one purpose, sorted by path."""

    title: str
    files: tuple[FileView, ...]


@dataclass(frozen=True, slots=True)
class QemuView:
    """How to try the tree in QEMU."""

    command: str
    http: bool  # it fetches from the tree's web server; otherwise from the current folder


@dataclass(frozen=True, slots=True)
class OpenpgpView:
    """The OpenPGP signatures of a tree."""

    fingerprint: str
    clearsigned: str  # the signed digest file
    command: str  # checks it, and every file by it
    files: bool  # each file that GRUB opens has one of its own


@dataclass(frozen=True, slots=True)
class CmsView:
    """The signatures that iPXE checks."""

    subject: str
    fingerprint: str  # sha256 of the certificate in DER
    always: bool  # the script checks in any case, not only if its caller asks


def render_texts(plan: Plan, files: Sequence[TreeFile], signers: Signers) -> tuple[MadeFile, ...]:
    """Render README.txt and kexec.sh for the tree with the staged `files`.

    Raises `TemplateError`.
    """
    values = {
        **_values(plan, files, signers),
        "limits": limit_lines(menu_entries(plan)),
        "console": plan.spec.arch.console,
    }
    return (
        render_file(README, values, plan.spec.templates, role=Role.TEXT),
        render_kexec(plan, files),
    )


def render_page(
    plan: Plan, files: Sequence[TreeFile], signers: Signers, *, tree: Path, time: int
) -> MadeFile:
    """Render index.html for the tree `tree` with the staged `files`, those of `render_texts` too.

    `time` is in seconds since 1970. Raises `TemplateError`.
    """
    names = {str(kind): loader.name for kind, loader in LOADERS.items()}
    values = {
        **_values(plan, files, signers),
        "limits": [
            tuple(names.get(cell, cell) for cell in row) for row in limit_rows(menu_entries(plan))
        ],
        "made": datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "version": __version__,
        "manifest": MANIFEST,
        "kernels": [
            {
                "path": kernel.iso.path,
                "version": kernel.kernel.version,
                "initramfs": f"{kernel.initramfs.generator} {kernel.initramfs.version}",
            }
            for kernel in plan.source.kernels
        ],
        "qemu": _qemu(plan, files),
        "dnsmasq": _dnsmasq(plan, tree),
        "dhcp_configs": sorted(file.path for file in files if file.path.startswith("dhcp/")),
        "groups": tuple(_groups(files)),
        "shim": any(file.path.startswith("shim") for file in files),
    }
    return render_file(INDEX, values, plan.spec.templates, role=Role.PAGE)


def _values(plan: Plan, files: Sequence[TreeFile], signers: Signers) -> dict[str, Any]:
    """Collect what both texts tell; index.html.j2 explains the names."""
    entries = menu_entries(plan)
    spec, live = plan.spec, plan.menu.live
    generators = {entry.generator for entry in live}
    return {
        "title": plan.menu.title,
        "arch": spec.arch.name,
        "loaders": tuple(map(str, filter(plan.menu.offers, spec.loaders))),
        "binaries": tuple(sorted(file.path for file in files if file.role is Role.LOADER)),
        "missing": tuple(file.path for file in plan.loaders.missing),
        "modes": tuple(dict.fromkeys(str(entry.root) for entry in live)),
        "warnings": tuple(limit_warnings(entries)),
        "personal": str(plan.personal),
        "hosts": len(plan.hosts),
        "checked": any(entry.addon for entry in live),
        "dracut": Generator.DRACUT in generators,
        "genkernel": Generator.GENKERNEL in generators,
        "url": plan.menu.base_url or PLACEHOLDER,
        "placeholder": PLACEHOLDER,
        "bios": any(0 in client.codes for client in spec.arch.dhcp),
        "efi": any(client.http_codes for client in spec.arch.dhcp),
        "sums": tuple(sum_files(spec.digests)),
        "openpgp": _openpgp(plan, signers),
        "cms": _cms(plan, signers),
        "kexec": KEXEC,
        "readme": README,
    }


def _qemu(plan: Plan, files: Sequence[TreeFile]) -> QemuView | None:
    """Write the command that boots the tree in QEMU; None if it lacks what QEMU would load."""
    qemu = plan.spec.arch.qemu
    if qemu is None or qemu.boot_file not in {file.path for file in files}:
        return None
    loader = Loader.IPXE if qemu.http else Loader.GRUB
    first = next(entry for entry in plan.menu.live if loader in entry.offered)
    needed = first.limits[loader].memory[qemu.firmware]
    where = f"{plan.menu.base_url or PLACEHOLDER}/" if qemu.http else ""
    return QemuView(qemu_command(qemu, needed, where + qemu.boot_file), qemu.http)


def qemu_command(qemu: Qemu, needed: int, boot_file: str) -> str:
    """Write the command that boots `boot_file` in QEMU.

    `needed` is in bytes, what reaching the live root takes; the machine also gets room to work.
    """
    memory = max(1024, -(-(mebibytes(needed) + _ROOM) // 512) * 512)
    folder = "" if qemu.http else "tftp=.,"
    network = f"-nic user,model=virtio-net-pci,{folder}bootfile={boot_file}"
    return f"{qemu.command} -m {memory} {network}"


def _dnsmasq(plan: Plan, tree: Path) -> str:
    """Return the tree's dnsmasq.conf without its comments, with the tree's address in it."""
    text = (tree / _DNSMASQ).read_text("utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found = "\n".join(lines)
    if plan.spec.server is None:
        # It holds a placeholder for the server's address; the page has a word for it.
        url = plan.menu.base_url or PLACEHOLDER
        found = found.replace(f"http://{Server().address}/", f"{url}/")
    return found


def _groups(files: Sequence[TreeFile]) -> Iterator[GroupView]:
    for title, roles in _GROUPS.items():
        found = tuple(
            FileView(file.path, size(file.bytes), file.bytes, file.digests[MANIFEST_DIGEST])
            for file in sorted(files, key=lambda file: file.path)
            if file.role in roles
        )
        if found:
            yield GroupView(title, found)


def _openpgp(plan: Plan, signers: Signers) -> OpenpgpView | None:
    if signers.openpgp is None:
        return None
    spec = plan.spec
    sums = signed_sums(spec.digests)
    there = sum_files(spec.digests)[sums]
    usable = [name for name in _SUM_PROGRAMS if name in there]
    name = f"{sums}{CLEARSIGNED}"
    command = f"gpg --verify {name}"
    if usable:
        digest = usable[0]
        # The lines of one digest; each is below a line that names it.
        lines = f"sed -n '/^# {digest.upper()} HASH/{{n;p}}'"
        command = f"gpg --decrypt {name} | {lines} | {_SUM_PROGRAMS[digest]} --check --quiet"
    return OpenpgpView(
        fingerprint=signers.openpgp.fingerprint,
        clearsigned=name,
        command=command,
        files=Loader.GRUB in spec.loaders,
    )


def _cms(plan: Plan, signers: Signers) -> CmsView | None:
    if signers.cms is None:
        return None
    from cryptography.hazmat.primitives.hashes import SHA256

    certificate = signers.cms.certificate
    return CmsView(
        subject=certificate.subject.rfc4514_string(),
        fingerprint=certificate.fingerprint(SHA256()).hex(),
        always=plan.menu.ipxe_always,
    )
