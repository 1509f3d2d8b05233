"""Runs the servers of a plan in the foreground, and reports who boots what."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from catalyst_pxeboot.personal.model import NO_PERSONAL, Personal
from catalyst_pxeboot.render.servers import ACCESS_LOG, TREE
from catalyst_pxeboot.serve.configs import ServerSetup, plan_servers
from catalyst_pxeboot.serve.events import Event, Tracker, read_mac
from catalyst_pxeboot.serve.facts import Account, ServedTree, choose_account
from catalyst_pxeboot.serve.personal import plan_additions
from catalyst_pxeboot.serve.pinned import Binding, PinnedTree, pin_tree
from catalyst_pxeboot.serve.plan import UNPRIVILEGED_PORT, Dhcp, Facts, ServePlan
from catalyst_pxeboot.serve.ports import Protocol, why_taken
from catalyst_pxeboot.serve.reports import add_known_hosts
from catalyst_pxeboot.services.children import Child, guarding, read_text, running
from catalyst_pxeboot.services.logs import Tail, parse_dnsmasq, parse_web
from catalyst_pxeboot.services.mounts import enter_private_mounts
from catalyst_pxeboot.services.sockets import raise_file_limit, read_arrived
from catalyst_pxeboot.util.errors import PxebootError
from catalyst_pxeboot.util.files import open_new
from catalyst_pxeboot.util.tempdir import scratch_folder

_LOOK_SECONDS = 0.2  # between looks at the logs
_TREE_SECONDS = 1.0  # between looks at the tree's files
_FILES = 20_000  # two for each of dnsmasq's transfers, and what nginx has
_DHCP_PORT, _TFTP_PORT, _PXE_PORT = 67, 69, 4011

#: What `--dry-run` shows in place of the scratch folder.
DRY_SCRATCH = Path("/run/catalyst-pxeboot")


def check_ports(plan: ServePlan) -> None:
    """Raise `PxebootError` for a port that another program has."""
    address = str(plan.address.ip)
    why = why_taken(Protocol.TCP, address, plan.http_port)
    if why:
        other = UNPRIVILEGED_PORT if plan.http_port != UNPRIVILEGED_PORT else UNPRIVILEGED_PORT + 1
        raise PxebootError(
            f"TCP port {plan.http_port} of {address} cannot be used: {why}",
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
                f"UDP port {port}, for {what}, cannot be used: {why}", hint="stop that first"
            )


def dry_run(plan: ServePlan, tree: ServedTree, facts: Facts) -> tuple[ServerSetup, ...]:
    """Return what `serve` would write and start, with a stand-in for its scratch folder."""
    return plan_servers(plan, tree, facts, DRY_SCRATCH, choose_account(tree.path))


@contextmanager
def pinned_tree(tree: ServedTree, facts: Facts) -> Iterator[PinnedTree]:
    """Hold the files of `tree` open while the context lasts. Raises `VerifyError`."""
    if not facts.root:
        binding = Binding.DESCRIPTORS
    else:
        binding = Binding.MOUNTS if enter_private_mounts() else Binding.NAMES
    with pin_tree(tree, binding) as pinned:
        yield pinned


def serve(
    plan: ServePlan,
    tree: ServedTree,
    facts: Facts,
    pinned: PinnedTree,
    *,
    tell: Callable[[Event], None],
    personal: Personal = NO_PERSONAL,
    known_hosts: Path | None = None,
    exit_after: int = 0,
    started: Callable[[Account | None], None] = lambda _account: None,
) -> None:
    """Serve `tree` until an exception ends it (Ctrl-C, SIGTERM); all servers are stopped then.

    `tell` is called for each event, `started` once when all servers are up. Machines that boot get
    `personal`, too; their host keys are appended to the file `known_hosts`. Returns when as many
    machines as `exit_after` are up; 0 waits for ever. Raises `PxebootError` if a port is taken, or
    a server does not start or ends, or for a signed tree that `personal` would change.
    """
    check_ports(plan)
    if known_hosts:
        add_known_hosts(known_hosts, "", ())  # what cannot be written is reported before any boot
    additions = plan_additions(tree, personal, plan.url)
    tree = replace(tree, files=additions.sizes(tree.files))
    raise_file_limit(_FILES)
    with ExitStack() as stack:
        scratch = stack.enter_context(scratch_folder())
        tracker = Tracker(tree, scratch / TREE, read_mac)
        scratch.chmod(0o711)  # the servers' account goes through it
        _make_folder(scratch / TREE)
        stack.enter_context(pinned.shown(scratch / TREE, additions))
        account = choose_account(*pinned.folders, scratch)
        guard = stack.enter_context(guarding())
        children = []
        for setup in plan_servers(plan, tree, facts, scratch, account, links=pinned.has_links):
            for name, text in setup.files.items():
                if (scratch / name).parent != scratch:
                    _make_folder((scratch / name).parent)
                _write(scratch / name, text)
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
        reports = _Reports(tell, known_hosts, exit_after)
        _watch(plan, children, tracker, pinned, scratch, reports)


@dataclass(slots=True)
class _Reports:
    """Passes events on, keeps the keys of machines that are up, and counts these."""

    tell: Callable[[Event], None]
    known_hosts: Path | None
    exit_after: int
    _up: set[str] = field(default_factory=set)  # machines, by MAC, else IP

    def take(self, event: Event) -> None:
        self.tell(event)
        if event.data["event"] != "up":
            return
        self._up.add(event.data["mac"] or event.data["ip"])
        keys = [f"{key['type']} {key['key']}" for key in event.data["keys"]]
        if self.known_hosts and keys:
            add_known_hosts(self.known_hosts, event.data["ip"], keys)

    def are_enough(self) -> bool:
        """Whether as many machines are up as were asked for."""
        return 0 < self.exit_after <= len(self._up)


def _make_folder(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)  # whatever the umask


def _write(file: Path, text: str) -> None:
    """Write a new file into a folder that only we can write.

    A server opens its files before it becomes another account, which must not put something else
    in the place of what we read as root.
    """
    with open_new(file) as stream:
        stream.write(text.encode())


def _is_ready(setup: ServerSetup, scratch: Path) -> bool:
    text = read_text(scratch / setup.ready_file)
    return setup.ready_text in text if setup.ready_text else bool(text)


def _watch(
    plan: ServePlan,
    children: list[Child],
    tracker: Tracker,
    pinned: PinnedTree,
    scratch: Path,
    reports: _Reports,
) -> None:
    requests, dnsmasq = Tail(scratch / ACCESS_LOG), Tail(scratch / "dnsmasq/log")
    looked = time.monotonic()
    try:
        while not reports.are_enough():
            if time.monotonic() - looked > _TREE_SECONDS:
                looked = time.monotonic()
                for change in pinned.changes():
                    reports.take(tracker.changed(change.path, served=change.served))
            for event in _news(plan, tracker, requests, dnsmasq):
                reports.take(event)
            for child in children:
                child.check()
            time.sleep(_LOOK_SECONDS)
    finally:  # what was done while we slept
        for event in _news(plan, tracker, requests, dnsmasq):
            reports.take(event)


def _news(plan: ServePlan, tracker: Tracker, requests: Tail, dnsmasq: Tail) -> Iterator[Event]:
    for parse, tail in ((parse_dnsmasq, dnsmasq), (parse_web, requests)):
        for text in tail.lines():
            line = parse(text)
            if line:
                yield from tracker.take(line)
    if tracker.is_watching():
        yield from tracker.progress(read_arrived(str(plan.address.ip), plan.http_port))


def _serving(plan: ServePlan, tree: ServedTree, tracker: Tracker) -> Event:
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
