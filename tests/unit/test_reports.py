"""What an import or a copy tells of what went wrong."""

from jaf_memory_core.transfer.reports import MOST, Problems


def test_each_conversation_is_counted_once():
    """A conversation that comes again counts no second time, also beyond those whose reasons are kept."""
    problems = Problems()
    ids = [f"c{n}" for n in range(2 * MOST)]
    for reason in ("it is not there", "it differs"):
        for key in ids:
            problems.add(key, reason)
    assert problems.count == len(problems) == len(ids)
    assert dict(problems) == dict.fromkeys(ids[:MOST], "it is not there")
    assert ids[-1] in problems
    assert "another" not in problems
