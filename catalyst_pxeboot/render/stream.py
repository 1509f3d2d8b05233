"""The scripts of the initrd that streams a root.

Source: dracut's initqueue and its module dmsquash-live; genkernel's linuxrc; dm-verity's table;
nbdkit(1).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from catalyst_pxeboot.formats.initramfs import GENKERNEL_HOOK, Generator
from catalyst_pxeboot.model.files import STREAM_FOLDER
from catalyst_pxeboot.render.templates import render_file

#: Seconds for which a server may be away before reading the root ends in an error.
PATIENCE: Final = 300

_SCRIPTS: Final = {"stream": "stream", "dhcp": "stream-dhcp", "serve": "stream-serve"}


def render_stream(
    *, generator: Generator, hooks: str, interpreter: str, templates: Path | None
) -> Sequence[tuple[str, bytes]]:
    """Return the scripts for an initramfs of `generator` with their paths in it.

    `hooks` is dracut's folder of hooks in it, without a slash before it; `interpreter` is busybox's
    dynamic loader in the tools' root. A file in the folder `templates` replaces the shipped
    template of the same relative name. Raises `TemplateError`.
    """
    values = {"patience": PATIENCE, "interpreter": interpreter}
    # dracut runs its hooks in the order of their names: this one before those that look for a root.
    hook = {
        Generator.DRACUT: f"{hooks}/initqueue/settled/00-stream.sh",
        Generator.GENKERNEL: GENKERNEL_HOOK,
    }[generator]
    names = {
        **{f"{STREAM_FOLDER}/{path}": name for path, name in _SCRIPTS.items()},
        f"{STREAM_FOLDER}/initramfs": f"stream-{generator}",
        hook: f"stream-{generator}-hook",
    }
    return [
        (path, render_file(f"initramfs/{name}.sh", values, templates).content)
        for path, name in names.items()
    ]
