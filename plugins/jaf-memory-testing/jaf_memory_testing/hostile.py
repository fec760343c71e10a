"""Values and ids that stores are known to damage."""

from __future__ import annotations

from typing import Any

from jaf_memory_core.conversations import ConversationMemory, MemoryQuery
from jaf_memory_core.records import Record, Write
from jaf_memory_testing.samples import nested

VALUES: dict[str, Any] = {
    "nul": "a\0b\0",
    # What is no Unicode text; pydantic, msgspec and orjson refuse it, and so does `jsonb`.
    "high-surrogate": "a\ud800b",
    "low-surrogate": "\udfff",
    "reversed-surrogates": "\udc00\ud800",
    "escaped-nul": "\\u0000",
    "escaped-surrogate": "\\ud800",
    "emoji": "👩‍👩‍👧‍👦 🏳️‍🌈",
    "two-normal-forms": ["\u00e9", "e\u0301"],
    "line-ends": "a\r\nb\rc\nd\u2028e\u2029f\x85g",
    "invisible": "\ufeff\u200b\u202e \t ",
    "last-character": "\U0010ffff\uffff\ufffe",
    "controls": "".join(map(chr, range(32))) + "\x7f",
    "empty-text": "",
    "quotes": """'"`;--\\'\\" %s %(x)s {0} ${x} $1 :x ?""",
    "looks-like-json": '{"a": [1, 2',
    "looks-like-a-number": ["1", "1.0", "1e5", "NaN", "-Infinity", "null", "true"],
    "looks-like-a-time": ["2024-01-15T10:00:00Z", "2024-01-15"],
    "above-2^53": 2**53 + 1,
    "above-2^63": [2**63 - 1, 2**63, 2**64, -(2**63) - 1],
    # orjson makes a float of it.
    "2^70": [2**70, -(2**70)],
    # The longest that is allowed; Python itself reads no more than 4,300 digits.
    "4000-digits": 10**4000 - 1,
    # `jsonb` makes an integer of 1e22, and 0.0 of -0.0.
    "1e22": [1e22, 1e16, 1e21, 1e300],
    "minus-zero": [-0.0, 0.0, 0],
    "whole-floats": [1.0, 1, -1.0, 100.0, 0.0],
    "smallest-floats": [5e-324, 2.2250738585072014e-308],
    "largest-float": 1.7976931348623157e308,
    "long-floats": [0.1, 0.30000000000000004, 3.141592653589793, 123456789.12345679],
    "true-or-one": [True, 1, False, 0, None],
    # `jsonb` puts keys into an order of its own.
    "key-order": {"b": 1, "a": 2, "c": {"z": 1, "y": 2}, "10": 0, "9": 0},
    "odd-keys": {"": 1, "a.b": 2, "$set": 3, "'": 4, '"': 5, " ": 6, "👍": 7, "__proto__": 8, "a\nb": 9},
    "hostile-keys": {"a\0b": 1, "\ud800": 2},
    "empties": [[], {}, "", [[]], [{}], {"": {}}],
    "list-of-none": [None, None],
    # The deepest that is allowed: readers of JSON recurse.
    "depth-100": nested(100),
    "wide": list(range(5000)),
}
"""All of these can be stored, and come back equal in every value, type and inner order."""

IDS: tuple[str, ...] = (
    "a",
    "A",
    "a ",
    " a",
    "a\t",
    "a\n",
    "ä",
    "a\u0308",
    "Ä",
    # Equal to the next where letters are folded, as are ß and ss.
    "ﬀ",
    "ff",
    "ß",
    "ss",
    "i",
    "ı",
    "İ",
    # Patterns, to `KEYS`, `SCAN MATCH`, `LIKE` and file systems.
    "*",
    "**",
    "a*",
    "?",
    "[a]",
    "[a-z]",
    "%",
    "a%",
    "_",
    "\\",
    "\\a",
    "\\*",
    "/",
    "//",
    ".",
    "..",
    "../a",
    "a/../a",
    "a/b",
    "a:b",
    "a::b",
    "a:",
    ":a",
    ":",
    "user-123:chat:2024-01-15T10:00:00Z",
    "{",
    "}",
    "{}",
    # Between these a naive hash tag of Redis is empty.
    "}{",
    "{a}",
    "a{b}c",
    "'",
    "''",
    '"',
    "`",
    ";",
    "'; DROP TABLE conversations; --",
    "$1",
    "%s",
    "0",
    "00",
    "-1",
    "1e3",
    "1000",
    "None",
    "null",
    "true",
    "NaN",
    "%00",
    # What a path, a page or a text of JSON would make "a" of, or "a ".
    "%61",
    "a%20",
    "a+",
    "&#97;",
    "\\u0061",
    "\\0",
    "\x01",
    "\x7f",
    "\x85",
    "\u200b",
    "\ufeff",
    "\u202ea",
    "👍",
    "👍🏽",
    "👩‍👩‍👧",
    # 1,020 bytes: more than the name of a file may have.
    "😀" * 255,
    "😀" * 254 + "😁",
    "é" * 255,
    "x" * 255,
    "x" * 254,
    "x" * 254 + "y",
    "X" * 255,
    # A device on Windows, whatever folder it is looked for in.
    "con",
    # PostgreSQL cuts names at 63 bytes, and makes one of these two.
    "a" * 64,
    "a" * 63,
)
"""All different, all allowed: for conversations, users and messages."""

NAMES: tuple[str, ...] = tuple(
    sorted(
        {
            *(field for kind in (Record, Write, MemoryQuery) for field in kind.__struct_fields__),
            *ConversationMemory.__struct_fields__,
            *("_id", "id", "pk", "key", "_key", "rowid", "oid", "ctid", "rev", "_rev", "etag", "format", "kind", "v"),
            *(
                "type",
                "body",
                "data",
                "value",
                "text",
                "content",
                "role",
                "position",
                "count",
                "size",
                "index",
                "owner",
            ),
            *("time", "timestamp", "created", "updated", "deleted", "expire", "expires", "exp", "self", "cls"),
        }
        - {"user_id"}
    )
)
"""Names that stores give to columns and fields of their own: to an application they are keys like others."""

REFUSED_IDS: dict[str, Any] = {
    "empty": "",
    "256-characters": "x" * 256,
    "nul": "a\0",
    "lone-surrogate": "\ud800",
    "number": 7,
    "bytes": b"a",
    "none": None,
}
"""None of these is an id."""
