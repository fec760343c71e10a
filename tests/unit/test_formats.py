"""Views for three endpoints: whatever a conversation holds, and wherever it comes from, none refuses them."""

import math

import pytest
from endpoint_rules import PROBLEMS, need_clients
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jaf_memory_core import Message
from jaf_memory_core.session import views
from jaf_memory_core.session.blocks import steps_of
from jaf_memory_core.session.formats import AS_STORED, FORMS, form_of, request_of
from jaf_memory_core.session.formats.contents import is_bare, sendable
from jaf_memory_core.session.room import Room

need_clients()

FORMATS = st.sampled_from(["chat", "anthropic", "responses"])
KEYS = st.sampled_from(["a", "b", "call_0", "", "with space", "x" * 70])
TEXTS = st.sampled_from(["Yes.", "", "  ", "Where is it?", "word " * 30, "end "])
ARGUMENTS = st.sampled_from(['{"a": 1}', "", "{broken", None, {"a": [1, {"b": None}]}, {}, "[1]", ["x"]])
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
PIXEL = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}


def text_part(kind="text"):
    """A text as a part."""
    return TEXTS.map(lambda text: {"type": kind, "text": text})


def call(key, arguments, name="look"):
    """A call as chat-completions have it."""
    return {
        **({} if key is None else {"id": key}),
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


CALLS = st.lists(st.builds(call, st.none() | KEYS, ARGUMENTS), max_size=3)
USER_PARTS = st.lists(
    st.one_of(
        text_part(),
        text_part("input_text"),
        st.sampled_from([IMAGE, PIXEL, {"type": "input_image", "image_url": "https://example.org/b.png"}]),
        st.builds(lambda key, text: {"type": "tool_result", "tool_use_id": key, "content": text}, KEYS, TEXTS),
        st.builds(
            lambda key, part: {"type": "tool_result", "tool_use_id": key, "content": [part], "is_error": True},
            KEYS,
            st.one_of(text_part(), st.just(PIXEL)),
        ),
    ),
    max_size=3,
)
ASSISTANT_PARTS = st.lists(
    st.one_of(
        text_part(),
        st.sampled_from(
            [
                {"type": "thinking", "thinking": "hm", "signature": "sig"},
                {"type": "thinking", "thinking": "unsigned"},
                {"type": "redacted_thinking", "data": "xyz"},
                {"type": "refusal", "refusal": "No."},
                {"type": "refusal", "refusal": ""},
            ]
        ),
        st.builds(
            lambda key, value: {"type": "tool_use", "id": key, "name": "look", "input": value},
            KEYS,
            st.sampled_from([{}, {"a": 1}, None, "text"]),
        ),
    ),
    max_size=3,
)
CHAT = st.one_of(
    st.builds(lambda text: {"role": "user", "content": text}, st.none() | TEXTS | USER_PARTS),
    st.builds(lambda role, text: {"role": role, "content": text}, st.sampled_from(["system", "developer"]), TEXTS),
    st.builds(
        lambda text, calls: {"role": "assistant", "content": text, "tool_calls": calls},
        st.none() | TEXTS | ASSISTANT_PARTS,
        st.none() | CALLS,
    ),
    st.builds(lambda text: {"role": "assistant", "content": None, "refusal": text}, TEXTS),
    st.builds(
        lambda key, text: {"role": "tool", "content": text, **({} if key is None else {"tool_call_id": key})},
        st.none() | KEYS,
        st.none() | TEXTS | st.lists(text_part(), max_size=2),
    ),
    st.just({"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}),
    st.just({"role": "function", "content": "r", "name": "f"}),
)
NUMBERS = st.integers(0, 5)
ITEMS = st.one_of(
    st.builds(
        lambda n, more: {"type": "reasoning", "id": f"rs_{n}", "encrypted_content": "x", **more},
        NUMBERS,
        st.sampled_from([{}, {"summary": []}, {"summary": [], "content": None, "status": None}]),
    ),
    st.builds(
        lambda key, value, n: {
            "type": "function_call",
            "id": f"fc_{n}",
            "call_id": key,
            "name": "f",
            "arguments": value,
        },
        KEYS,
        ARGUMENTS,
        NUMBERS,
    ),
    st.builds(
        lambda key, value: {"type": "function_call_output", "call_id": key, "output": value},
        KEYS,
        st.one_of(TEXTS, st.none(), st.lists(text_part("input_text"), max_size=2)),
    ),
    st.builds(
        lambda n, parts: {
            "type": "message",
            "id": f"msg_{n}",
            "role": "assistant",
            "status": "completed",
            "content": parts,
        },
        NUMBERS,
        st.lists(TEXTS.map(lambda text: {"type": "output_text", "text": text, "annotations": []}), max_size=2),
    ),
    st.builds(lambda key: {"type": "custom_tool_call", "call_id": key, "name": "c", "input": "free"}, KEYS),
    st.builds(lambda key: {"type": "custom_tool_call_output", "call_id": key, "output": "ok"}, KEYS),
    st.just(
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "x"}}
    ),
)
HISTORIES = st.lists(st.one_of(CHAT, CHAT, ITEMS), max_size=12).map(lambda bodies: [Message(**body) for body in bodies])


PLAIN_TEXTS = st.builds(
    lambda role, content, rest: Message(role=role, content=content, **rest),
    st.sampled_from(["user", "assistant", "system", "developer"]),
    st.text(st.characters(codec=None, exclude_categories=()), max_size=6)
    | st.sampled_from([" ", "\n", "a ", "\ud800"]),
    st.sampled_from(
        [{}, {}, {"name": "the boss"}, {"unfinished": True}, {"refusal": "no"}, {"tool_call_id": "\ud800"}]
    ),
)


def tokens(message):
    """A counter."""
    return 3 + len(str(message.dict().get("content"))) + len(str(message.tool_calls or ""))


def view_of(history, view_format, room=None):
    """The view of a history in an endpoint's form."""
    form = form_of(view_format, history)
    return views.shown(views.limited(views.blocks_of(history, form), room or Room()), form)


@settings(max_examples=600, deadline=None)
@given(HISTORIES, FORMATS, st.just(math.inf) | st.integers(1, 12), st.just(math.inf) | st.integers(1, 400))
def test_no_endpoint_refuses_a_view(history, view_format, most, budget):
    """Whatever the history and the limits, the endpoint takes the view, and the view keeps the limits."""
    view = view_of(history, view_format, Room(most, budget, tokens))
    assert PROBLEMS[view_format](request_of(view, view_format)) is None
    assert len(view) <= most
    assert sum(map(tokens, view)) <= budget
    ids = [message.message_id for message in view]
    assert len(set(ids)) == len(ids)
    asked = [one for one in view_of(history, view_format) if one.role == "user" and not views.is_made_up(one)]
    if (
        view
        and asked
        and not any(part.type == "tool_result" for part in asked[-1].content if not isinstance(part, str))
    ):
        assert asked[-1].message_id in ids


@settings(max_examples=300, deadline=None)
@given(HISTORIES | st.lists(PLAIN_TEXTS, max_size=6))
@example([Message(role="user", content="a", name="the boss")])
def test_what_is_bare_is_in_every_form(history):
    """A text and nothing else, which is written in no form, is what each form would make of it: the message itself."""
    for form in (*FORMS.values(), AS_STORED):
        for step in steps_of(history, unique=form.unique):
            if len(step.said) == 1 and not step.calls and is_bare(step.said[0]):
                (shown,) = map(sendable, form.render(step))
                assert shown is step.said[0]


@settings(max_examples=200, deadline=None)
@given(HISTORIES, st.integers(1, 12))
def test_a_compressed_view_is_taken_too(history, most):
    """With a marker, and with a summary, a view is one that its endpoint takes."""
    for view_format, form in FORMS.items():
        blocks = views.first_and_newest(views.blocks_of(history, form), Room(most))
        view = views.shown(blocks, form)
        assert PROBLEMS[view_format](request_of(view, view_format)) is None
        assert len(view) <= most
        cut = views.cut((), history, Room(most), form)
        if cut is not None:
            assert PROBLEMS[view_format](request_of(form.arranged(cut.covered), view_format)) is None


CHAT_TALK = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": [{"type": "text", "text": "Look."}, IMAGE]},
    {"role": "assistant", "content": "I look.", "tool_calls": [call("a", '{"x": 1}'), call("b", "{}")]},
    {"role": "tool", "tool_call_id": "a", "content": "seen"},
    {"role": "tool", "tool_call_id": "b", "content": "found"},
    {"role": "assistant", "content": "A cat."},
]
ANTHROPIC_TALK = [
    {"role": "user", "content": "Look."},
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "sig"},
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "a", "name": "look", "input": {"x": 1}},
            {"type": "tool_use", "id": "b", "name": "look", "input": {}},
        ],
    },
    {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "a", "content": "seen"},
            {"type": "tool_result", "tool_use_id": "b", "content": [{"type": "text", "text": "found"}]},
            {"type": "text", "text": "And?"},
        ],
    },
    {"role": "assistant", "content": "A cat."},
]
RESPONSES_TALK = [
    {"role": "user", "content": "Look."},
    {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "abc"},
    {"type": "function_call", "id": "fc_1", "call_id": "a", "name": "look", "arguments": '{"x": 1}'},
    {"type": "function_call", "id": "fc_2", "call_id": "b", "name": "look", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "a", "output": "seen"},
    {"type": "function_call_output", "call_id": "b", "output": "found"},
    {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "A cat.", "annotations": []}],
    },
]
TALKS = {"chat": CHAT_TALK, "anthropic": ANTHROPIC_TALK, "responses": RESPONSES_TALK}


