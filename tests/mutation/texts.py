"""The operators for SQL and Lua: each a pattern, and what takes the place of what it finds."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mutation.operators import Mutant

Rules = tuple[tuple[str, str, str], ...]

SQL: Rules = (
    ("comparison", r"(?<![<>!=-])<(?![<=>])", "<="),
    ("comparison", r"<=", "<"),
    ("comparison", r"(?<![<>=-])>(?![>=])", ">="),
    ("comparison", r">=", ">"),
    ("comparison", r" IS NOT NULL", " IS NULL"),
    ("comparison", r" IS NULL", " IS NOT NULL"),
    ("logic", r"\bNOT EXISTS", "EXISTS"),
    ("logic", r" OR ", " AND "),
    ("logic", r" AND [^\n()]+?(?= AND | OR | ORDER | LIMIT | RETURNING |\)|\n|\Z)", ""),
    ("logic", r"WHERE [^\n()]+? AND ", "WHERE "),
    ("arithmetic", r" \+ (?=[\w$?:({])", " - "),
    ("arithmetic", r" - (?=[\w$?:({])", " + "),
    ("arithmetic", r"\bmin\(", "max("),
    ("arithmetic", r"\bmax\(", "min("),
    ("order", r" DESC\b", ""),
    ("order", r"(ORDER BY (?:[\w.]+, )*[\w.]+)(?= LIMIT|\n|\)|\Z)", r"\1 DESC"),
    ("statement", r"[ \n]LIMIT \S+", ""),
    ("statement", r" FOR UPDATE(?: OF \w+)?", ""),
)
"""Operator, pattern, replacement, for SQL."""

LUA: Rules = (
    ("comparison", r" < ", " <= "),
    ("comparison", r" <= ", " < "),
    ("comparison", r" > ", " >= "),
    ("comparison", r" >= ", " > "),
    ("comparison", r" == ", " ~= "),
    ("comparison", r" ~= ", " == "),
    ("logic", r" and ", " or "),
    ("logic", r" or ", " and "),
    ("logic", r"\bnot ", ""),
    ("constant", r"\bfalse\b", "true"),
    ("constant", r"\btrue\b", "false"),
    ("constant", r"(?<=[ (,-])0(?=[,) \n])", "1"),
    ("constant", r"(?<=[ (,])1(?=[,) \n])", "2"),
    ("arithmetic", r" \+ ", " - "),
    ("arithmetic", r" - ", " + "),
    ("arithmetic", r"\bmath\.min\b", "math.max"),
    ("arithmetic", r"\bmath\.max\b", "math.min"),
    ("statement", r"(?m)(?<=^)( *)(?:redis\.)?p?call\('.*\)$", r"\1do end"),
    ("statement", r"(?<=then )(?:redis\.)?p?call\((?:[^()]|\([^()]*\))*\)(?= end)", "do end"),
)
"""Operator, pattern, replacement, for Lua."""

AROUND = 16
"""So many characters before and behind a change are shown with it, that one line's changes can be told apart."""

_COMMENT = re.compile(r"--.*")


def mutants(source: str, rules: Rules) -> Iterator[Mutant]:
    """Every mutant of a text, in the order of its lines; comments stay."""
    comments = [found.span() for found in _COMMENT.finditer(source)]
    made: dict[str, Mutant] = {}
    for operator, pattern, replacement in rules:
        for found in re.finditer(pattern, source):
            start, end = found.span()
            if any(start < until and end > since for since, until in comments):
                continue
            after = found.expand(replacement)
            changed = source[:start] + after + source[end:]
            line = source.count("\n", 0, start + (source[start] == "\n")) + 1
            text = source.splitlines()[line - 1].strip()
            left = source[max(start - AROUND, source.rfind("\n", 0, start) + 1) : start]
            right = source[end : end + AROUND].partition("\n")[0]
            shown = (f"{left}{one}{right}".strip() for one in (found[0], after))
            made.setdefault(changed, Mutant(operator, line, text, *shown, changed))
    yield from sorted(made.values(), key=lambda one: one.line)
