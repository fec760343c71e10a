"""What three endpoints refuse, written from their published rules, and not from our code.

Each function tells what is wrong with the arguments of a request, or returns None. Endpoints would also refuse calls
that still wait at the end; for us that is where a human is asked, so there, and only there, they may wait.
"""

import json
import pkgutil
import re
from functools import cache
from importlib import util

import pydantic
import pytest

TOOL_USE_ID = re.compile(r"[a-zA-Z0-9_-]+")
TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
SPEAKER_NAME = re.compile(r"[^\s<|\\/>]{1,64}")


def need_clients():
    """Skip the tests of a module where a client library is missing; it is imported when it is first asked."""
    for name in ("anthropic", "openai"):
        if util.find_spec(name) is None:
            pytest.skip(f"its types say what its endpoint takes; pip install {name}", allow_module_level=True)


@cache
def adapter(kind):
    """Return pydantic's validator of a client library's type, by its name: the library is imported for it."""
    return pydantic.TypeAdapter(pkgutil.resolve_name(kind))


def refused_by(kind, body):
    """Tell what a client library's own type says of a body."""
    try:
        exhaust(adapter(kind).validate_python(body))
    except pydantic.ValidationError as error:
        return f"{kind}: {error.errors()[:2]}"
    return None


def unsendable(request):
    """Tell of text that cannot be sent: a client writes UTF-8, and fails at lone surrogates."""
    try:
        json.dumps(request, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        return "a lone surrogate"
    except ValueError:
        return "what is no number in JSON"
    return None


def exhaust(value):
    """Go through a validated value: pydantic looks at what an Iterable holds only when somebody asks."""
    if isinstance(value, dict):
        value = value.values()
    elif isinstance(value, str | bytes) or not hasattr(value, "__iter__"):
        return
    for item in value:
        exhaust(item)


def chat_problem(request):
    """Tell what chat-completions refuse: `messages`."""
    waiting, answered = [], set()
    for place, body in enumerate(request["messages"]):
        where = f"messages[{place}] ({body['role']})"
        wrong = (
            refused_by("openai.types.chat:ChatCompletionMessageParam", body) or _chat_names(body) or _chat_body(body)
        )
        if wrong:
            return f"{where}: {wrong}"
        if body["role"] in ("tool", "function"):
            key = body["tool_call_id"] if body["role"] == "tool" else ("function", body["name"])
            if key not in waiting:
                return f"{where} answers {'again' if key in answered else 'no call before it'}"
            waiting.remove(key)
            answered.add(key)
            continue
        if waiting:
            return f"{where} stands where results are missing"
        calls = [call["id"] for call in body.get("tool_calls") or ()]
        if not all(calls) or len(set(calls)) < len(calls):
            return f"{where} makes calls without ids of their own"
        legacy = body.get("function_call")
        waiting, answered = [*calls, *([("function", legacy["name"])] if legacy else [])], set()
    return None


def _chat_names(body):
    called = [call.get("function", call.get("custom")) for call in body.get("tool_calls") or ()]
    called += [body["function_call"]] if body.get("function_call") else []
    if not all(TOOL_NAME.fullmatch(one["name"]) for one in called):
        return "a tool's name with other letters"
    if body.get("name") is not None and not SPEAKER_NAME.fullmatch(body["name"]):
        return "a name with other letters"
    return None


def _chat_body(body):
    content, calls = body.get("content"), body.get("tool_calls")
    if calls is not None and not calls:
        return "an empty tool_calls array"
    if isinstance(content, list) and not content:
        return "an empty content array"
    if isinstance(content, list) and any(part["type"] == "text" and not part["text"] for part in content):
        return "an empty text part"
    says = content or body.get("refusal") or body.get("audio")
    if body["role"] == "assistant" and not says and not calls and not body.get("function_call"):
        return "an assistant's message with nothing in it"
    if body["role"] in ("system", "developer", "user") and content is None:
        return "no content"
    return None


def anthropic_problem(request):  # noqa: C901, PLR0911  (a list of rules, in the order of their page)
    """Tell what Anthropic's messages refuse: `messages`, `system`."""
    waiting, seen = [], set()
    for place, body in enumerate(request["messages"]):
        where = f"messages[{place}] ({body['role']})"
        if set(body) != {"role", "content"}:
            return f"{where} has the fields {sorted(body)}"
        wrong = refused_by("anthropic.types:MessageParam", body) or ("system" if body["role"] == "system" else None)
        if wrong:
            return f"{where}: {wrong}"
        blocks = body["content"] if isinstance(body["content"], list) else [{"type": "text", "text": body["content"]}]
        if not blocks:
            return f"{where} has no blocks"
        if any(block["type"] == "text" and not block["text"].strip() for block in blocks):
            return f"{where} has an empty text"
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        if [block["type"] for block in blocks[: len(results)]] != ["tool_result"] * len(results):
            return f"{where} has something before its results"
        is_last = place == len(request["messages"]) - 1
        if sorted(results) != sorted(waiting) and not (
            is_last and set(results) < set(waiting) and len(blocks) == len(results)
        ):
            return f"{where} has results {results} for calls {waiting}"
        wrong = _anthropic_roles(body["role"], blocks)
        if wrong:
            return f"{where}: {wrong}"
        if not all(TOOL_NAME.fullmatch(block["name"]) for block in blocks if block["type"] == "tool_use"):
            return f"{where} has a tool's name with other letters"
        waiting = [block["id"] for block in blocks if block["type"] == "tool_use"]
        if seen & set(waiting) or len(set(waiting)) < len(waiting):
            return f"{where} has an id of a call that was there"
        if not all(TOOL_USE_ID.fullmatch(key) for key in waiting):
            return f"{where} has an id with other letters"
        seen.update(waiting)
        if (
            is_last
            and body["role"] == "assistant"
            and blocks[-1].get("text", "") != blocks[-1].get("text", "").rstrip()
        ):
            return f"{where} ends with white space"
    return None


def _anthropic_roles(role, blocks):
    own = {"user": {"tool_result", "image", "document"}, "assistant": {"tool_use", "thinking", "redacted_thinking"}}
    other = own["assistant" if role == "user" else "user"]
    if any(block["type"] in other for block in blocks):
        return "a block of the other role"
    if role == "assistant" and blocks[-1]["type"] in ("thinking", "redacted_thinking"):
        return "thinking at the end"
    return None


def responses_problem(request):  # noqa: C901, PLR0911, PLR0912  (a list of rules, in the order of their page)
    """Tell what the Responses interface refuses: `input`."""
    calls, outputs, items = {}, {}, set()
    bodies = request["input"]
    for place, body in enumerate(bodies):
        kind = body.get("type", "message")
        where = f"input[{place}] ({kind})"
        wrong = refused_by("openai.types.responses:ResponseInputItemParam", body)
        if wrong:
            return f"{where}: {wrong}"
        if None in body.values():
            return f"{where} has an empty field"
        if kind == "message" and not body.get("content"):
            return f"{where} has no content"
        if body.get("id") in items - {None}:
            return f"{where} is there twice"
        items.add(body.get("id"))
        if kind == "reasoning":
            behind = bodies[place + 1] if place + 1 < len(bodies) else {"role": "user"}
            if behind.get("role", "assistant") != "assistant" or behind.get("type", "").endswith("_output"):
                return f"{where} is not followed by what it led to"
        if kind.endswith("_call") and "call_id" in body:
            if body["call_id"] in calls or not body["call_id"]:
                return f"{where} has the id of another call, or none"
            calls[body["call_id"]] = place
        if kind.endswith("_call_output"):
            if body["call_id"] not in calls or body["call_id"] in outputs:
                return f"{where} answers no call before it, or again"
            outputs[body["call_id"]] = place
        if kind in ("function_call", "custom_tool_call") and not TOOL_NAME.fullmatch(body["name"]):
            return f"{where} has a tool's name with other letters"
        if kind == "function_call" and not isinstance(body["arguments"], str):
            return f"{where} has arguments that are no text"
    last = len(bodies) - 1
    for key, place in calls.items():
        behind = bodies[place + 1 : last + 1]
        if key not in outputs and any(body.get("role", "") for body in behind):
            return f"call {key} has no output"
    return None


RULES = {"chat": chat_problem, "anthropic": anthropic_problem, "responses": responses_problem}
PROBLEMS = {name: lambda request, rule=rule: unsendable(request) or rule(request) for name, rule in RULES.items()}
