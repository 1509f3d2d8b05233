"""Write the menus and releases.json, each by one rename, and nothing if nothing is new.

releases.json has the digest of each menu, so that another file, or a menu that was changed, is not
taken for one of this program's. A run writes all that is new into a folder beside it; the rename of
that folder is the commit. Its files are then put in place, releases.json last; the next run begins
with those that a kill left in the folder.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from catalyst_pxeboot import __version__
from catalyst_pxeboot.model.manifest import GENERATOR, MANIFEST
from catalyst_pxeboot.releases.index import (
    INDEX,
    PAGE,
    Index,
    make_index,
    read_index,
    render_index,
)
from catalyst_pxeboot.releases.scan import Found, find_releases
from catalyst_pxeboot.tree.publish import own_names
from catalyst_pxeboot.util.errors import PublishError, from_os_error
from catalyst_pxeboot.util.files import (
    read_regular,
    remove_tree,
    sync_folder,
    take_lock,
    write_file,
)
from catalyst_pxeboot.util.resources import check_templates, templates_folder

_LOCK = f".{INDEX}.lock"
_MAX_FILE = 16 << 20  # bytes; a menu of 400 trees has some 100 KiB
_STAGED = f".{INDEX}.new"
_COMMITTED = f".{INDEX}.commit"

#: Below the shipped templates: those that menus and the page are rendered by.
_OURS = ("menu", "page")

_ELSEWHERE = "move it away, or give another folder"


@dataclass(frozen=True, slots=True)
class MenuWritten:
    """How many trees the menus lead to, how many manifests were read, and what was written.

    `written` are the files that are new or changed, relative to the folder, in the order in which
    they were put in place; after a dry run, those that would be.
    """

    trees: int
    read: int
    warnings: tuple[str, ...]
    written: tuple[str, ...]


def write_menu(
    root: Path,
    *,
    templates: Path | None,
    report: Callable[[str], None],
    dry_run: bool = False,
) -> MenuWritten:
    """Write into the folder `root` menus that lead to the netboot trees below it.

    A file in the folder `templates` replaces the shipped template of the same relative name.
    `report` is called with a line for each thing found and done. With `dry_run` nothing is written.

    Raises `PublishError` if no tree is there, if a file is in the way that this program did not
    write, or another process is writing; `TemplateError` for a faulty template. Then all is left
    as it was.
    """
    try:
        _check_root(root)
        if dry_run:
            return _write_menu(root, templates, report, dry_run=True)
        with _locked(root):
            return _write_menu(root, templates, report, dry_run=False)
    except OSError as error:
        hints = {
            errno.ENOSPC: "free space there",
            errno.EDQUOT: "free space there, or raise the quota",
            errno.EACCES: "run as the user who may write there",
            errno.EPERM: "run as the user who may write there",
            errno.EROFS: "mount it writable",
        }
        raise from_os_error(
            error, f"{root}: menus not written", hint=hints.get(error.errno or 0, "try again")
        ) from error


def _check_root(root: Path) -> None:
    if not root.is_dir():
        raise PublishError(
            f"{root}: is not a folder", hint="give the folder that the netboot trees lie below"
        )
    if own_names(root) is not None:
        raise PublishError(
            f"{root}: is a netboot tree itself ({MANIFEST})",
            hint="give the folder that the netboot trees lie below",
        )


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    path = root / _LOCK
    lock = take_lock(path)
    if lock is None:
        raise PublishError(
            f"{root}: another process is writing these menus", hint="wait for it to end"
        )
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(lock)


def _write_menu(
    root: Path, templates: Path | None, report: Callable[[str], None], *, dry_run: bool
) -> MenuWritten:
    if not dry_run:
        remove_tree(root / _STAGED)
        _put_in_place(root)
    before = read_index(root / INDEX)
    known = {release.path: release for release in before.releases} if before else {}
    found = find_releases(root, known)
    report(f"{root}: {len(found.releases)} netboot trees, {len(found.read)} manifests read")
    if not found.releases:
        raise PublishError(
            f"{root}: no netboot tree found below it{_why(found)}",
            hint="give the folder that the netboot trees lie below",
        )
    rendered_by = _digest_templates(templates)
    if before and _nothing_is_new(root, before, found, rendered_by):
        report("nothing new")
        return MenuWritten(len(found.releases), len(found.read), found.warnings, ())

    # Only now: it takes Jinja2.
    from catalyst_pxeboot.releases.render import render_menus

    menus = dict(render_menus(found.releases, templates=templates))
    digests = {name: _digest(content) for name, content in menus.items()}
    own = _own_digests(before, read_index(root / _COMMITTED / INDEX), digests)
    warnings = found.warnings
    if foreign := _foreign_page(root, own):
        warnings = (*warnings, foreign)
        for names in (menus, digests, own):
            names.pop(PAGE)
    on_disk = {name: _digest_on_disk(root, name) for name in {*menus, *own}}
    _check_own(root, on_disk, own)
    contents = {name: menus[name] for name in sorted(menus) if digests[name] != on_disk[name]}
    contents[INDEX] = render_index(make_index(found.releases, digests, rendered_by))
    gone = [name for name in sorted(on_disk) if name not in menus and on_disk[name] is not None]
    if not dry_run:
        _commit(root, contents)
        _put_in_place(root)
    for name in contents:
        report(f"{'would write' if dry_run else 'written'}: {root / name}")
    for name in gone:
        report(f"{'would remove' if dry_run else 'removed'}: {root / name}: no tree has it")
    return MenuWritten(len(found.releases), len(found.read), warnings, tuple(contents))


def _foreign_page(root: Path, own: Mapping[str, frozenset[str]]) -> str:
    """Return why the page is not written; empty if it may be.

    A mirror may have a page of its own there, and no client boots by it: it stays as it is.
    """
    try:
        digest = _digest_on_disk(root, PAGE)
    except PublishError as error:
        return f"{error.message}; left as it is"
    if digest is None or digest in own.get(PAGE, frozenset()):
        return ""
    return f"{root / PAGE}: is not as {GENERATOR} wrote it; left as it is"


def _why(found: Found) -> str:
    return f" that is whole ({found.warnings[0]})" if found.warnings else ""


def _nothing_is_new(root: Path, before: Index, found: Found, rendered_by: str) -> bool:
    return (
        before.releases == found.releases
        and before.templates == rendered_by
        and all(_digest_on_disk(root, name) == digest for name, digest in before.menus.items())
    )


def _digest_templates(templates: Path | None) -> str:
    """Return the sha256 of all that the menus are rendered by, and of the program's version."""
    state = hashlib.sha256(__version__.encode())
    shipped = templates_folder()
    folders = [(shipped, shipped / name) for name in _OURS]
    if templates is not None:
        check_templates(templates)
        folders.append((templates, templates))
    for top, folder in folders:
        for path in sorted(folder.rglob("*.j2")):
            if path.is_file():
                name = os.fsencode(path.relative_to(top))
                content = read_regular(path, limit=_MAX_FILE)
                state.update(b"\0%b\0%b" % (name, _digest(content).encode()))
    return state.hexdigest()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _digest_on_disk(root: Path, name: str) -> str | None:
    """Return the sha256 of the file `name`, or None if there is none."""
    path = root / name
    if path.parent != root and path.parent.is_symlink():
        raise PublishError(f"{path.parent}: is a link, not a folder", hint=_ELSEWHERE)
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise PublishError(f"{path}: is in the way and not a file", hint=_ELSEWHERE)
        return _digest(read_regular(path, limit=_MAX_FILE))
    except FileNotFoundError:
        return None
    except NotADirectoryError as error:
        raise PublishError(
            f"{path.parent}: is in the way and not a folder", hint=_ELSEWHERE
        ) from error


