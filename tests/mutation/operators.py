"""The operators: each change that makes a mutant of a module, as a splice of its source."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One change of one module.

    Attributes:
        operator: which operator made it.
        line: number of the line.
        text: the line as it stands, stripped.
        before: the source that is replaced.
        after: what replaces it.
        source: the whole module, changed.
    """

    operator: str
    line: int
    text: str
    before: str
    after: str
    source: str

    @property
    def change(self) -> str:
        """The change in one line."""
        return f"{_short(self.before)} -> {_short(self.after)}"


def _short(source: str) -> str:
    joined = " ".join(source.split())
    return joined if len(joined) <= 120 else f"{joined[:90]} … {joined[-25:]}"


_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_OPPOSED = (ast.Eq, ast.NotEq, ast.Is, ast.IsNot, ast.In, ast.NotIn)
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.BitOr: ast.BitAnd,
}
_TWINS = {"min": "max", "max": "min", "any": "all", "all": "any"}


def _comparison(node: ast.AST) -> Iterator[ast.AST]:
    """`<` for `<=`, `==` for `!=`, and so on."""
    if isinstance(node, ast.Compare):
        for place, kind in enumerate(node.ops):
            changed = copy.deepcopy(node)
            changed.ops[place] = _COMPARISONS[type(kind)]()
            yield changed


def _constant(node: ast.AST) -> Iterator[ast.AST]:
    """One more than a whole number; `False` for `True`."""
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield ast.Constant(node.value + 1)


def _logic(node: ast.AST) -> Iterator[ast.AST]:
    """`or` for `and`; a part of either left out."""
    if isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
        for place in range(len(node.values)):
            rest = node.values[:place] + node.values[place + 1 :]
            yield rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)


def _condition(node: ast.AST) -> Iterator[ast.AST]:
    """`not` left out of an expression."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.operand


def _arithmetic(node: ast.AST) -> Iterator[ast.AST]:
    """`-` for `+`, and so on; a sign left out."""
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        yield ast.BinOp(node.left, _ARITHMETIC[type(node.op)](), node.right)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield node.operand


def _choice(node: ast.AST) -> Iterator[ast.AST]:
    """Always the one, or always the other, of `x if y else z`."""
    if isinstance(node, ast.IfExp):
        yield node.body
        yield node.orelse


def _slice(node: ast.AST) -> Iterator[ast.AST]:
    """A bound of a slice left out."""
    if isinstance(node, ast.Slice):
        for bound in ("lower", "upper"):
            if getattr(node, bound) is not None:
                changed = copy.deepcopy(node)
                setattr(changed, bound, None)
                yield changed


def _call(node: ast.AST) -> Iterator[ast.AST]:
    """Two arguments swapped, where their order matters; a named one left out; `max` for `min`."""
    if not isinstance(node, ast.Call):
        return
    twin = _TWINS.get(node.func.id) if isinstance(node.func, ast.Name) else None
    pair = node.args[:2]
    if (
        twin is None
        and len({ast.dump(one) for one in pair}) == 2
        and not any(isinstance(one, ast.Starred) for one in pair)
    ):
        yield ast.Call(node.func, [node.args[1], node.args[0], *node.args[2:]], node.keywords)
    for place, keyword in enumerate(node.keywords):
        if keyword.arg is not None:
            yield ast.Call(node.func, node.args, node.keywords[:place] + node.keywords[place + 1 :])
    if twin is not None:
        yield ast.Call(ast.Name(twin), node.args, node.keywords)


def _branch(node: ast.AST) -> Iterator[ast.AST]:
    """A condition negated, where a statement or a comprehension goes by it."""
    tests = [node.test] if isinstance(node, ast.If | ast.While | ast.IfExp) else []
    tests += node.ifs if isinstance(node, ast.comprehension) else []
    for test in tests:
        if not _is_negated_elsewhere(test):
            yield _At(test, ast.UnaryOp(ast.Not(), test))


def _is_negated_elsewhere(test: ast.AST) -> bool:
    """Whether another operator makes the same of a condition: `is not` of `is`, or the same without its `not`."""
    if isinstance(test, ast.UnaryOp):
        return isinstance(test.op, ast.Not)
    return isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], _OPPOSED)


def _statement(node: ast.AST) -> Iterator[ast.AST]:
    """A statement left out; `return` of nothing."""
    removable = (ast.AugAssign, ast.Delete, ast.Raise, ast.Break, ast.Continue)
    if isinstance(node, removable) or (isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant)):
        yield ast.Pass()
    if isinstance(node, ast.Assign) and not isinstance(node.targets[0], ast.Name):
        yield ast.Pass()
    if isinstance(node, ast.Return) and node.value is not None and not _is_none(node.value):
        yield ast.Return(None)


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


class _At(ast.AST):
    """A replacement of another node than the one that was looked at."""

    def __init__(self, place: ast.AST, node: ast.AST) -> None:
        super().__init__()
        self.place, self.node = place, node


OPERATORS: dict[str, Callable[[ast.AST], Iterator[ast.AST]]] = {
    "comparison": _comparison,
    "constant": _constant,
    "logic": _logic,
    "not": _condition,
    "arithmetic": _arithmetic,
    "choice": _choice,
    "slice": _slice,
    "call": _call,
    "branch": _branch,
    "statement": _statement,
}
"""All operators, by name."""


def mutants(source: str, wanted: Callable[[Mutant], bool] = lambda _: True) -> Iterator[Mutant]:
    """Every mutant of a module that is wanted, in the order of its lines; each can be compiled."""
    found: dict[str, Mutant] = {}
    for node in _nodes(ast.parse(source)):
        for name, operator in OPERATORS.items():
            for changed in operator(node):
                place, new = (changed.place, changed.node) if isinstance(changed, _At) else (node, changed)
                mutant = _spliced(name, source, place, new)
                # To compile a whole module takes longer than all else.
                if mutant and mutant.source not in found and wanted(mutant) and _compiles(mutant.source):
                    found[mutant.source] = mutant
    yield from sorted(found.values(), key=lambda one: one.line)


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Everything but annotations and what is there for the type checker alone."""
    for field, value in ast.iter_fields(tree):
        if field in ("annotation", "returns", "decorator_list", "bases"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
                continue
            if isinstance(child, ast.AST):
                yield child
                yield from _nodes(child)


def _spliced(operator: str, source: str, place: ast.AST, new: ast.AST) -> Mutant | None:
    lines = source.encode().splitlines(keepends=True)
    if not hasattr(place, "lineno"):
        return None
    start = sum(map(len, lines[: place.lineno - 1])) + place.col_offset
    end = sum(map(len, lines[: place.end_lineno - 1])) + place.end_col_offset  # type: ignore[attr-defined]
    after = ast.unparse(ast.fix_missing_locations(new))
    if isinstance(place, ast.expr) and not isinstance(place, ast.Slice):
        after = f"({after})"
    whole = source.encode()
    changed = (whole[:start] + after.encode() + whole[end:]).decode()
    text = lines[place.lineno - 1].decode().strip()
    return Mutant(operator, place.lineno, text, whole[start:end].decode(), after, changed)


def _compiles(source: str) -> bool:
    try:
        compile(source, "<mutant>", "exec")
    except (SyntaxError, ValueError):
        return False
    return True
