"""What a user must also do, or should know, in lines."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from catalyst_pxeboot.render.dhcp import IPXE_SCRIPT
from catalyst_pxeboot.serve.facts import ServedTree
from catalyst_pxeboot.serve.plan import Dhcp, ServePlan


def advice_lines(plan: ServePlan, tree: ServedTree) -> Iterator[str]:
    """Say how to configure an existing DHCP server, where none was asked for."""
    if plan.dhcp is not Dhcp.NONE:
        return
    if plan.tftp:
        yield f"no DHCP here; on your own DHCP server set the TFTP server to {plan.address.ip}"
        yield "and the boot file by client:"
        if IPXE_SCRIPT in tree.files:
            yield f"  iPXE (user class iPXE): {plan.url}{IPXE_SCRIPT}"
        for client in tree.arch.dhcp:
            loaders = [file for file in client.loaders if file in tree.files]
            if loaders:
                codes = " and ".join(map(str, client.codes))
                yield f"  {client.title} (architecture {codes}): {loaders[0]}"
        words = ["catalyst-pxeboot", "dhcp", str(tree.path), "--server", str(plan.address)]
        yield f"a whole configuration: {shlex.join(words)}"
    elif IPXE_SCRIPT in tree.files:
        yield f"boot a client by iPXE: dhcp && chain {plan.url}{IPXE_SCRIPT}"


def tree_notes(tree: ServedTree, plan: ServePlan) -> Iterator[str]:
    """Say what of the tree does not fit the address that it is served from."""
    if tree.grub_server and tree.grub_server != str(plan.address.ip):
        yield (
            f"the tree was built for the server {tree.grub_server}: its GRUB images fetch from"
            f" there, not from {plan.address.ip}; build it with pxeboot/server {plan.address}"
        )
    grub = any(name.startswith("boot/grub/") and "/core." in name for name in tree.files)
    alone = grub and IPXE_SCRIPT not in tree.files
    if plan.dhcp is Dhcp.PROXY and alone and not tree.grub_server:
        yield (
            "GRUB is not offered: behind a proxy it boots only from a tree that was built with"
            f" pxeboot/server {plan.address}"
        )
