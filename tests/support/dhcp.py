"""DHCP configurations of a tree that has certain files."""

from __future__ import annotations

from pathlib import Path

from catalyst_pxeboot.model.arch import find_arch
from catalyst_pxeboot.model.settings import Server
from catalyst_pxeboot.render.dhcp import render_dhcp

AMD64_FILES = (
    "boot.ipxe",
    "undionly.kpxe",
    "pxelinux.0",
    "lpxelinux.0",
    "boot/grub/i386-pc/core.0",
    "snponly.efi",
    "ipxe.efi",
    "boot/grub/x86_64-efi/core.efi",
    "boot/grub/i386-efi/core.efi",
)


def render(
    config: str,
    *,
    arch: str = "amd64",
    files: tuple[str, ...] = AMD64_FILES,
    server: Server | None = None,
    templates: Path | None = None,
) -> str:
    """Render the configuration `dhcp/<config>` and return its text."""
    made = render_dhcp(find_arch(arch), files=files, server=server, templates=templates)
    return {file.path: file.content.decode() for file in made}[f"dhcp/{config}"]