def _own_digests(*known: Index | Mapping[str, str] | None) -> dict[str, frozenset[str]]:
    """Return by file the digests of what this program may have written there."""
    own: dict[str, set[str]] = {}
    for item in known:
        for name, digest in (item.menus if isinstance(item, Index) else item or {}).items():
            own.setdefault(name, set()).add(digest)
    return {name: frozenset(digests) for name, digests in own.items()}


def _check_own(
    root: Path, on_disk: Mapping[str, str | None], own: Mapping[str, frozenset[str]]
) -> None:
    for name, digest in sorted(on_disk.items()):
        if digest is not None and digest not in own.get(name, frozenset()):
            raise PublishError(
                f"{root / name}: is not as {GENERATOR} wrote it, so it is not replaced",
                hint="move it away; for a menu of your own, give a folder of templates",
            )


def _commit(root: Path, contents: Mapping[str, bytes]) -> None:
    """Write `contents` where the next step, or the next run, finds them: all or none."""
    staged = root / _STAGED
    for folder in {(root / name).parent for name in contents}:
        if folder.exists() and not os.access(folder, os.W_OK):  # now, and not half-way
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
    try:
        for name, content in contents.items():
            (staged / name).parent.mkdir(parents=True, exist_ok=True)
            write_file(staged / name, content, time=int(time.time()))
        for folder in {(staged / name).parent for name in contents}:
            sync_folder(folder)
        staged.replace(root / _COMMITTED)
        sync_folder(root)
    except BaseException:
        remove_tree(staged)
        raise


def _put_in_place(root: Path) -> None:
    """Put in place what was committed, if anything was, and remove the menus that it lacks."""
    committed = root / _COMMITTED
    if not os.path.lexists(committed):
        return
    if committed.is_symlink() or not committed.is_dir():
        raise PublishError(f"{committed}: is in the way and not a folder", hint=_ELSEWHERE)
    wanted = read_index(committed / INDEX)
    if wanted:
        before = read_index(root / INDEX)
        own = _own_digests(before, wanted)
        on_disk = {name: _digest_on_disk(root, name) for name in own if name != PAGE}
        _check_own(root, on_disk, own)
        if not _foreign_page(root, own):
            on_disk[PAGE] = _digest_on_disk(root, PAGE)
        for name in (*sorted(on_disk), INDEX):
            target = root / name
            if (committed / name).exists():
                if not target.parent.exists():
                    target.parent.mkdir()
                    target.parent.chmod(0o755)  # whatever the umask: a server reads it
                (committed / name).replace(target)
            elif name != INDEX and name not in wanted.menus:
                target.unlink(missing_ok=True)
            sync_folder(target.parent)
    remove_tree(committed)