@pytest.mark.parametrize("view_format", TALKS)
def test_what_is_in_form_is_left_alone(view_format):
    """A conversation of an endpoint's own comes back as it is, with that format named and with none."""
    history = [Message(**body) for body in TALKS[view_format]]
    assert view_of(history, view_format) == history
    assert view_of(history, None) == history


@pytest.mark.parametrize("view_format", TALKS)
@pytest.mark.parametrize("source", TALKS)
def test_nothing_that_matters_is_lost_between_endpoints(source, view_format):
    """In whatever form it is shown, a conversation has its question, its calls, both results, and the answer."""
    request = request_of(view_of([Message(**body) for body in TALKS[source]], view_format), view_format)
    assert PROBLEMS[view_format](request) is None
    text = str(request)
    assert all(word in text for word in ("Look.", "look", "seen", "found", "A cat."))


@pytest.mark.parametrize("view_format", TALKS)
def test_half_of_a_parallel_call_keeps_what_it_did(view_format):
    """The result that is there stays, the missing one is said to be missing, and the talk goes on."""
    for source, talk in TALKS.items():
        lost = {"chat": 4, "anthropic": None, "responses": 5}[source]
        bodies = [body for place, body in enumerate(talk) if place != lost]
        if source == "anthropic":
            bodies[2] = {"role": "user", "content": [talk[2]["content"][0]]}
        bodies.append({"role": "user", "content": "Well?"})
        request = request_of(view_of([Message(**body) for body in bodies], view_format), view_format)
        assert PROBLEMS[view_format](request) is None
        assert "seen" in str(request)
        assert "there is no result" in str(request)


