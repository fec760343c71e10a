"""No raw exception, whatever the bytes are."""

import ast
import json
import logging
import re
from pathlib import Path

import pytest
from fuzz.targets import SEEDS, TARGETS
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from jaf_memory_core import codec, documents


@pytest.fixture(autouse=True, scope="module")
def _logs_as_before():
    """A command takes the library's log for its own, as a program may; the tests behind these want it back."""
    logger = logging.getLogger("jaf_memory_core")
    handlers, propagate = logger.handlers[:], logger.propagate
    yield
    logger.handlers[:], logger.propagate = handlers, propagate


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
NESTED = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
NAMES = st.sampled_from(
    [
        "role",
        "content",
        "name",
        "tool_calls",
        "message_id",
        "further",
        "attachments",
        "conversation_id",
        "messages",
        "metadata",
        "user_id",
        "created_at",
        "expires_at",
        "ttl",
        "format",
        "record",
        "digest",
        "version",
    ]
)
FIELDS = st.dictionaries(NAMES | st.text(), NESTED, max_size=6)
WORDS = st.sampled_from(
    [
        "list",
        "show",
        "stats",
        "delete",
        "forget-user",
        "purge",
        "info",
        "doctor",
        "--json",
        "--help",
        "--limit",
        "0",
        "--yes",
        "--type",
        "memory",
        "--set",
        "max_messages=x",
        "--",
        "",
        "-",
        "--user",
        "u",
    ]
)


def joined(lines):
    """Lines as bytes."""
    return "\n".join(lines).encode("utf-8", "replace")


BYTES = {
    "intake": st.binary() | (FIELDS | NESTED).map(lambda value: json.dumps(value).encode()),
    "stored": st.binary() | FIELDS.map(lambda value: json.dumps(value).encode()),
    "import_lines": st.binary() | st.lists(FIELDS.map(json.dumps), max_size=3).map(joined),
    "settings": st.lists(st.text() | SCALARS.map(str), max_size=12).map(joined),
    "command_line": st.lists(WORDS | st.text(), max_size=5).map(joined),
}
EXAMPLES = {"command_line": 20, "settings": 30}


@pytest.mark.parametrize("name", list(TARGETS))
def test_no_raw_exception(name):
    """Each target takes whatever comes."""

    @settings(
        max_examples=EXAMPLES.get(name, 100),
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @example(b"")
    @example(b"[" * 5000)
    @example(b'{"role": "user", "content": NaN}')
    @example(b'{"x": 1' + b"0" * 5000 + b"}")
    @example(b'"\\ud800"')
    @example(b"\xff\xfe{}")
    @given(BYTES[name])
    def run(data):
        TARGETS[name](data)

    run()


@pytest.mark.parametrize("name", list(TARGETS))
def test_seeds(name):
    """Where a coverage-guided fuzzer starts is taken by each target, and a line of an import is a conversation."""
    assert SEEDS[name]
    for seed in SEEDS[name]:
        TARGETS[name](seed)


def test_the_session_runs_each_target():
    """What the noxfile names is what there is."""
    text = (Path(__file__).parents[2] / "noxfile.py").read_text(encoding="utf-8")
    (named,) = re.findall(r"^FUZZED = (\(.*\))$", text, re.MULTILINE)
    assert set(ast.literal_eval(named)) == set(TARGETS)


def test_seeds_are_sound():
    """What stands for a message or a record is one, so that the fuzzer starts beyond the first check."""
    assert codec.decode_message(SEEDS["stored"][0]).message_id == "m"
    assert documents.decode_record(SEEDS["stored"][1]).conversation_id == "c"
