"""Names of relations: quoted, bounded, and never the same for two."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from jaf_memory_postgres.names import INDEXES, RELATIONS, Names, derived

from jaf_memory_core.statements import quoted

tables = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=63).filter(
    lambda name: len(name.encode()) <= 63
)


@given(tables)
def test_names_fit(table):
    """Every derived name has at most 63 bytes, so that the server cuts none, and all of them differ."""
    names = [derived(table, suffix) for suffix in {*RELATIONS, *INDEXES}]
    assert all(len(name.encode()) <= 63 for name in names)
    assert len({table, *names}) == len(names) + 1


@given(tables, tables)
def test_two_tables_share_no_relation(one, other):
    """Two table names never lead to the same relation."""
    if one != other:
        ours, theirs = ({derived(table, suffix) for suffix in {*RELATIONS, *INDEXES}} for table in (one, other))
        assert not ours & theirs


def test_long_names_that_begin_alike():
    """Two long names that differ at their end only stay apart."""
    one, other = "x" * 62 + "a", "x" * 62 + "b"
    assert derived(one, "header") != derived(other, "header")


def test_quoting():
    """A quote in a name is doubled, and places in a template are filled once."""
    assert quoted('a"b', "c") == '"a""b"."c"'
    assert Names("public", "{message}").fill("SELECT {view}") == 'SELECT "public"."{message}"'
