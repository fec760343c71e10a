"""What is found and what is not, what stands in its place, and that nothing else changes."""

import asyncio
import base64
import json
import logging
import os
import re
import time

import pytest
from jaf_memory_encryption import KeyFile
from jaf_memory_redaction import KINDS, Kind, Redaction, RedactionSettings
from jaf_memory_redaction.settings import from_settings
from jaf_memory_testing.checks import in_full
from msgspec.structs import replace

from jaf_memory_core import (
    BackendProvider,
    Failure,
    InMemoryConfig,
    MemoryConfigurationError,
    MemoryConflictError,
    MemoryInvalidInputError,
    MemoryQuery,
    Message,
    create_memory_provider_from_env,
)
from jaf_memory_core.backends.in_memory import InMemoryBackend
from jaf_memory_core.processors import Context
from jaf_memory_core.settings import load

SECRET = "a secret for tests"
CARD = "4111 1111 1111 1111"
MAIL = "jane.doe@example.com"
CONTEXT = Context("c", None, "m", "append_messages")
KEY = "aB3dE6gH9" * 4

VALUES = {
    "visa": ("card", CARD),
    "visa without blanks": ("card", "4111111111111111"),
    "visa with dashes": ("card", "4111-1111-1111-1111"),
    "mastercard": ("card", "5500 0000 0000 0004"),
    "mastercard of 2017": ("card", "2221000000000009"),
    "amex": ("card", "3782 822463 10005"),
    "diners": ("card", "30569309025904"),
    "discover": ("card", "6011 1111 1111 1117"),
    "jcb": ("card", "3530 1113 3330 0000"),
    "visa with points": ("card", "4111.1111.1111.1111"),
    "visa with slashes": ("card", "4111/1111/1111/1111"),
    "visa with low lines": ("card", "4111_1111_1111_1111"),
    "visa with dashes and blanks": ("card", "4111 - 1111 - 1111 - 1111"),
    "visa with two blanks": ("card", "4111  1111  1111  1111"),
    "amex with points": ("card", "3782.822463.10005"),
    "visa as a web address has it": ("card", "4111%201111%201111%201111"),
    "address": ("email", MAIL),
    "address as JSON has it": ("email", r"jane\u0040example.com"),
    "address as a web address has it": ("email", "jane%40example.com"),
    "address as HTML has it": ("email", "jane&#64;example.com"),
    "address as HTML has it, too": ("email", "jane&#x0040;example.com"),
    "address with a tag": ("email", "jane+tag@mail.example.co.uk"),
    "address with an apostrophe": ("email", "o'brien@example.com"),
    "address of another script": ("email", "jos\u00e9@b\u00fccher.example"),
    "phone": ("phone", "+1 (555) 123-4567"),
    "phone of another country": ("phone", "+49 30 901820"),
    "phone without a country": ("phone", "(555) 123-4567"),
    "phone with dashes": ("phone", "555-123-4567"),
    "phone of long distance": ("phone", "1-800-555-1234"),
    "phone of long distance in brackets": ("phone", "1 (800) 555-1234"),
    "phone as a web address has it": ("phone", "%2B4930901820"),
    "openai": ("openai", f"sk-proj-{KEY}"),
    "openai of old": ("openai", f"sk-{KEY}"),
    "anthropic": ("anthropic", f"sk-ant-api03-{KEY}"),
    "aws": ("aws", "AKIAIOSFODNN7EXAMPLE"),
    "github": ("github", f"ghp_{KEY}"),
    "github, fine-grained": ("github", f"github_pat_{KEY}"),
    "google": ("google", f"AIza{KEY[:35]}"),
    "google's secret": ("google", f"GOCSPX-{KEY[:28]}"),
    "slack": ("slack", "xoxb-123456789012-1234567890123-abcdef"),
    "slack's hook": ("slack", f"hooks.slack.com/services/T0/B0/{KEY}"),
    "stripe": ("stripe", f"sk_live_{KEY}"),
    "stripe's hook": ("stripe", f"whsec_{KEY}"),
    "private key": ("private-key", f"-----BEGIN RSA PRIVATE KEY-----\n{KEY}\n{KEY}\n-----END RSA PRIVATE KEY-----"),
    "private key on one line": ("private-key", rf"-----BEGIN PRIVATE KEY-----\n{KEY}\n-----END PRIVATE KEY-----"),
    "private key, cut off": ("private-key", f"-----BEGIN PRIVATE KEY-----\n{KEY}"),
    "jwt": ("jwt", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc_DEF-1"),
    "full width": ("card", "\uff14\uff11\uff11\uff11\u3000" + "\uff11\uff11\uff11\uff11 " * 2 + "\uff11" * 4),
    "another script's digits": ("card", "".join(chr(0x660 + int(digit)) for digit in "4111111111111111")),
    "characters without width": ("card", "4\u200b1\u200d1\ufeff1 1111\u2060 1111 1111"),
    "marks below": ("card", "".join(f"{digit}\u0332" for digit in "4111111111111111")),
    "soft hyphens": ("email", "ja\u00adne@exam\u00adple.com"),
    "a wide at": ("email", "jane\uff20example.com"),
    "a dash of print": ("card", "4111\u20131111\u20131111\u20131111"),
    "mathematical letters": ("openai", "sk-" + "".join(chr(0x1D5BA + ord(c) - 97) for c in "abcdefghij" * 2) + "7"),
}

OTHERS = [
    "4111 1111 1111 1112",  # its check digit is wrong
    "1718000000000",  # milliseconds
    "1700000000000000000",
    "4.111111111111111",
    "0.4111111111111111",
    "4111.1111.1111.1112",
    "4111.1111/1111.1111",
    "1.2.4111.1111.1111",
    "100%41 and %34",
    r"C:\u00zz &#999; &#6; %zz",
    "2.1-234-567-8901",
    "2026-11-29T16:42:32+01:00",
    "550e8400-e29b-41d4-a716-446655440000",
    "192.168.10.10:5432",
    "a4111111111111111f",
    "sk-this-is-a-name-of-words-only",
    "user@localhost",
    "@example.com",
    "eyJ is how they begin",
    "-----BEGIN CERTIFICATE-----",
    "https://example.com/a?b=c#d",
    "x = 1 + 12345678",
    "[card:1] and [email:7]",
    '{"n": ' + "4" * 5_000 + "}",
]


def said(content, **more):
    """What is made of a message."""
    return Redaction().outgoing(Message(role="user", content=content, **more), CONTEXT)


def over(backend=None, redaction=None):
    """A provider that redacts."""
    return BackendProvider(backend or InMemoryBackend(), InMemoryConfig(), processors=[redaction or Redaction()])


class TestFound:
    """What is found."""

    @pytest.mark.parametrize("name", VALUES)
    def test_values(self, name):
        """A value of each kind is found, alone and within a sentence, and the rest of the sentence stays."""
        kind, value = VALUES[name]
        assert said(value).content == f"[{kind}:1]"
        assert (
            said(f"It is {value} , thanks \u2013 caf\u00e9.").content == f"It is [{kind}:1] , thanks \u2013 caf\u00e9."
        )

    @pytest.mark.parametrize("text", OTHERS)
    def test_others(self, text):
        """What only looks like one is left, and so is the message itself."""
        message = Message(role="user", content=text)
        assert Redaction().outgoing(message, CONTEXT) is message

    def test_a_secret_behind_its_name(self):
        """The secret key of AWS, which looks like nothing, is found by what stands before it, and as a member."""
        key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
        assert said(f"aws_secret_access_key = {key}").content == "aws_secret_access_key = [aws:1]"
        assert said(json.dumps({"SecretAccessKey": key, "n": 1})).content == '{"SecretAccessKey": "[aws:1]", "n": 1}'
        calls = [{"function": {"name": "f", "arguments": {"SecretAccessKey": key}}}]
        assert said(None, tool_calls=calls).tool_calls[0].function.arguments == {"SecretAccessKey": "[aws:1]"}

    def test_in_the_midst_of_other_numbers(self):
        """A card number is found between other numbers, and two of them one behind the other."""
        assert said(f"12 {CARD} 77").content == "12 [card:1] 77"
        assert said(f"{CARD} 5500000000000004").content == "[card:1] [card:2]"

    def test_kinds_of_your_own(self):
        """A pattern of one's own is found like ours, by code and by settings."""
        assert (
            Redaction([Kind("badge", re.compile("B-[0-9]{6}"))])
            .outgoing(Message(role="user", content=f"B-123456 {CARD}"), CONTEXT)
            .content
            == f"[badge:1] {CARD}"
        )
        made = from_settings(load(RedactionSettings, {"JAF_REDACTION_PATTERNS": '{"badge": "B-[0-9]{6}"}'}))
        message = made.outgoing(Message(role="user", content=f"B-123456 {CARD}"), CONTEXT)
        assert message.content == "[badge:1] [card:1]"


class TestEverywhere:
    """Where it is looked for."""

    def test_in_all_of_a_message(self):
        """Parts, arguments as text and as objects, attachments, names and further fields are looked through."""
        message = said(
            [
                {"type": "text", "text": f"mail {MAIL}"},
                {"type": "tool_use", "id": "t1", "name": "pay", "input": {"id": CARD, "to": [MAIL]}},
                {"type": "image_url", "image_url": {"url": f"https://example.com/{MAIL}"}},
            ],
            tool_calls=[{"id": "c1", "function": {"name": "pay", "arguments": json.dumps({"card": CARD})}}],
            attachments=[{"kind": "file", "name": f"{MAIL} (1).pdf", "url": "https://example.com/x"}],
            refusal=f"not {CARD}",
        )
        text = json.dumps(message.dict())
        assert CARD not in text
        assert MAIL not in text
        assert message.content[0].text == "mail [email:1]"
        assert message.content[1].input == {"id": "[card:1]", "to": ["[email:1]"]}
        assert json.loads(message.tool_calls[0].function.arguments) == {"card": "[card:1]"}
        assert message.refusal == "not [card:1]"

    def test_what_holds_a_message_together_stays(self):
        """Ids of messages and calls, roles, types, signatures and files stay, whatever they look like."""
        number = "4111111111111111"
        blob = base64.b64encode(bytes(range(256)) * 8).decode().replace("=", "")
        given = Message(
            role="tool",
            content=[
                {"type": "tool_result", "tool_use_id": number},
                {"type": "thinking", "thinking": "x", "signature": number},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{number}+15551234567"}},
                {"type": "input_audio", "input_audio": {"data": blob}},
            ],
            tool_call_id=number,
            tool_calls=[{"id": number, "function": {"name": "f", "arguments": "{}"}}],
            message_id=number,
        )
        assert Redaction().outgoing(given, CONTEXT) is given

    @pytest.mark.parametrize(
        "text",
        [
            '{"card":4111111111111111, "n" : 1e22,  "n":1.0,"e":"\\u0034111 1111 1111 1111\\n"}',
            '[ 4111111111111111,{"a\\"b":"4111 1111 1111 1111"} ]',
            json.dumps({"body": json.dumps({"card": 4111111111111111, "inner": json.dumps([CARD])})}),
            json.dumps({CARD: {MAIL: 1, "JANE.DOE@example.com": 2}}),
            '{"to":"jane.doe@example.com","s":"\ud83d\ude00 caf\u00e9 \\ud800"}',
        ],
    )
    def test_json_stays_json(self, text):
        """Arguments that are JSON stay JSON, nested ones too; numbers become texts, and all else stays as it stands."""
        calls = [{"id": "1", "function": {"name": "f", "arguments": text}}]
        after = said(None, tool_calls=calls).tool_calls[0].function.arguments
        assert after != text
        shown = json.dumps(json.loads(after), ensure_ascii=False).replace("\\", "")
        assert "4111" not in shown
        assert "example.com" not in shown
        # Around the literals that have changed, not a blank has.
        pattern = re.compile(r'"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*')
        assert pattern.sub("", after) == pattern.sub("", text)
        assert len(pattern.findall(after)) == len(pattern.findall(text))
        if "1e22" in text:
            assert "1e22,  " in after

    def test_text_that_is_no_json(self):
        """Arguments that were cut off are looked through as a text, and so is JSON within one, with its escapes."""
        assert said('{"card": "4111 1111 1111 1111", "x').content == '{"card": "[card:1]", "x'
        escaped = r'{"card": "\u0034111 1111 1111 1111"'
        for around in ("%s", "\ufeff%s}", "So: ```%s}```", "%s}\n{}"):
            assert said(around % escaped).content == around % '{"card": "[card:1]"'

    def test_what_looks_like_another_way_to_write(self):
        """What stands before a value hides it neither as it is written nor as it is read."""
        assert said(f"%{CARD}").content == "%[card:1]"
        assert said("%34111111111111111").content == "[card:1]"
        one = Redaction(secret=SECRET)
        plain, written = (
            one.outgoing(Message(role="user", content=text), CONTEXT).content
            for text in (MAIL, MAIL.replace("@", "%40"))
        )
        assert plain == written

    def test_in_a_table(self):
        """A card number is found in a row with commas, and as the number with a point that a reader of tables makes."""
        assert said("7,4111111111111111,08/27").content == "7,[card:1],08/27"
        assert said('{"card": 4111111111111111.0, "at": 1718000000000.0}').content == (
            '{"card": "[card:1]", "at": 1718000000000.0}'
        )
        given = {"card": 4111111111111111.0, "at": 1718000000000.5, "nan": 1e300}
        assert Redaction().outgoing_metadata(given, CONTEXT) == given | {"card": "[card:1]"}

    def test_behind_what_looks_like_a_file(self):
        """The beginning of a file's address hides nothing that stands behind it, and a list of numbers is no file."""
        assert said(f"data:text/plain;base64, my card is {CARD}").content.endswith(" my card is [card:1]")
        assert "4111" not in said("-".join([CARD.replace(" ", "-")] * 40)).content

    def test_metadata(self):
        """Values of metadata are looked through, and their names within; keys that are to be kept are kept."""
        redaction = Redaction(keep_metadata=["owner_mail"])
        assert redaction.outgoing_metadata({"n": 4**9_000, "m": -4111111111111111, "t": True}, CONTEXT)["t"] is True
        given = {"mail": MAIL, "owner_mail": MAIL, "deep": {"list": [CARD, 4111111111111111], MAIL: 1}, "n": 1}
        after = redaction.outgoing_metadata(given, CONTEXT)
        assert after == {
            "mail": "[email:1]",
            "owner_mail": MAIL,
            "deep": {"list": ["[card:1]", "[card:1]"], "[email:1]": 1},
            "n": 1,
        }

    def test_names_that_are_one_value(self):
        """Two names of members that have the same token are both kept."""
        after = Redaction(secret=SECRET).outgoing_metadata({"x": {MAIL: 1, MAIL.upper(): 2}}, CONTEXT)["x"]
        assert sorted(after.values()) == [1, 2]

    def test_many_names_that_are_one_value(self):
        """Ten thousand of them take neither the time nor the room of their square, and pass again as they are."""
        local, domain = MAIL.replace(".", "").upper().split("@")[0] * 2, "@example.com"
        spelt = ["".join(c.lower() if i >> k & 1 else c for k, c in enumerate(local)) + domain for i in range(10_000)]
        started = time.process_time()
        after = Redaction().outgoing_metadata({"x": dict.fromkeys(spelt, 1)}, CONTEXT)["x"]
        assert time.process_time() - started < 20
        assert len(after) == len(spelt)
        assert sum(map(len, after)) < 30 * len(spelt)
        assert Redaction().outgoing_metadata({"x": after}, CONTEXT)["x"] == after


class TestTokens:
    """What stands in the places."""

    def test_with_a_secret(self):
        """The same value has the same token in every message, however it is written; another secret makes another."""
        one, other = Redaction(secret=SECRET), Redaction(secret=SECRET + "2")

        def token(redaction, text):
            return redaction.outgoing(Message(role="user", content=text), CONTEXT).content

        assert token(one, CARD) == token(one, "4111-1111-1111-1111") == token(one, "\uff14" + CARD[1:])
        assert token(one, MAIL) == token(one, MAIL.upper())
        assert token(one, CARD) != token(one, "5500 0000 0000 0004")
        assert token(one, CARD) != token(other, CARD)
        assert re.fullmatch(r"\[card:[a-p]{20}\]", token(one, CARD))

    def test_without_a_secret(self):
        """Tokens count the values of a message; no hash is made that somebody could try all numbers against."""
        text = f"{CARD}, 5500 0000 0000 0004, {CARD}, {MAIL}"
        assert said(text).content == "[card:1], [card:2], [card:1], [email:1]"

    def test_the_order_of_names_counts_for_nothing(self):
        """Equal objects get equal tokens, however their members stand."""
        cards = {"a": CARD, "b": "5500 0000 0000 0004"}
        one, other = (said(None, x=dict(order), message_id="m") for order in (cards.items(), reversed(cards.items())))
        assert one.x == other.x == {"a": "[card:1]", "b": "[card:2]"}

    @pytest.mark.parametrize("secret", [None, SECRET])
    def test_a_second_time_nothing_is_found(self, secret):
        """What was redacted passes again unchanged: forks, imports and later readers' own appends."""
        redaction = Redaction(secret=secret)
        text = " ; ".join(value for _, value in VALUES.values())
        once = redaction.outgoing(Message(role="user", content=text, x={MAIL: [CARD]}), CONTEXT)
        assert redaction.outgoing(once, CONTEXT) is once

    def test_tokens_of_an_earlier_pass(self):
        """A value that is found beside tokens of an earlier pass gets a number that none of them has."""
        assert said(f"[card:1] [card:4] {CARD}").content == "[card:1] [card:4] [card:5]"
        assert said([{"type": "text", "text": CARD}], x="[card:9]").content[0].text == "[card:10]"


class TestStored:
    """Through a provider."""

    @pytest.mark.parametrize("secret", [None, SECRET])
    def test_appends_stay_idempotent(self, secret):
        """A repeated message is recognised, and another content under its id is a conflict."""

        async def main():
            provider = over(redaction=Redaction(secret=secret))
            message = Message(role="user", content=f"{CARD} {MAIL}", x={"b": MAIL, "a": CARD})
            await provider.append_messages("c", [message], {"mail": MAIL}, create=True)
            again = Message(**{**message.dict(), "x": {"a": CARD, "b": MAIL}})
            assert (await provider.append_messages("c", [again])).unwrap().added == 0
            other = await provider.append_messages("c", [replace(message, content=CARD)])
            assert isinstance(other, Failure)
            assert isinstance(other.error, MemoryConflictError)

        asyncio.run(main())

    def test_filters(self):
        """With a secret conversations are found by the value; without one that filter is refused, and not too wide."""

        async def main():
            provider = over(redaction=Redaction(secret=SECRET))
            await provider.store_messages("c", [Message(role="user", content="x")], {"mail": MAIL})
            await provider.store_messages("d", [Message(role="user", content="x")], {"mail": "bob@example.com"})
            found = await provider.find_conversations(MemoryQuery(metadata={"mail": MAIL}))
            assert [one.conversation_id for one in found] == ["c"]
            with pytest.raises(MemoryInvalidInputError, match="JAF_REDACTION_SECRET") as refused:
                await over().find_conversations(MemoryQuery(metadata={"mail": MAIL}))
            assert MAIL not in str(refused.value)

        asyncio.run(main())

    def test_report(self, caplog):
        """The report, the function and the log tell how many of each kind were found, and nothing of what."""

        async def main():
            told = []
            redaction = Redaction(found=told.append, report_every=0.000001)
            provider = over(redaction=redaction)
            message = Message(role="user", content=f"{CARD} {MAIL} {CARD}")
            with caplog.at_level(logging.INFO, "jaf_memory_redaction"):
                await provider.store_messages("c", [message, Message(role="user", content="x")], {"mail": MAIL})
            assert told == [{"card": 2, "email": 1}, {"email": 1}]
            assert redaction.report() == {"card": 2, "email": 2}
            assert [record.getMessage() for record in caplog.records] == [
                "redaction found card: 2, email: 1",
                "redaction found email: 1",
            ]

        asyncio.run(main())

    def test_on_every_store(self, environ, tmp_path):
        """By the environment, with encryption behind it, on each store: what is read back has tokens."""
        file = tmp_path / "data-keys.db"
        KeyFile(file).make()
        variables = {
            **environ,
            "JAF_MEMORY_PLUGINS": "redaction,encryption",
            "JAF_REDACTION_SECRET": SECRET,
            "JAF_ENCRYPTION_KEYS": f"k:{base64.b64encode(bytes(32)).decode()}",
            "JAF_ENCRYPTION_DATA_KEYS": str(file),
            "JAF_ENCRYPTION_PLAIN_METADATA": "mail",
        }

        async def main():
            async with await create_memory_provider_from_env(variables) as provider:
                messages = [Message(role="user", content=CARD)]
                await provider.store_messages("c", messages, {"mail": MAIL, "note": MAIL}, user_id="u")
                (found,) = await provider.find_conversations(MemoryQuery(metadata={"mail": MAIL}))
                assert re.fullmatch(r"\[card:[a-p]{20}\]", found.messages[0].content)
                assert found.metadata["note"] == found.metadata["mail"] != MAIL
                assert (await provider.append_messages("c", messages)).unwrap().added == 0

        asyncio.run(main())


HOSTILE = {
    "letters": "a" * 10**6,
    "at": "@" * 10**6,
    "letters and at": "a@" * 500_000,
    "dots and at": "a.@" * 330_000,
    "long locals": ("a" * 63 + " @") * 15_000,
    "long domains": "@" + "a." * 500_000,
    "digits": "4" * 10**6,
    "digits apart": "4 " * 500_000,
    "digits apart, and a letter": "1 " * 500_000 + "a",
    "tokens begun": "eyJ" * 330_000,
    "tokens half done": "eyJaaaaaaaa." * 80_000,
    "keys begun": "sk-" * 330_000,
    "words for keys": "sk-" + "a" * 10**6,
    "private keys begun": "-----BEGIN PRIVATE KEY-----" * 37_000,
    "private keys without an end": "-----BEGIN PRIVATE KEY-----" + "\n" * 10**6,
    "private keys and other ends": ("-----BEGIN PRIVATE KEY-----" + "-----END " * 50) * 2_000,
    "json of small texts": "[" + '"a",' * 250_000 + '"b"]',
    "json of small numbers": "[" + '"1",' * 250_000 + '"b"]',
    "json begun": "[" * 10**6,
    "escapes": '["' + '\\"' * 500_000 + '"]',
    "phones begun": "+1 " * 330_000,
    "phones half done": "555-" * 250_000,
    "pluses": "+" * 10**6,
    "labels": "secret_access_key" * 59_000,
    "blanks behind a label": ("secret_access_key=" + " " * 100) * 8_000,
    "nothing to see": "\u200b" * 10**6,
    "full width": "\uff14" * 10**6,
    "slack": "xoxb-" * 200_000,
    "hooks": "hooks.slack.com/" * 62_000,
    "stripe": "sk_live_" * 125_000,
    "other ways to write": "%41" * 330_000,
    "signs": "%" * 10**6,
    "escapes outside of JSON": "\\u0034" * 160_000,
    "references": "&#00" * 250_000,
    "addresses, written otherwise": "a%40b.example " * 70_000,
    "groups": "4111." * 200_000,
    "groups and blanks": "4111  " * 160_000,
    "files begun": "data:;base64," * 75_000,
    "dashes": "1-" * 500_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_texts(name):
    """Much of whatever might make a pattern go back and forth is done in time that grows with its length.

    A megabyte in the long form, a quarter of it elsewhere: by the square of its length that takes twenty seconds.
    """
    text = HOSTILE[name] if in_full() else HOSTILE[name][: len(HOSTILE[name]) // 4]
    seconds = []
    for part in (text[: len(text) // 4], text):
        started = time.process_time()
        said(part)
        seconds.append(time.process_time() - started)
    # Four times as much takes four times as long; what goes by the square would take sixteen times.
    assert seconds[1] < max(10 * seconds[0], 1.0), seconds
    assert seconds[1] < 20


class TestSettings:
    """Settings, and the start."""

    @pytest.mark.parametrize(
        ("name", "text", "reason"),
        [
            ("KINDS", "card,secret-thing", "JAF_REDACTION_KINDS"),
            ("PATTERNS", "secret-thing", "must be a JSON object"),
            ("PATTERNS", '["secret-thing"]', "must be a JSON object"),
            ("PATTERNS", '{"badge": "(secret-thing"}', "'badge' is no regular expression"),
            ("PATTERNS", '{"badge": 5}', "'badge' is no regular expression"),
            ("PATTERNS", '{"badge": "(secret-thing)?"}', "'badge' finds an empty text"),
            ("PATTERNS", '{"card": "secret-thing"}', "is none of our own kinds"),
            ("PATTERNS", '{"A b": "secret-thing"}', "small letters and dashes"),
            ("SECRET", "secret-thing", "fewer than 16 characters"),
            ("REPORT_EVERY", "-1", "JAF_REDACTION_REPORT_EVERY"),
        ],
    )
    def test_wrong_ones(self, name, text, reason):
        """A wrong setting stops the start, by name; patterns and the secret are not shown."""
        variables = {"JAF_MEMORY_PLUGINS": "redaction", f"JAF_REDACTION_{name}": text}
        with pytest.raises(MemoryConfigurationError, match=reason) as refused:
            asyncio.run(create_memory_provider_from_env(variables))
        assert name == "KINDS" or "secret-thing" not in str(refused.value)

    def test_some_kinds_only(self):
        """Only the kinds that are named are looked for."""
        made = from_settings(load(RedactionSettings, {"JAF_REDACTION_KINDS": "email, jwt"}))
        assert made.outgoing(Message(role="user", content=f"{CARD} {MAIL}"), CONTEXT).content == f"{CARD} [email:1]"
        assert "email" in repr(made)

    def test_behind_encryption_it_is_refused(self, tmp_path):
        """Named behind encryption it would see sealed texts only: that stops the start."""
        KeyFile(tmp_path / "data-keys.db").make()
        with pytest.raises(MemoryConfigurationError, match="write redaction,encryption"):
            asyncio.run(
                create_memory_provider_from_env(
                    {
                        "JAF_MEMORY_PLUGINS": "encryption,redaction",
                        "JAF_ENCRYPTION_KEYS": f"k:{base64.b64encode(os.urandom(32)).decode()}",
                        "JAF_ENCRYPTION_DATA_KEYS": str(tmp_path / "data-keys.db"),
                    }
                )
            )

    def test_each_kind_is_tested(self):
        """Every kind has a value above."""
        assert {kind for kind, _ in VALUES.values()} == {kind.name for kind in KINDS}
