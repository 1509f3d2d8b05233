"""Boot a netboot tree along paths of the table, and judge each by console and servers."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from catalyst_pxeboot.errors import CommandError, PxebootError
from catalyst_pxeboot.lab.boot import (
    Verdict,
    boot_client,
    first_unreadable,
    prepare_flash,
    watch_machine,
)
from catalyst_pxeboot.lab.machine import (
    Accel,
    Link,
    TapLink,
    choose_accel,
    find_flash,
    find_image,
    find_ipxe_efi,
    find_qemu,
    qemu_argv,
)
from catalyst_pxeboot.lab.network import TAP, make_network, why_no_network
from catalyst_pxeboot.lab.paths import PATHS, BootPath, DhcpMode, Scheme, choose_paths
from catalyst_pxeboot.lab.plainrom import disguised_link
from catalyst_pxeboot.lab.report import write_junit
from catalyst_pxeboot.lab.result import Outcome, PathResult
from catalyst_pxeboot.lab.services import (
    choose_loader,
    find_dnsmasq,
    path_site,
    read_arch,
    read_site,
    serve_site,
)
from catalyst_pxeboot.model import Firmware, Loader

#: What a live system shows when it is up: agetty's prompt, also of an automatic login.
UNTIL = re.compile(r"(?:^|\s)login: ")

TIMEOUT = 300.0  # seconds
MEMORY_MIB = 1024


Report = Callable[[PathResult], None]


def boot_test(
    tree: Path,
    *,
    firmware: Firmware | None = None,
    loader: Loader | None = None,
    memory_mib: int = MEMORY_MIB,
    timeout: float = TIMEOUT,
    until: re.Pattern[str] = UNTIL,
    junit: Path | None = None,
    report: Report = lambda _result: None,
) -> tuple[PathResult, ...]:
    """Boot `tree` along every path that its architecture, `firmware` and `loader` leave.

    `report` is called after each. `junit` names a file for the results. Raises `PxebootError` if
    `tree` is no netboot tree or no path is left.
    """
    paths = choose_paths(PATHS, arch=read_arch(tree), firmware=firmware, loader=loader)
    if not paths:
        raise PxebootError(
            f"{tree}: no path fits --firmware and --loader", hint="leave one of the two out"
        )
    results = run_paths(
        tree, paths, memory_mib=memory_mib, timeout=timeout, until=until, report=report
    )
    if junit:
        write_junit(results, junit)
    return results


def run_paths(
    tree: Path,
    paths: Sequence[BootPath],
    *,
    memory_mib: int = MEMORY_MIB,
    timeout: float = TIMEOUT,
    until: re.Pattern[str] = UNTIL,
    logs: Path | None = None,
    report: Report = lambda _result: None,
) -> tuple[PathResult, ...]:
    """Run `paths` one after the other. `logs` is a folder for the consoles."""
    obstacle = why_no_network()
    results = []
    for path in paths:
        result = run_path(
            tree, path,
            memory_mib=memory_mib, timeout=timeout, until=until, obstacle=obstacle,
            log=logs / f"{path.name}.log" if logs else None,
        )  # fmt: skip
        report(result)
        results.append(result)
    return tuple(results)


def run_path(
    tree: Path,
    path: BootPath,
    *,
    memory_mib: int = MEMORY_MIB,
    timeout: float = TIMEOUT,
    until: re.Pattern[str] = UNTIL,
    log: Path | None = None,
    accel: Accel = Accel.AUTO,
    config: str | None = None,
    complaint: re.Pattern[str] | None = None,
    obstacle: str | None = None,
) -> PathResult:
    """Boot a client along `path` and wait until a line of its console matches `until`.

    `timeout` is in seconds. `log` receives the whole console, files beside it the servers' logs.
    `config` takes the place of the tree's own configuration of dnsmasq. With a `complaint` the
    tree is a broken one: the path passes when a line of the console matches that and not `until`.
    `obstacle` says why there can be no network of our own, as `why_no_network` does, which is
    asked if nothing is given; QEMU's user network takes its place then where it can.
    """
    tree = tree.resolve()
    if path.closed and not path.offered(tree):
        return _skipped(path, path.closed)
    lacking = path.lacks(tree)
    if lacking:
        return _skipped(path, f"the tree has no {' and no '.join(lacking)}")
    unreadable = first_unreadable(tree)
    if unreadable:
        return PathResult(
            path, Outcome.FAILED, 0.0, f"{unreadable} is not readable by a server", {}, ()
        )
    if obstacle is None:
        obstacle = why_no_network()
    try:
        _check_programs(path, own_network=not obstacle)
    except CommandError as error:
        return _skipped(path, str(error))
    if obstacle and path.client is None:
        return _skipped(path, f"{obstacle}, and QEMU's user network cannot stand in")
    watched = until
    if complaint:
        watched = re.compile(f"(?:{complaint.pattern})|(?:{until.pattern})")
    try:
        if obstacle:
            walk = _walk_user_network(
                tree, path, memory_mib=memory_mib, timeout=timeout, until=watched, log=log,
                accel=accel,
            )  # fmt: skip
        else:
            walk = _walk_network(
                tree, path, config, memory_mib=memory_mib, timeout=timeout, until=watched, log=log,
                accel=accel,
            )  # fmt: skip
    except PxebootError as error:
        return PathResult(path, Outcome.FAILED, 0.0, str(error), {}, ())
    if complaint:
        outcome, reason = judge_complaint(walk.verdict, complaint)
    else:
        outcome, reason = judge(path, walk.verdict, None if obstacle else walk.fetched)
    return PathResult(
        path, outcome, walk.verdict.seconds, reason, walk.fetched, walk.verdict.console_tail,
        f"only by QEMU's user network: {obstacle}" if obstacle else walk.note,
    )  # fmt: skip


def judge(
    path: BootPath, verdict: Verdict, fetched: Mapping[str, int] | None
) -> tuple[Outcome, str]:
    """Join what the console and the servers tell: both must agree that the path was walked.

    `fetched` None means that there are no servers to ask.
    """
    if not verdict.passed:
        return Outcome.FAILED, verdict.reason
    if fetched is not None:
        missed = [str(step) for step in path.chain if not fetched.get(str(step))]
        if missed:
            return (
                Outcome.FAILED,
                f"booted by another way: {' and '.join(missed)} was never fetched",
            )
        if not _root_came(path, fetched):
            return (
                Outcome.FAILED,
                f"booted by another way: no {path.root} was fetched by {path.payload.upper()}",
            )
    return Outcome.PASSED, verdict.reason


def judge_complaint(verdict: Verdict, complaint: re.Pattern[str]) -> tuple[Outcome, str]:
    """Judge the boot of a broken tree, which must end with the complaint."""
    if not verdict.passed:
        return Outcome.FAILED, verdict.reason
    if not complaint.search(verdict.reason):
        return Outcome.FAILED, f"booted in spite of the fault: {verdict.reason}"
    return Outcome.PASSED, verdict.reason


def _root_came(path: BootPath, fetched: Mapping[str, int]) -> bool:
    return any(
        size and name.startswith(f"{path.payload}:") and name.endswith(f".{path.root}")
        for name, size in fetched.items()
    )


def _check_programs(path: BootPath, *, own_network: bool) -> None:
    """Raise `CommandError` if something is missing on this machine that the path needs."""
    find_qemu(path.machine)
    find_flash(path.machine)
    find_image(path.machine)
    if own_network:
        find_dnsmasq()
    elif path.client and path.client.loader is Loader.IPXE and path.client.machine.flash:
        find_ipxe_efi()


def _skipped(path: BootPath, reason: str) -> PathResult:
    return PathResult(path, Outcome.SKIPPED, 0.0, reason, {}, ())


@dataclass(frozen=True, slots=True)
class _Walk:
    """What console and servers told of one boot."""

    verdict: Verdict
    fetched: Mapping[str, int]
    note: str = ""


def _walk_network(
    tree: Path,
    path: BootPath,
    config: str | None,
    *,
    memory_mib: int,
    timeout: float,
    until: re.Pattern[str],
    log: Path | None,
    accel: Accel,
) -> _Walk:
    """Boot a client on a network of its own, with real servers."""
    machine = path.machine
    qemu = find_qemu(machine)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pxeboot-lab-")))
        flash = prepare_flash(machine, scratch)
        site = choose_loader(read_site(config), path) if config else path_site(tree, path)
        network = stack.enter_context(make_network(site.subnet, other=path.dhcp is DhcpMode.PROXY))
        services = stack.enter_context(serve_site(network, tree, site, scratch))
        link: Link = TapLink(TAP)
        inherited: tuple[int, ...] = ()
        note = ""
        if path.disguised:
            link, _disguise = stack.enter_context(disguised_link(network.open_tap()))
            inherited = (link.descriptor,)
            note = "the client's network ROM is an iPXE that DHCP was not told to be one"
        argv = qemu_argv(
            machine, link, qemu=qemu, accel=choose_accel(accel, qemu, machine),
            memory_mib=memory_mib, flash=flash, image=find_image(machine),
            http_boot=path.http_boot,
        )  # fmt: skip
        verdict = watch_machine(
            network.inside(argv), until=until, timeout=timeout, log=log, inherited=inherited,
            typed=machine.typed,
        )  # fmt: skip
        if log:
            for kind, file in services.logs.items():
                if file.is_file():
                    shutil.copyfile(file, log.with_suffix(f".{kind}{log.suffix}"))
        return _Walk(verdict, services.fetched(), note)


def _walk_user_network(
    tree: Path,
    path: BootPath,
    *,
    memory_mib: int,
    timeout: float,
    until: re.Pattern[str],
    log: Path | None,
    accel: Accel,
) -> _Walk:
    """Boot by QEMU's user network, whose TFTP tells nothing."""
    if path.client is None:
        raise PxebootError(f"{path.name}: QEMU's user network cannot stand in")
    verdict, served = boot_client(
        tree, path.client, until=until, timeout=timeout, memory_mib=memory_mib, log=log,
        accel=accel,
    )  # fmt: skip
    return _Walk(
        verdict, {f"{Scheme.HTTP}:{name.lstrip('/')}": size for name, size in served.items()}
    )
