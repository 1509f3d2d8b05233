"""Boot a netboot tree along paths of the table, and judge each by console and servers."""

from __future__ import annotations

import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from catalyst_pxeboot.lab.boot import boot_client, first_unreadable, prepare_flash
from catalyst_pxeboot.lab.causes import Evidence, find_cause
from catalyst_pxeboot.lab.machine import (
    Accel,
    Front,
    Link,
    TapLink,
    choose_accel,
    find_flash,
    find_image,
    find_ipxe_efi,
    find_qemu,
    qemu_argv,
    starts_from_disk,
)
from catalyst_pxeboot.lab.network import TAP, make_network, why_no_network
from catalyst_pxeboot.lab.paths import PATHS, BootPath, DhcpMode, Scheme, choose_paths, for_tree
from catalyst_pxeboot.lab.plainrom import disguised_link
from catalyst_pxeboot.lab.report import write_junit
from catalyst_pxeboot.lab.result import Outcome, PathResult
from catalyst_pxeboot.lab.screen import Screen
from catalyst_pxeboot.lab.serve import check_web_server
from catalyst_pxeboot.lab.servers import (
    find_dnsmasq,
    path_site,
    read_arch,
    serve_site,
)
from catalyst_pxeboot.lab.treemenu import TreeMenu, read_menu, view_tree, why_mute
from catalyst_pxeboot.lab.watch import GAVE_UP, Verdict, watch_machine
from catalyst_pxeboot.loader import LOADERS
from catalyst_pxeboot.model.loader import Loader
from catalyst_pxeboot.tree.manifest import read_config, read_manifest
from catalyst_pxeboot.util.errors import CommandError, PxebootError

#: What a live system shows when it is up: agetty's prompt, also of an automatic login; or, where
#: root is logged in without one as Gentoo's images do it, the banner (/etc/motd, by catalyst's
#: livecdfs-update.sh) and the shell's prompt.
UNTIL = re.compile(
    r"(?:^|\s)login: "
    r"|^Welcome to the Gentoo Linux .*(?:Installation CD|LiveCD)"
    r"|^(?:root@)?livecd(?:\.\S+)? ~ # ?$"
)

TIMEOUT = 300.0  # seconds
MEMORY_MIB = 1024

_ENTER = "\r"  # what the key sends on a serial line
_TRIES = 3  # boots, where a loader gives up by a flaw of its own
Report = Callable[[PathResult], None]


def boot_test(
    tree: Path,
    *,
    firmware: Sequence[str] = (),
    loaders: Sequence[Loader] = (),
    memory_mib: int | None = None,
    timeout: float = TIMEOUT,
    until: re.Pattern[str] = UNTIL,
    junit: Path | None = None,
    screenshot: Path | None = None,
    jobs: int = 1,
    report: Report = lambda _result: None,
) -> tuple[PathResult, ...]:
    """Boot `tree` along every path that its architecture, `firmware` and `loaders` leave.

    Without `memory_mib` a client has 1 GiB, or more if the tree's default entry needs it.
    `jobs` boots run at once. `report` is called after each. `junit` names a file for the results,
    `screenshot` one for a picture of the screen; of several paths each has its own, with the path's
    name in it. Raises `PxebootError` if `tree` is not a netboot tree or no path is left.
    """
    for option, file in (("--junit", junit), ("--screenshot", screenshot)):
        if file and not file.parent.is_dir():  # reported before all boots, not after
            raise PxebootError(
                f"{option}: no folder {file.parent}", hint="make it, or name another"
            )
    arch = read_arch(tree)
    paths = for_tree(
        choose_paths(PATHS, arch=arch, firmware=firmware, loaders=loaders),
        read_manifest(tree)[1].program,
    )
    if not paths:
        known = choose_paths(PATHS, arch=arch)
        raise PxebootError(
            f"{tree}: no client for {arch} is of this --firmware and --loader",
            hint="there are " + ", ".join(dict.fromkeys(
                f"{path.loader} on {path.machine.name}" for path in known
            )),
        )  # fmt: skip
    results = run_paths(
        tree, paths, memory_mib=memory_mib, timeout=timeout, until=until, screenshot=screenshot,
        jobs=jobs, report=report,
    )  # fmt: skip
    if junit:
        write_junit(results, junit)
    return results