@pytest.mark.parametrize("view_format", TALKS)
@pytest.mark.parametrize("source", TALKS)
def test_an_open_call_is_closed_once_somebody_speaks(source, view_format):
    """A killed turn and a new question: the call stays, closed; without the question it stays open."""
    talk = [Message(**body) for body in TALKS[source][: {"chat": 3, "anthropic": 2, "responses": 4}[source]]]
    assert "there is no result" not in str(view_of(talk, view_format))
    later = view_of([*talk, Message(role="user", content="Still there?")], view_format)
    assert PROBLEMS[view_format](request_of(later, view_format)) is None
    assert str(later).count("there is no result") == 2


def test_calls_without_ids_are_paired_by_order():
    """Two calls with an empty id, or with one id, have their results in order, under ids of their own."""
    for keys in (("", ""), ("same", "same"), (None, None)):
        history = [
            Message(role="user", content="Both."),
            Message(role="assistant", tool_calls=[call(key, "{}", name) for key, name in zip(keys, "xy", strict=True)]),
            *(
                Message(role="tool", content=f"of {name}", tool_call_id=key)
                for key, name in zip(keys, "xy", strict=True)
            ),
        ]
        for view_format in TALKS:
            request = request_of(view_of(history, view_format), view_format)
            assert PROBLEMS[view_format](request) is None
        asked, first, second = view_of(history, "chat")[1:]
        assert [one.id for one in asked.tool_calls] == [first.tool_call_id, second.tool_call_id]
        assert (first.content, second.content) == ("of x", "of y")


