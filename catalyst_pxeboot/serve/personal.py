"""What `serve` adds to a tree on the fly: the user's own files, and where machines report.

The tree stays as it is; the servers show some of its files with more in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from catalyst_pxeboot.loader import loader_of
from catalyst_pxeboot.model.manifest import GRUB_ENDING
from catalyst_pxeboot.personal.model import Personal
from catalyst_pxeboot.render.personal import render_personal
from catalyst_pxeboot.serve.facts import ServedTree
from catalyst_pxeboot.tree.manifest import read_config
from catalyst_pxeboot.util.errors import PxebootError

#: The file that machines ask for when they are up; what they say is in the query behind it.
REPORT = "pxeboot-up"
_ALIGNED = 512  # bytes; the kernel looks for the next archive at a multiple of 4


@dataclass(frozen=True, slots=True)
class Additions:
    """Files that are shown otherwise than they are in the tree, by their path.

    `appended` is what comes behind a file, `replaced` what is in its place or new.
    """

    appended: Mapping[str, bytes] = field(default_factory=dict)
    replaced: Mapping[str, bytes] = field(default_factory=dict)

    def sizes(self, files: Mapping[str, int]) -> dict[str, int]:
        """Return the bytes of each file as it is shown."""
        return {
            **files,
            **{path: files[path] + len(more) for path, more in self.appended.items()},
            **{path: len(content) for path, content in self.replaced.items()},
        }


NO_ADDITIONS = Additions()


def plan_additions(tree: ServedTree, personal: Personal, url: str = "") -> Additions:
    """Plan what is shown otherwise; nothing for a tree and a user without own files.

    `url` is the tree's, with a slash at its end; without it machines report nothing. Raises
    `PxebootError` for a signed tree, whose loaders would refuse it.
    """
    if not (personal or tree.personal):
        return Additions()
    if personal and tree.signed:
        raise PxebootError(
            f"{tree.path}: it is signed, so its loaders refuse what is added while it is served",
            hint="build it with pxeboot/ssh_keys and its like",
        )
    words = personal.arguments
    replaced = {}
    if url:
        words = (*words, f"pxeboot.report={url}{REPORT}")
        replaced[REPORT] = b"ok\n"
    for name in tree.files:
        loader = loader_of(name)
        # The first one has the entries; the others lead to it, or are single machines' own.
        if loader and name not in loader.configs[1:] and f"{name}{GRUB_ENDING}" not in tree.files:
            text = loader.add_arguments(read_config(tree.path, name), " ".join(words))
            replaced[name] = text.encode()
    if not personal:
        return Additions(replaced=replaced)
    archive = render_personal(personal, None)
    appended = {path: bytes(-tree.files[path] % _ALIGNED) + archive for path in tree.initramfs}
    return Additions(appended, replaced)
