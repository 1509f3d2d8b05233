"""What serve knows of a machine and a tree, for its tests."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

from catalyst_pxeboot.model.arch import find_arch
from catalyst_pxeboot.serve.facts import Account, ServedTree
from catalyst_pxeboot.serve.plan import Facts
from catalyst_pxeboot.services.interfaces import Interface

ETH1 = Interface("eth1", True, False, (IPv4Interface("10.0.0.1/24"),))
WLAN = Interface("wlan0", True, False, (IPv4Interface("192.168.7.20/24"),))
BARE = Interface("eth2", False, False, ())
LO = Interface("lo", True, True, (IPv4Interface("127.0.0.1/8"),))
FACTS = Facts(
    (LO, ETH1, WLAN, BARE), True, Path("/sbin/dnsmasq"), Path("/sbin/nginx"), True, True, True
)
RANGE = (IPv4Address("10.0.0.50"), IPv4Address("10.0.0.99"))
NOBODY = Account("nobody", "nogroup", 65534, 65534)

FILES = (
    "boot.ipxe", "undionly.kpxe", "pxelinux.0", "snponly.efi", "boot/grub/x86_64-efi/core.efi",
)  # fmt: skip
TREE = ServedTree(
    path=Path("/srv/my tree"),
    arch=find_arch("amd64"),
    title="Gentoo",
    files={**dict.fromkeys(FILES, 1000), "image.squashfs": 700 << 20, "boot/gentoo": 15 << 20},
    digests={},
    roots=frozenset({"image.squashfs"}),
    grub_server="",
)
