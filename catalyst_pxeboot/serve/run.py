"""Runs the servers of a plan in the foreground, and tells who boots what."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from catalyst_pxeboot.render.servers import ACCESS_LOG, TREE
from catalyst_pxeboot.serve.configs import ServerSetup, plan_servers
from catalyst_pxeboot.serve.events import Event, Tracker, read_mac
from catalyst_pxeboot.serve.facts import Account, ServedTree, choose_account
from catalyst_pxeboot.serve.plan import UNPRIVILEGED_PORT, Dhcp, Facts, Plan
from catalyst_pxeboot.serve.ports import Protocol, why_taken
from catalyst_pxeboot.services.children import Child, guarding, read_text, running
from catalyst_pxeboot.services.logs import Tail, parse_dnsmasq, parse_web
from catalyst_pxeboot.services.sockets import read_arrived
from catalyst_pxeboot.util.errors import PxebootError
from catalyst_pxeboot.util.tempdir import scratch_folder

_LOOK_SECONDS = 0.2  # between looks at the logs
_DHCP_PORT, _TFTP_PORT, _PXE_PORT = 67, 69, 4011

#: What `--dry-run` shows in place of the scratch folder.
DRY_SCRATCH = Path("/run/catalyst-pxeboot")


def check_ports(plan: Plan) -> None:
    """Raise `PxebootError` for a port that another program has."""
    address = str(plan.address.ip)
    why = why_taken(Protocol.TCP, address, plan.http_port)
    if why:
        other = UNPRIVILEGED_PORT if plan.http_port != UNPRIVILEGED_PORT else UNPRIVILEGED_PORT + 1
        raise PxebootError(
            f"TCP port {plan.http_port} of {address} is not to be had: {why}",
            hint=f"stop it, or take another: --http-port {other}",
        )
    wanted = [("TFTP", address, _TFTP_PORT)] if plan.tftp else []
    if plan.dhcp is not Dhcp.NONE:
        wanted.append(("DHCP", "0.0.0.0", _DHCP_PORT))
    if plan.dhcp is Dhcp.PROXY:
        wanted.append(("proxy DHCP", "0.0.0.0", _PXE_PORT))
    for what, place, port in wanted:
        why = why_taken(Protocol.UDP, place, port, shared=place == "0.0.0.0")
        if why:
            raise PxebootError(
                f"UDP port {port}, for {what}, is not to be had: {why}", hint="stop that first"
            )


def dry_run(plan: Plan, tree: ServedTree, facts: Facts) -> tuple[ServerSetup, ...]:
    """Return what `serve` would write and start, with a stand-in for its scratch folder."""
    return plan_servers(plan, tree, facts, DRY_SCRATCH, choose_account(tree.path))


def serve(
    plan: Plan,
    tree: ServedTree,
    facts: Facts,
    *,
    tell: Callable[[Event], None],
    started: Callable[[Account | None], None] = lambda _account: None,
) -> None:
    """Serve `tree` until an exception ends it (Ctrl-C, SIGTERM); all servers are stopped then.

    `tell` is called for each event, `started` once when all servers are up. Raises `PxebootError`
    if a port is taken, or a server does not start or ends.
    """
    check_ports(plan)
    with ExitStack() as stack:
        scratch = stack.enter_context(scratch_folder())
        tracker = Tracker(tree, scratch / TREE, read_mac)
        scratch.chmod(0o711)  # the servers' account goes through it
        account = choose_account(tree.path, scratch)
        guard = stack.enter_context(guarding())
        (scratch / TREE).symlink_to(tree.path, target_is_directory=True)
        children = []
        for setup in plan_servers(plan, tree, facts, scratch, account):
            for name, text in setup.files.items():
                file = scratch / name
                file.parent.mkdir(exist_ok=True)
                # The folder stays ours. A server opens its files before it becomes another
                # account, which must not put something else in the place of what we read as root.
                file.write_text(text, "utf-8")
            child = stack.enter_context(
                running(
                    setup.name, setup.argv,
                    messages=scratch / f"{Path(setup.argv[0]).name}.messages",
                    ready=partial(_is_ready, setup, scratch),
                    log=scratch / setup.log, guard=guard, env=setup.env,
                )
            )  # fmt: skip
            children.append(child)
        started(account)
        tell(_serving(plan, tree, tracker))
        _watch(plan, children, tracker, scratch, tell)


def _is_ready(setup: ServerSetup, scratch: Path) -> bool:
    text = read_text(scratch / setup.ready_file)
    return setup.ready_text in text if setup.ready_text else bool(text)


def _watch(
    plan: Plan,
    children: list[Child],
    tracker: Tracker,
    scratch: Path,
    tell: Callable[[Event], None],
) -> None:
    requests, dnsmasq = Tail(scratch / ACCESS_LOG), Tail(scratch / "dnsmasq/log")
    try:
        while True:
            for event in _news(plan, tracker, requests, dnsmasq):
                tell(event)
            for child in children:
                child.check()
            time.sleep(_LOOK_SECONDS)
    finally:  # what was done while we slept
        for event in _news(plan, tracker, requests, dnsmasq):
            tell(event)


def _news(plan: Plan, tracker: Tracker, requests: Tail, dnsmasq: Tail) -> Iterator[Event]:
    for parse, tail in ((parse_dnsmasq, dnsmasq), (parse_web, requests)):
        for text in tail.lines():
            line = parse(text)
            if line:
                yield from tracker.take(line)
    if tracker.is_watching():
        yield from tracker.progress(read_arrived(str(plan.address.ip), plan.http_port))


def _serving(plan: Plan, tree: ServedTree, tracker: Tracker) -> Event:
    what = ["HTTP"]
    if plan.tftp:
        what.append("TFTP")
    if plan.dhcp is not Dhcp.NONE:
        what.append("DHCP" if plan.dhcp is Dhcp.RANGE else "proxy DHCP")
    return tracker.event(
        "serving", f"serving {tree.path} on {plan.interface.name} as {plan.url}: {', '.join(what)}",
        tree=str(tree.path), title=tree.title, interface=plan.interface.name,
        address=str(plan.address), url=plan.url, http=str(plan.web), dhcp=str(plan.dhcp),
        range=list(map(str, plan.dhcp_range)) if plan.dhcp_range else None, tftp=plan.tftp,
    )  # fmt: skip
