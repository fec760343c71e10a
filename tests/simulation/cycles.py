"""Do all clients see one order of things, across conversations? A search for cycles, after Adya and Elle.

It takes time by the calls and not by their orders, so that histories with any number of unknown outcomes are decided,
which the search for one order (`engine.explained`) gives up on.
"""

import graphlib
import itertools


def check(operations, last):
    """Raise where what was seen cannot have happened in one order that is the order of time, too.

    Args:
        operations: calls of `append`, each of one message, and perhaps tried again; and of `read`.
        last: the messages of each conversation at the end; nobody has removed any.

    Raises:
        AssertionError: a read shows what never stood there, or what was seen goes around in a circle.
    """
    reads = [one for one in operations if one.f == "read" and one.status == "ok"]
    spans = _appends(operations) | {read.index: (read.call, read.ret) for read in reads}
    before = {}
    for messages in last.values():
        for (earlier, _), (later, _) in itertools.pairwise(messages):
            before.setdefault(later, set()).add(earlier)
    for read in reads:
        shown, messages = read.output[0], last[read.arg[0]]
        assert shown == messages[: len(shown)], f"a read shows {shown}, and at the end there stand {messages}"
        if shown:
            before.setdefault(read.index, set()).add(shown[-1][0])
        if len(shown) < len(messages):
            before.setdefault(messages[len(shown)][0], set()).add(read.index)
    # What had ended before something else began came before it.
    for (earlier, (_, ended)), (later, (begun, _)) in itertools.permutations(spans.items(), 2):
        if ended is not None and ended < begun:
            before.setdefault(later, set()).add(earlier)
    try:
        graphlib.TopologicalSorter(before).prepare()
    except graphlib.CycleError as error:
        calls = {one.index: one.describe() for one in reads}
        around = "\n  ".join(calls.get(each, f"append of {each}") for each in error.args[1])
        raise AssertionError(f"what was seen goes around in a circle:\n  {around}") from None


def _appends(operations):
    """When each message was first sent, and when its append was first acknowledged, if ever."""
    spans = {}
    for one in operations:
        if one.f == "append":
            ((name, _),) = one.arg[1]
            begun, ended = spans.get(name, (one.call, None))
            spans[name] = begun, one.ret if one.status == "ok" and ended is None else ended
    return spans
