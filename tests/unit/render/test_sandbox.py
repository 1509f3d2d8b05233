"""Templates of users: what repeats or grows without an end is an error at its line."""

from __future__ import annotations

import time
from pathlib import Path

import jinja2
import pytest

from catalyst_pxeboot.render import sandbox
from catalyst_pxeboot.render.templates import render_file, render_text
from catalyst_pxeboot.util.errors import TemplateError

ROUNDS = r"more than 5,000 rounds of loops, macros and includes"
SIZE = r"a text or list of more than 16,777,216 characters or items"
GROW = "{% set ns = namespace(x='aaaaaaaa', l=[1]) %}\n{% for n in range(100) %}\n"

ENDLESS = {
    "loops": (ROUNDS, 2, "{% for a in range(99999) %}\n{% for b in range(99999) %}\n"
              "{% endfor %}\n{% endfor %}"),
    "recursive loop": (ROUNDS, 2, "{% for n in range(2000) recursive %}\n"
                       "{% if loop.depth < 4 %}{{ loop(range(2000)) }}{% endif %}\n{% endfor %}"),
    "macro": (ROUNDS, 2, "{% macro m(n) %}\n{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}"
              "{% endmacro %}\n{{ m(60) }}"),
    "call block": (ROUNDS, 2, "{% macro m(n) %}\n{{ caller() }}{% if n %}"
                   "{% call m(n - 1) %}{% endcall %}"
                   "{% call m(n - 1) %}{% endcall %}{% endif %}{% endmacro %}"
                   "\n{% call m(60) %}{% endcall %}"),
    "block": (ROUNDS, 2, "{% set ns = namespace(d=0) %}{% block b %}\n"
              "{% for n in range(1001) %}{% for m in range(1001) %}{% endfor %}{% endfor %}"
              "{% endblock %}"),
    "include": (ROUNDS, 1, "{% if depth < 60 %}{% set depth = depth + 1 %}"
                "{% include 'x.j2' %}{% include 'x.j2' %}{% endif %}"),
    "concat": (SIZE, 3, GROW + "{% set ns.x = ns.x ~ ns.x %}\n{% endfor %}"),
    "sum": (SIZE, 3, GROW + "{% set ns.x = ns.x + ns.x %}\n{% endfor %}"),
    "list": (SIZE, 3, GROW + "{% set ns.l = ns.l + ns.l %}\n{% endfor %}"),
    "product": (SIZE, 2, "{% set a = values_unknown | default(3) %}\n"
                "{% set x = 'a' * 1000000000 * a %}"),
    "list product": (SIZE, 1, "{{ ([1] * 1000000000) | length }}"),
    "block set": (SIZE, 3, GROW + "{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}\n{% endfor %}"),
    "macro's text": (SIZE, 4, "{% macro m(x) %}{{ x }}{{ x }}{% endmacro %}\n" + GROW
                     + "{% set ns.x = m(ns.x) %}\n{% endfor %}"),
    "power": ("10 \\*\\* 10000000000 is too large a number", 1, "{{ 10 ** 10000000000 }}"),
    "output": (SIZE, 0, "{% for n in range(4500) %}" + 4000 * "a" + "{% endfor %}"),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDLESS)
def test_an_endless_template(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "MAX_ROUNDS", 5_000)
    what, line, text = ENDLESS[name]
    (tmp_path / "x.j2").write_text(text)
    with pytest.raises(TemplateError) as caught:
        render_file("x", {"depth": 0}, tmp_path)
    place = f"x.j2, line {line}" if line else "x.j2"
    assert caught.match(f"template (/.*/)?{place}: {what}; correct the template")


def test_an_endless_template_ends_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What costs the most before the limit is met, a call for each round; a fifth of the limit."""
    assert sandbox.MAX_ROUNDS == 500_000
    monkeypatch.setattr(sandbox, "MAX_ROUNDS", 100_000)
    (tmp_path / "x.j2").write_text(ENDLESS["call block"][2])
    begun = time.process_time()
    with pytest.raises(TemplateError, match="more than 100,000 rounds"):
        render_file("x", {}, tmp_path)
    assert time.process_time() - begun < 2


def test_a_long_template_is_rendered_each_time(tmp_path: Path) -> None:
    """The limit is for one rendering: the next one counts from the beginning."""
    (tmp_path / "x.j2").write_text(
        "{% for a in range(400) %}{% for b in range(1000) %}{% endfor %}{{ a }}{% endfor %}"
    )
    expected = "".join(map(str, range(400)))
    for _ in range(2):
        assert render_text("x", {}, tmp_path)[0] == expected


def test_the_limits_change_no_value(tmp_path: Path) -> None:
    source = (
        "{% macro m(x) %}<{{ x }}>{% endmacro %}"
        "{{ m(2 ** 3 + 1) }}{{ 'a' * 3 ~ (1 + 1) }}{{ [1] + [2] }}"
        "{% macro c(x) %}{{ caller() }}{{ x }}{% endmacro %}{% call c(0) %}!{% endcall %}"
        "{% set t | upper %}b{{ 1 }}{% endset %}{{ t }}"
        "{% for n in [1, [2, [3]]] recursive %}"
        "{{ n if n is number else loop(n) }}{{ loop.length }}{% else %}none{% endfor %}"
        "{% for n in () %}{% else %}none{% endfor %}"
    )
    (tmp_path / "x.j2").write_text(source)
    text, _ = render_text("x", {}, tmp_path)
    assert text == jinja2.Template(source).render()
    assert text.startswith("<9>aaa2[1, 2]!0B1")


def test_names_are_no_filters_of_templates(tmp_path: Path) -> None:
    (tmp_path / "x.j2").write_text("{{ 1 | count }}")
    with pytest.raises(TemplateError):
        render_text("x", {}, tmp_path)
