"""The configurations of dnsmasq and nginx, as `serve` and the lab run them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from catalyst_pxeboot.render.templates import render_file

ACCESS_LOG = "access.log"

#: The tree's name in the scratch folder: its own path may hold what a server cannot read.
TREE = "tree"


def dnsmasq_config(
    folder: Path, config: Path, *, user: str, group: str, hurry: bool = False, only: bool = True
) -> str:
    """Write dnsmasq's settings beside `config`: who it is, where its files are.

    `hurry`: the addresses are used by no one else. `only`: it stays off the loopback interface.
    """
    values = {
        "user": user, "group": group, "folder": folder, "config": config, "hurry": hurry,
        "only": only,
    }  # fmt: skip
    return _render("server/dnsmasq.conf", values)


def nginx_config(
    scratch: Path,
    root: Path,
    address: str,
    port: int,
    *,
    account: tuple[str, str] | None,
    closed: bool,
    begin: bool,
    limit: bool = False,
) -> str:
    """Write nginx's configuration: the folder `root` at one address, and a log line a request.

    `account` are the user and group of its workers. `closed` follows no symbolic link below
    `root`; `begin` logs a request also when it comes; `limit` refuses more than a client needs.
    """
    user, group = account or ("", "")
    values = {
        "user": user, "group": group, "scratch": scratch, "address": address, "port": port,
        "root": root, "closed": closed, "begin": begin, "limit": limit,
    }  # fmt: skip
    return _render("server/nginx.conf", values)


def _render(name: str, values: Mapping[str, object]) -> str:
    return render_file(name, values, None).content.decode()
