"""Render one file by its Jinja2 template, the user's before the shipped.

A template is written by people who know the loader, not Python. What goes wrong in it names the
template and the line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from catalyst_pxeboot.model.files import MadeFile, Role
from catalyst_pxeboot.util.errors import TemplateError
from catalyst_pxeboot.util.files import read_regular
from catalyst_pxeboot.util.resources import templates_folder

if TYPE_CHECKING:
    import jinja2

_MAX_TEMPLATE = 1024 * 1024  # bytes


def render_file(
    path: str, values: Mapping[str, Any], templates: Path | None, *, role: Role = Role.CONFIG
) -> MadeFile:
    """Render the tree's file `path` by the template of its name, the user's before the shipped.

    `values` must have been checked for what reads the file. Raises `TemplateError`.
    """
    text, origin = render_text(path, values, templates)
    return MadeFile(path, text.encode(), role, origin)


def render_text(path: str, values: Mapping[str, Any], templates: Path | None) -> tuple[str, str]:
    """Return the rendered text and what it was made from."""
    from jinja2.exceptions import TemplateNotFound, TemplateSyntaxError

    from catalyst_pxeboot.render.sandbox import LimitError, render_limited

    name = f"{path}.j2"
    environment = _shipped() if templates is None else _environment(templates)
    try:
        template = environment.get_template(name)
        text = render_limited(template, values)
    except TemplateSyntaxError as error:
        where = error.filename or error.name or name
        raise TemplateError(
            f"template {where}, line {error.lineno}: {error.message}",
            hint="correct the template; see Jinja2's template documentation",
        ) from error
    except TemplateNotFound as error:
        raise TemplateError(
            f'template {name}: includes "{error.message}", which is not there',
            hint="put it into the folder of pxeboot/templates or leave the include out",
        ) from error
    except OSError as error:
        raise TemplateError(
            f"template {error.filename or name}: {error.strerror or error}",
            hint="make the file readable or correct pxeboot/templates",
        ) from error
    except UnicodeDecodeError as error:
        raise TemplateError(
            f"template {name}: byte {error.start} is not UTF-8", hint="save the file as UTF-8"
        ) from error
    except TemplateError:
        raise
    except LimitError as error:
        raise TemplateError(
            f"template {_place(error, name)}: {error}",
            hint="correct the template, which repeats something without an end",
        ) from error
    except Exception as error:  # whatever a template's expression can raise
        known = " ".join(sorted(values)) or "none"
        raise TemplateError(
            f"template {_place(error, name)}: {error}",
            hint=f"correct the template; the values it may use are: {known}",
        ) from error
    return text, f"template {name}" + (" (own)" if _is_own(templates, name) else "")


@cache
def _shipped() -> jinja2.Environment:
    return _environment(None)


def _environment(templates: Path | None) -> jinja2.Environment:
    import jinja2

    from catalyst_pxeboot.render.sandbox import LimitedEnvironment

    if templates is not None and not templates.is_dir():
        raise TemplateError(
            f"pxeboot/templates: {templates} is not a folder",
            hint="name a folder, or leave the key out to use the shipped templates",
        )
    folders = [templates_folder()] if templates is None else [templates, templates_folder()]
    return LimitedEnvironment(
        loader=jinja2.ChoiceLoader([_folder_loader(folder) for folder in folders]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=_is_html,
    )


def _is_html(name: str | None) -> bool:
    """Say whether values are escaped for HTML; elsewhere they were quoted before."""
    return name is not None and name.endswith(".html.j2")


def _folder_loader(folder: Path) -> jinja2.BaseLoader:
    """Make a loader of one folder that shows its file names in errors and stays inside it."""
    import jinja2

    real = folder.resolve()

    def load(name: str) -> tuple[str, str, Callable[[], bool]] | None:
        if not _stays_inside(name):
            return None
        file = real / name
        # A dangling link is a mistake to tell, not a template that is not there.
        if not file.exists() and not file.is_symlink():
            return None
        if not file.resolve().is_relative_to(real):
            raise TemplateError(
                f"template {file}: leads out of {folder}",
                hint="put a copy into the folder instead of a link",
            )
        return read_regular(file, limit=_MAX_TEMPLATE).decode(), str(file), lambda: True

    return jinja2.FunctionLoader(load)


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def _is_own(templates: Path | None, name: str) -> bool:
    return templates is not None and (templates / name).exists()


def _place(error: BaseException, name: str) -> str:
    """Name the template's file and line, which Jinja2 writes into the traceback only."""
    place = name
    traceback = error.__traceback__
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        if file.endswith(".j2"):
            place = f"{file}, line {traceback.tb_lineno}"
        traceback = traceback.tb_next
    return place
