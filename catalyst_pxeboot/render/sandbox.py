"""Jinja2's sandbox with limits: a template that would not end, or not fit in memory, is an error.

Each round of a loop, call of a macro and include counts, and no text or list that a template makes
may grow beyond a size. The counting is compiled into the template, so that it covers every way to
repeat something.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from jinja2 import nodes, pass_context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MAX_ROUNDS = 500_000  # the menu of 400 trees takes some thousands
MAX_SIZE = 16 << 20  # characters of a text, items of a list
_MAX_BITS = 1 << 16  # of a power

_rounds: ContextVar[int] = ContextVar("rounds", default=0)


class LimitError(Exception):
    """A template went over a limit."""


class LimitedEnvironment(ImmutableSandboxedEnvironment):
    """A sandbox whose templates are rendered by `render_limited`."""

    intercepted_binops = frozenset({"+", "*", "**"})

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.filters[_COUNT] = _count
        self.filters[_BOUND] = _bound

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Calculate `left operator right`, or raise `LimitError` before it gets too large."""
        if operator == "**":
            if isinstance(left, int) and left.bit_length() * abs(right) > _MAX_BITS:
                raise LimitError(f"{left} ** {right} is too large a number")
        elif operator == "*":
            for many, times in ((left, right), (right, left)):
                if isinstance(times, int) and hasattr(many, "__len__"):
                    _check_size(len(many) * times)
        result = super().call_binop(context, operator, left, right)
        return _bound(result)

    def _generate(self, source: nodes.Template, *arguments: Any, **options: Any) -> str:
        return super()._generate(_Limiter(self).visit(source), *arguments, **options)


def render_limited(template: Any, values: Mapping[str, Any]) -> str:
    """Render a template of a `LimitedEnvironment`; raises `LimitError` where a limit is met."""
    token = _rounds.set(0)
    try:
        return "".join(_pieces(template.generate(values)))
    finally:
        _rounds.reset(token)


def _pieces(pieces: Iterator[str]) -> Iterator[str]:
    size = 0
    for piece in pieces:
        size += len(piece)
        _check_size(size)
        yield piece


# Names that a template cannot write.
_COUNT = "count rounds"
_BOUND = "bound size"


class _Limiter(NodeTransformer):
    """Writes the counting and the measuring into a template's tree."""

    def __init__(self, environment: LimitedEnvironment) -> None:
        self.environment = environment

    def visit_Template(
        self, node: nodes.Template | nodes.For | nodes.Macro | nodes.Block
    ) -> nodes.Node:
        self.generic_visit(node)
        first = node.body[0].lineno if node.body else node.lineno
        value = self._filter(_COUNT, nodes.Const(None), first)
        node.body.insert(0, nodes.ExprStmt(value, lineno=first, environment=self.environment))
        return node

    visit_For = visit_Macro = visit_Block = visit_Template

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:
        node.call = self.generic_visit(node.call)  # type: ignore[assignment]
        node.body = [self.visit(child) for child in node.body]
        return node

    def visit_AssignBlock(self, node: nodes.AssignBlock) -> nodes.Node:
        self.generic_visit(node)
        node.filter = self._filter(_BOUND, node.filter, node.lineno)
        return node

    def visit_Call(self, node: nodes.Call | nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return self._filter(_BOUND, node, node.lineno)

    visit_Concat = visit_Call

    def _filter(self, name: str, value: nodes.Expr | None, line: int) -> nodes.Filter:
        made = nodes.Filter(value, name, [], [], None, None)
        return made.set_lineno(line).set_environment(self.environment)  # type: ignore[return-value]


@pass_context  # or it would be called once, by the compiler
def _count(_context: Any, _value: None) -> None:
    rounds = _rounds.get() + 1
    if rounds > MAX_ROUNDS:
        raise LimitError(f"more than {MAX_ROUNDS:,} rounds of loops, macros and includes")
    _rounds.set(rounds)


def _bound(value: Any) -> Any:
    if isinstance(value, (str, list, tuple)):
        _check_size(len(value))
    return value


def _check_size(size: int) -> None:
    if size > MAX_SIZE:
        raise LimitError(f"a text or list of more than {MAX_SIZE:,} characters or items")
