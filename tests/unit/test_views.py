"""Views: valid for every history and every limit, by a checker that shares no code with them."""

import math

import pytest
from chat_rules import problem
from hypothesis import given, settings
from hypothesis import strategies as st

from jaf_memory_core import Message
from jaf_memory_core.session import views
from jaf_memory_core.session.room import Room

CALLS = st.sampled_from(["a", "b", "c"])


def call(*ids, text=None):
    """A message that calls."""
    functions = [{"id": one, "type": "function", "function": {"name": "f", "arguments": "{}"}} for one in ids]
    return Message(role="assistant", content=text, tool_calls=functions)


def result(call_id, text="done"):
    """A result."""
    return Message(role="tool", content=text, tool_call_id=call_id)


def said(role, text="…"):
    """A plain message."""
    return Message(role=role, content=text)


def answered(ids):
    """Calls and their results."""
    return [call(*ids), *(result(one) for one in ids)]


MESSAGE = st.one_of(
    st.sampled_from(["user", "assistant", "system", "developer"]).map(said),
    CALLS.map(result),
    st.lists(CALLS, min_size=1, max_size=3).map(lambda ids: call(*ids)),
    st.just("legacy call").map(lambda _: Message(role="assistant", content=None, function_call={"name": "f"})),
    st.just("legacy result").map(lambda _: Message(role="function", content="", name="f")),
)
PIECE = st.one_of(
    MESSAGE.map(lambda message: [message]),
    st.lists(CALLS, min_size=1, max_size=3, unique=True).map(answered),
    st.lists(CALLS, min_size=2, max_size=3, unique=True).map(lambda ids: answered(ids)[:-1]),
)


@st.composite
def histories(draw):
    """Any history: calls, parallel calls, missing results, pending calls, system messages, duplicates."""
    messages = [message for piece in draw(st.lists(PIECE, max_size=14)) for message in piece]
    if messages and draw(st.booleans()):
        twice = draw(st.lists(st.sampled_from(messages), max_size=3))
        for message in twice:
            messages.insert(draw(st.integers(0, len(messages))), message)
    return messages


def staying(messages):
    """Ids of the messages that stay in every view."""
    return {message.message_id for message in messages if message.role in ("system", "developer")}


def tokens(message):
    """A counter."""
    return 3 + len(str(message.content))


def check_promises(view, history, most=math.inf, budget=math.inf):
    """Within the limits; nothing of another conversation; the newest message last, and the newest question."""
    everything = views.shown(views.blocks_of(history))
    known = {message.message_id for message in history}
    assert all(message.message_id in known or views.is_made_up(message) for message in view)
    assert len(view) <= most
    assert sum(map(tokens, view)) <= budget
    if not view:
        return
    assert view[-1].message_id == everything[-1].message_id
    asked = [message for message in everything if message.role == "user"]
    if asked:
        assert asked[-1].message_id in {message.message_id for message in view}


LIMITS = st.one_of(st.just(math.inf), st.integers(1, 20))
EXAMPLES = settings(max_examples=400, deadline=None)


@EXAMPLES
@given(histories(), LIMITS, st.one_of(st.just(math.inf), st.integers(1, 80)))
def test_every_view_is_valid(history, most, budget):
    """For any history and any limits, the view passes the checker, is part of the history, and keeps the limits."""
    room = Room(most, budget, tokens)
    view = views.shown(views.limited(views.blocks_of(history), room))
    assert problem(view) is None
    check_promises(view, history, most, budget)
    if room.unlimited:
        assert staying(history) <= {message.message_id for message in view}


@EXAMPLES
@given(histories(), st.integers(1, 20))
def test_every_compressed_view_is_valid(history, most):
    """Above a threshold, the first fifth and the newest with a marker between them pass the checker, too."""
    view = views.shown(views.first_and_newest(views.blocks_of(history), Room(most)))
    assert problem(view) is None
    check_promises(view, history, most)
    assert sum(message.message_id.endswith("left-out") for message in view) <= 1