def test_a_message_larger_than_the_room_is_shortened_with_a_mark():
    """The newest question alone is too large: its beginning and its end are shown, and that it was shortened."""
    history = [Message(role="system", content="Be kind."), Message(role="user", content="begin " + "x" * 5000 + " end")]
    for view_format in TALKS:
        system, question = view_of(history, view_format, Room(tokens=500, count=tokens))
        assert system.content == "Be kind."
        assert question.content.startswith("begin ")
        assert question.content.endswith(" end")
        assert "[… shortened …]" in question.content
        assert question.message_id == history[1].message_id
        assert tokens(system) + tokens(question) > 450
    assert len(history[1].content) > 5000


WRONG = {
    "chat": [
        [{"role": "assistant", "content": None}],
        [{"role": "assistant", "content": "x", "tool_calls": []}],
        [{"role": "user", "content": []}],
        [{"role": "tool", "tool_call_id": "a", "content": "x"}],
        [*CHAT_TALK[1:4], {"role": "user", "content": "x"}],
        [{"role": "user", "content": [PIXEL]}],
        [{"role": "assistant", "tool_calls": [call("a", {"x": 1})]}],
    ],
    "anthropic": [
        [ANTHROPIC_TALK[2]],
        [*ANTHROPIC_TALK[:2], {"role": "user", "content": "x"}],
        [{"role": "user", "content": ""}],
        [{"role": "assistant", "content": [{"type": "thinking", "thinking": "x"}]}],
        [{"role": "assistant", "content": "x "}],
    ],
    "responses": [
        [RESPONSES_TALK[4]],
        [*RESPONSES_TALK[:4], {"role": "user", "content": "x"}],
        [RESPONSES_TALK[1]],
        [{"type": "function_call", "call_id": "a", "name": "f", "arguments": {}}],
    ],
}


@pytest.mark.parametrize(("view_format", "wrong"), [(name, one) for name, them in WRONG.items() for one in them])
def test_the_checkers_refuse(view_format, wrong):
    """Each checker refuses what its endpoint refuses, so that passing it means something."""
    request = {"input" if view_format == "responses" else "messages": wrong}
    assert PROBLEMS[view_format](request) is not None


@pytest.mark.parametrize("source", TALKS)
def test_the_checkers_refuse_the_last_twenty(source):
    """A plain `[-n:]` of a conversation with calls is refused for some n, by the checker of its own endpoint."""
    bodies = [*TALKS[source], *TALKS[source]] if source == "chat" else TALKS[source]
    key = "input" if source == "responses" else "messages"
    assert any(PROBLEMS[source]({key: bodies[-most:]}) for most in range(1, len(bodies)))