def run_paths(
    tree: Path,
    paths: Sequence[BootPath],
    *,
    memory_mib: int | None = None,
    timeout: float = TIMEOUT,
    until: re.Pattern[str] = UNTIL,
    screenshot: Path | None = None,
    jobs: int = 1,
    report: Report = lambda _result: None,
) -> tuple[PathResult, ...]:
    """Run `paths`, `jobs` at once, and return their results in the same order."""
    obstacle = why_no_network()
    stop = threading.Event()

    def run(path: BootPath) -> PathResult:
        return run_path(
            tree, path,
            memory_mib=memory_mib, timeout=timeout, until=until, obstacle=obstacle,
            screenshot=picture_name(screenshot, path, alone=len(paths) == 1), stop=stop,
        )  # fmt: skip

    with ThreadPoolExecutor(max_workers=jobs) as pool:
        results = [pool.submit(run, path) for path in paths]
        try:
            for result in as_completed(results):
                report(result.result())
        finally:  # after Ctrl-C, no boot goes on
            stop.set()
            pool.shutdown(cancel_futures=True)
    return tuple(result.result() for result in results)


def picture_name(file: Path | None, path: BootPath, *, alone: bool) -> Path | None:
    """Name the picture of a path: `file` as it is, or with the path's name before its ending."""
    if file is None or alone:
        return file
    return file.with_name(f"{file.stem}-{path.name}{file.suffix}")


def run_path(
    tree: Path,
    path: BootPath,
    *,
    memory_mib: int | None = None,
    timeout: float = TIMEOUT,
    until: re.Pattern[str] = UNTIL,
    log: Path | None = None,
    accel: Accel = Accel.AUTO,
    complaint: re.Pattern[str] | None = None,
    obstacle: str | None = None,
    screenshot: Path | None = None,
    stop: threading.Event | None = None,
) -> PathResult:
    """Boot a client along `path` and wait until a line of its console matches `until`.

    `timeout` is in seconds. `log` receives the whole console, files beside it the servers' logs.
    With a `complaint` the tree is a broken one: the path passes when a line of the console matches
    that and not `until`.
    `obstacle` says why there can be no network of our own, as `why_no_network` does, which is
    asked if nothing is given; QEMU's user network takes its place then where it can.
    `screenshot` receives a picture of the screen at the end. `stop` ends the boot.
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
    if obstacle and not path.is_simple:
        return _skipped(path, f"{obstacle}, and QEMU's user network cannot stand in")
    watched = until
    if complaint:
        watched = re.compile(f"(?:{complaint.pattern})|(?:{until.pattern})")
    menu = read_menu(tree)
    mute = "" if menu.has_serial_console else why_mute(tree, path.loader)
    task = _Task(
        tree, path, menu,
        memory_mib=memory_mib or menu.memory_for(path.loader, path.machine.firmware, MEMORY_MIB),
        timeout=timeout,
        until=watched,
        log=log,
        accel=accel,
        arguments="" if menu.has_serial_console or mute else menu.arguments,
        screen=Screen(screenshot) if screenshot and path.machine.screen else None,
        stop=stop,
    )  # fmt: skip
    gave_up = 0
    try:
        while True:
            walk = _walk_user_network(task) if obstacle else _walk_network(task)
            if gave_up == _TRIES - 1 or not _gave_up(path, walk):
                break
            gave_up += 1
    except PxebootError as error:
        return PathResult(path, Outcome.FAILED, 0.0, str(error), {}, ())
    if complaint:
        outcome, reason = judge_complaint(walk.verdict, complaint)
    else:
        outcome, reason = judge(path, walk.verdict, None if obstacle else walk.fetched)
    notes = [f"only by QEMU's user network: {obstacle}" if obstacle else walk.note, mute]
    if gave_up:
        notes.append(
            f"the loader gave up in the middle of a file, {gave_up}x, and was started again"
        )
    if task.arguments:
        notes.append(f"{task.arguments} was added to the kernel's arguments, so that it be heard")
    if screenshot and not task.screen:
        notes.append("no picture of the screen: this kind of client has none")
    if task.screen:
        notes.append(task.screen.fault)
    return PathResult(
        path, outcome, walk.verdict.seconds, reason, walk.fetched,
        walk.verdict.console_tail,
        note="; ".join(note for note in notes if note),
        cause=_cause(task, walk, own_network=not obstacle) if not walk.verdict.passed else "",
        screenshot=screenshot if task.screen and not task.screen.fault else None,
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


def _gave_up(path: BootPath, walk: _Walk) -> bool:
    """Say whether the loader stopped by a flaw of its own; a machine would start it again.

    lpxelinux.0 does so in the middle of a file where the processor is busy: 1 boot of 10 beside two
    endless loops, none on a quiet machine.
    """
    menu_came = walk.fetched.get(str(path.chain[-1]))
    return not walk.verdict.passed and GAVE_UP in walk.verdict.reason and bool(menu_came)


def _check_programs(path: BootPath, *, own_network: bool) -> None:
    """Raise `CommandError` if something is missing on this machine that the path needs."""
    find_qemu(path.machine)
    find_flash(path.machine)
    find_image(path.machine)
    check_web_server()
    if own_network:
        find_dnsmasq()
    elif path.loader is Loader.IPXE and starts_from_disk(path.machine, path.loader):
        find_ipxe_efi()


def _skipped(path: BootPath, reason: str) -> PathResult:
    return PathResult(path, Outcome.SKIPPED, 0.0, reason, {}, ())


@dataclass(frozen=True, slots=True)
class _Task:
    """One boot: what is asked for, and what the tree's menu means for it."""

    tree: Path
    path: BootPath
    menu: TreeMenu
    memory_mib: int
    timeout: float
    until: re.Pattern[str]
    log: Path | None
    accel: Accel
    arguments: str  # more words for the kernel
    screen: Screen | None
    stop: threading.Event | None

    @property
    def typed(self) -> tuple[tuple[str, str], ...]:
        """What a user at the client would type: also Enter at a menu that never goes on."""
        if self.path.machine.typed or not self.menu.waits:
            return self.path.machine.typed
        return ((r"Power off", _ENTER),)


