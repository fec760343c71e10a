"""`search`, `users`, `rename`, and what `list` and `show` tell of single messages."""

import json
import shlex

import pytest


@pytest.fixture
def orders(program):
    """`jaf-memory` on a file with three conversations of twenty messages."""
    lines = [
        {
            "conversation_id": f"order:{n}",
            "user_id": f"user-{n % 2}",
            "metadata": {"title": "Trip to \u001b[31mParis"} if n == 1 else {},
            "messages": [
                {"role": "assistant" if i % 2 else "user", "content": f"Order {n} line {i}", "message_id": f"m{n}-{i}"}
                for i in range(20)
            ],
        }
        for n in range(3)
    ]
    program.run("import", "-", text="".join(json.dumps(line) + "\n" for line in lines))
    return program


def test_search(orders):
    """It finds by words, newest first, shows each with its conversation and id, and says when nothing is found."""
    ran = orders.run("search", "ORDER line 1", "--user", "user-1")
    assert ran.out.splitlines()[0].split() == ["order:1", "user-1", "m1-19"]
    assert "assistant: Order 1 line 19" in ran.out
    hits = orders.run("search", '"order 1 line', "--json", "--limit", "1000").lines
    assert [(hit["conversation_id"], hit["position"]) for hit in hits] == [("order:1", n) for n in reversed(range(20))]
    assert hits[0]["message"] == {"role": "assistant", "content": "Order 1 line 19", "message_id": "m1-19"}
    assert (hits[0]["excerpt"], hits[0]["user_id"]) == ("Order 1 line 19", "user-1")
    narrow = orders.run("search", "line 7", "--user", "user-0", "--role", "assistant", "--since", "1h", "--json").lines
    assert sorted(hit["conversation_id"] for hit in narrow) == ["order:0", "order:2"]
    assert orders.run("search", "line 7", "--conversation", "order:1", "--role", "user", "--json").lines == []
    assert "no messages say that" in orders.run("search", "nowhere").err
    assert "holds no word" in orders.run("search", "%", status=2).err
    assert "role" in orders.run("search", "line", "--role", "boss", status=2).err


def test_search_goes_on(orders):
    """What it says about more is a command that goes on, and all of them together find everything."""
    found, arguments = [], ["search", "line", "--user", "user-0", "--limit", "15"]
    while arguments:
        ran = orders.run(*arguments)
        found += [line.split()[-1] for line in ran.out.splitlines() if line.startswith("order:")]
        assert len(found) <= 40, "the pages do not end"
        _, _, more = ran.err.partition("more: jaf-memory ")
        arguments = shlex.split(" ".join(more.split("\n")))
    assert sorted(found) == sorted(f"m{n}-{i}" for n in (0, 2) for i in range(20))


def test_search_as_json_goes_on(orders):
    """The last line of a page has the cursor that leads on, and that of the last page has none."""
    found, cursor = [], []
    while cursor is not None:
        lines = orders.run("search", "line", "--user", "user-0", "--limit", "15", "--json", *cursor).lines
        assert [one["cursor"] for one in lines[:-1]] == [None] * (len(lines) - 1)
        found += [one["message"]["message_id"] for one in lines]
        assert len(found) <= 40, "the pages do not end"
        cursor = ["--cursor", lines[-1]["cursor"]] if lines[-1]["cursor"] else None
    assert sorted(found) == sorted(f"m{n}-{i}" for n in (0, 2) for i in range(20))


def test_index_for_searches(orders):
    """`schema --search` builds the index and drops it; what is no way, or goes with others, is refused."""
    assert "is complete: index (0 messages wait)" in orders.run("schema", "--search", "index").out
    assert orders.run("schema", "--search", "scan", "--json").lines == [
        {"search": "scan", "done": "the index for searches is gone"}
    ]
    assert "--search takes index or scan" in orders.run("schema", "--search", "trigram", status=2).err
    assert "goes by itself" in orders.run("schema", "--search", "index", "--apply", status=2).err


def test_users(orders):
    """It lists every owner once."""
    assert orders.run("users").out.split() == ["user-0", "user-1"]
    assert orders.run("users", "--json").lines == [{"user_id": "user-0"}, {"user_id": "user-1"}]


def test_titles_and_previews(orders):
    """`rename` sets and removes a title, `list` shows it and, if asked, the last message; neither obeys it."""
    shown = orders.run("list").out
    assert "Trip to" in shown
    assert "\u001b" not in shown
    orders.run("rename", "order:2", "The 2nd")
    assert orders.run("rename", "order:1", "--remove", "--json").document["title"] is None
    shown = orders.run("list", "--preview").out
    assert "The 2nd" in shown
    assert "Trip" not in shown
    assert "assistant: Order 0 line 19" in shown
    listed = orders.run("list", "--preview", "--json").lines
    assert {one["last_message"]["message_id"] for one in listed} == {"m0-19", "m1-19", "m2-19"}
    orders.run("rename", "order:9", "nothing", status=1)
    assert "give a title, or --remove" in orders.run("rename", "order:1", status=2).err
    assert "give a title, or --remove" in orders.run("rename", "order:1", "x", "--remove", status=2).err


def test_delete_message(orders):
    """`delete-message` asks, deletes the messages that are named and no others, and says what it did not find."""
    assert "nobody to ask" in orders.run("delete-message", "order:1", "m1-3", status=2).err
    document = orders.run("delete-message", "order:1", "m1-3", "m1-19", "m0-1", "--yes", "--json").document
    assert document == {"deleted": 2, "conversation_id": "order:1"}
    shown = orders.run("show", "order:1", "--json").document
    assert [one["message_id"] for one in shown["messages"]] == [f"m1-{n}" for n in range(19) if n != 3]
    assert "holds no message m1-3" in orders.run("delete-message", "order:1", "m1-3", "--yes", status=1).err
    ran = orders.run("delete-message", "order:1", "m1-0", "m1-3", "--yes")
    assert "deleted 1 message of order:1; 1 of those named it does not hold" in ran.out + ran.err
    orders.run("delete-message", "order:9", "m1-0", "--yes", status=1)
    assert orders.run("search", "order 1 line 3", "--json").lines == []
    around = orders.run("show", "order:1", "--around", "m1-4", "--json").document
    assert [one["message_id"] for one in around["messages"]] == [f"m1-{n}" for n in (1, 2, 4, 5, 6, 7, 8, 9)]


def test_show_around(orders):
    """`show --around` shows a message with those beside it, and how many are left out on either side."""
    shown = orders.run("show", "order:1", "--around", "m1-7").out
    assert "… 2 earlier messages" in shown
    assert "… 7 later messages" in shown
    assert [n for n in range(20) if f"Order 1 line {n}\n" in shown] == list(range(2, 13))
    document = orders.run("show", "order:1", "--around", "m1-0", "--json").document
    assert [message["message_id"] for message in document["messages"]] == [f"m1-{n}" for n in range(6)]
    assert "digest" not in document
    assert "holds no message" in orders.run("show", "order:1", "--around", "m0-1", status=1).err
    assert "give one" in orders.run("show", "order:1", "--around", "m1-1", "--last", "2", status=2).err