@EXAMPLES
@given(histories(), histories(), st.integers(1, 12))
def test_every_summarised_view_is_valid(history, later, most):
    """Cut after cut, what a summary covers and what is left are valid, and together they are the whole history."""
    later = [message for message in dict.fromkeys(later) if message not in history]  # a store holds each once
    kept, uncovered = (), [*dict.fromkeys(history)]
    for piece in (later, []):
        cut = views.cut(kept, uncovered, Room(most))
        if cut is not None:
            assert problem(cut.covered) is None
            end = [message.message_id for message in uncovered].index(cut.message_id) + 1
            gone = {message.message_id for message in [*kept, *uncovered[:end]]}
            known = {one.message_id for one in (*cut.covered, *cut.kept)}
            valid = views.shown(views.blocks_of([*kept, *uncovered]))
            unknown = [one for one in valid if one.message_id in gone - known]
            # Of equal system messages the newest stays, and that is enough.
            assert all(one.role in ("system", "developer") for one in unknown)
            assert {one.role for one in unknown} <= {one.role for one in [*cut.kept, *uncovered[end:]]}
            kept, uncovered = cut.kept, uncovered[end:]
        view = views.with_summary(views.limited(views.blocks_of([*kept, *uncovered]), Room(most)), kept, "before")
        assert problem(views.shown(view)) is None
        uncovered = [*uncovered, *piece]


def test_an_unlimited_view_of_a_valid_history_is_the_history():
    """Nothing is left out, changed or moved where there is no reason."""
    history = [said("system"), said("user"), *answered("ab"), said("assistant"), said("user"), call("z")]
    assert views.shown(views.limited(views.blocks_of(history), Room())) == history


def test_whole_turns_go_first():
    """A turn that does not fit whole goes whole, and the turns before it with it."""
    first = [said("user"), said("assistant")]
    second = [said("user"), *answered("a"), said("assistant")]
    third = [said("user"), said("assistant")]
    view = views.limited(views.blocks_of([*first, *second, *third]), Room(5))
    assert views.shown(view) == third


def test_a_long_turn_keeps_its_question_and_its_newest_steps():
    """Of a turn that is longer than the limit, the user's message and the newest calls with their results stay."""
    question, steps = said("user"), [answered("a") for _ in range(10)]
    history = [said("system"), question, *(message for step in steps for message in step)]
    view = views.shown(views.limited(views.blocks_of(history), Room(7)))
    assert view == [history[0], question, *steps[-2], *steps[-1]]


def test_a_late_result_stands_behind_its_call():
    """A result that came in after something else was said is shown where it has to be, and the last counts."""
    question, meanwhile, end = said("user"), said("user"), said("assistant")
    asked, halted, done = call("a"), result("a", "halted"), result("a", "done")
    blocks = views.blocks_of([question, asked, halted, meanwhile, done, end])
    assert views.shown(blocks) == [question, asked, done, meanwhile, end]


def test_ids_of_calls_may_come_again():
    """A call id that a later turn uses again belongs to the later call from then on."""
    one, two = answered(["call_0"]), answered(["call_0"])
    assert views.shown(views.blocks_of([said("user"), *one, said("user"), *two]))[4:] == two


def test_a_pending_call_is_last_or_closed():
    """A call that waits is shown at the very end only; once something follows, what is missing is said to be."""
    history = [said("user"), call("a", "b"), result("a")]
    assert views.shown(views.blocks_of(history)) == history
    later = said("user")
    *before, closing, last = views.shown(views.blocks_of([*history, later]))
    assert (before, last) == (history, later)
    assert (closing.role, closing.tool_call_id) == ("tool", "b")
    assert "no result" in closing.content
    assert views.is_made_up(closing)


def test_the_marker_tells_how_many():
    """Between the first fifth and the newest stands how many messages are not shown."""
    history = [said("system"), *(said("user" if n % 2 == 0 else "assistant", str(n)) for n in range(100))]
    view = views.shown(views.first_and_newest(views.blocks_of(history), Room(20)))
    texts = [message.content for message in view]
    assert texts == ["…", "0", "1", "2", "[83 messages between the first and the newest are not shown]", *texts[5:]]
    assert texts[5:] == [str(n) for n in range(86, 100)]


@pytest.mark.parametrize(
    "wrong",
    [
        [result("a")],
        [call("a"), said("user")],
        [call("a", "b"), result("a"), said("user")],
        [call("a"), result("b")],
        [call("a"), result("a"), result("a")],
        [said("user"), *answered("a"), result("a", "again")],
    ],
)
def test_the_checker_refuses(wrong):
    """The checker refuses what an interface refuses, so that passing it means something."""
    assert problem(wrong) is not None