@dataclass(frozen=True, slots=True)
class _Walk:
    """What console and servers showed of one boot."""

    verdict: Verdict
    fetched: Mapping[str, int]
    note: str = ""


def _cause(task: _Task, walk: _Walk, *, own_network: bool) -> str:
    verdict = walk.verdict
    return find_cause(
        Evidence(
            verdict.reason,
            verdict.console_tail,
            timed_out=verdict.timed_out,
            silence=verdict.silence,
            timeout=task.timeout,
            memory_mib=task.memory_mib,
            serial=task.menu.has_serial_console or bool(task.arguments),
            waits=task.menu.waits,
            fetched=walk.fetched if own_network else None,
        )
    )


def _walk_network(task: _Task) -> _Walk:
    """Boot a client on a network of its own, with real servers."""
    path, machine, tree = task.path, task.path.machine, task.tree
    qemu = find_qemu(machine)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pxeboot-lab-")))
        flash = prepare_flash(machine, scratch)
        site = path_site(tree, path)
        if task.arguments:
            name = LOADERS[path.loader].configs[0]
            text = read_config(tree, name)
            text = LOADERS[path.loader].add_arguments(text, task.arguments)
            tree = view_tree(tree, scratch / "view", {name: text.encode()})
        network = stack.enter_context(make_network(site.subnet, other=path.dhcp is DhcpMode.PROXY))
        services = stack.enter_context(serve_site(network, tree, site, scratch))
        link: Link = TapLink(TAP)
        inherited: tuple[int, ...] = ()
        note = ""
        if path.disguised:
            link, _disguise = stack.enter_context(disguised_link(network.open_tap()))
            inherited = (link.descriptor,)
            note = "the client's network ROM is an iPXE that hides this from DHCP"
        argv = qemu_argv(
            machine, link, qemu=qemu, accel=choose_accel(task.accel, qemu, machine),
            memory_mib=task.memory_mib, flash=flash, image=find_image(machine),
            http_boot=path.http_boot,
            front=Front(control=task.screen.control(scratch)) if task.screen else None,
        )  # fmt: skip
        verdict = watch_machine(
            network.inside(argv), until=task.until, timeout=task.timeout, log=task.log,
            inherited=inherited, typed=task.typed, screen=task.screen, stop=task.stop,
        )  # fmt: skip
        if task.log:
            for kind, file in services.logs.items():
                if file.is_file():
                    shutil.copyfile(file, task.log.with_suffix(f".{kind}{task.log.suffix}"))
        return _Walk(verdict, services.fetched(), note)


def _walk_user_network(task: _Task) -> _Walk:
    """Boot by QEMU's user network, whose TFTP reports nothing."""
    path = task.path
    verdict, served = boot_client(
        task.tree, path.machine, path.loader, path.entry, until=task.until, timeout=task.timeout,
        memory_mib=task.memory_mib, log=task.log, accel=task.accel, arguments=task.arguments,
        typed=task.typed, screen=task.screen, stop=task.stop,
    )  # fmt: skip
    return _Walk(
        verdict, {f"{Scheme.HTTP}:{name.lstrip('/')}": size for name, size in served.items()}
    )
