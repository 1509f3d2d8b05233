"""An initrd that refuses any live root but the one the tree was made with.

It is one small archive that a loader puts behind the initramfs: the root's digest and a script
for each generator, which the initramfs runs by itself because of where they lie. Nothing of the
initramfs is built again.

Source: dracut's modules livenet, dmsquash-live and base; genkernel's linuxrc and initrd.scripts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from catalyst_pxeboot.formats.cpio import MEMBER_FILE, MEMBER_FOLDER, MEMBER_PROGRAM, write_archive
from catalyst_pxeboot.formats.initramfs import GENKERNEL_HOOK
from catalyst_pxeboot.plan.roots import ROOT_CHECK, ROOT_CHECK_BYTES
from catalyst_pxeboot.render.templates import render_file
from catalyst_pxeboot.util.errors import TemplateError

#: Where the scripts for dracut lie in the initramfs. None of dracut's folders can be named here:
#: where one is a symbolic link, the kernel would put a plain folder in its place.
_FOLDER = "root-check"
_DRACUT_HOOK = "initramfs/root-check-dracut.sh"
_DRACUT_CHECK = "initramfs/root-check-live-root.sh"
_GENKERNEL = "initramfs/root-check-genkernel.sh"
_SHA256 = re.compile(r"[0-9a-f]{64}")


def render_root_check(digest: str, *, hooks: Sequence[str], templates: Path | None) -> bytes:
    """Return the initrd that lets only a root of this sha256 `digest` start.

    `digest` is 64 lower-case hexadecimal digits; `hooks` are the folders of dracut's hooks in the
    initramfs images that will load it, without a slash before them. The result is
    `ROOT_CHECK_BYTES` long. A file in the folder `templates` replaces the shipped template of the
    same relative name. Raises `TemplateError`.
    """
    if not _SHA256.fullmatch(digest):
        raise TemplateError(
            f"{digest!a} is not a sha256 digest", hint="give 64 lower-case hexadecimal digits"
        )
    values = {"digest": digest}
    archive = write_archive(
        [
            (_FOLDER, MEMBER_FOLDER, b""),
            (
                f"{_FOLDER}/check-live-root",
                MEMBER_PROGRAM,
                _render(_DRACUT_CHECK, values, templates),
            ),
            *(
                # Before all others, so that nothing of dracut's can start a live root earlier.
                (f"{folder}/cmdline/00-root-check.sh", MEMBER_PROGRAM, hook)
                for hook in (_render(_DRACUT_HOOK, values, templates),)
                for folder in sorted(set(hooks))
            ),
            (GENKERNEL_HOOK, MEMBER_FILE, _render(_GENKERNEL, values, templates)),
        ]
    )
    if len(archive) > ROOT_CHECK_BYTES:
        raise TemplateError(
            f"{ROOT_CHECK}: its scripts make {len(archive)} bytes, more than {ROOT_CHECK_BYTES}",
            hint="shorten the templates below initramfs/",
        )
    return archive + bytes(ROOT_CHECK_BYTES - len(archive))


def _render(path: str, values: Mapping[str, str], templates: Path | None) -> bytes:
    return render_file(path, values, templates).content
