"""An export of ChatGPT moves into any backend of ours; the exports here have its structure, and made-up texts."""

import asyncio
import io
import json
import zipfile

import pytest
from jaf_memory_bridges.readers import chatgpt

from jaf_memory_core import MemoryConfig, MemoryInvalidInputError, MemorySession, create_memory_provider_from_env

READER = "chatgpt-export"


def node(key, parent, role=None, content=None, **fields):
    """A node of the tree; the root and some others hold no message."""
    message = None
    if role is not None:
        content = {"content_type": "text", "parts": [content]} if isinstance(content, str) else content
        author = {"role": role, "name": fields.pop("name", None), "metadata": {}}
        message = {"id": key, "author": author, "create_time": 1715781600.5, "content": content, "status": "done"}
        message |= {"weight": 1.0, "metadata": {}, "recipient": "all", **fields}
    return {"id": key, "message": message, "parent": parent, "children": []}


def conversation(*nodes, current=None, key="c1", **fields):
    """A conversation of an export."""
    mapping = {one["id"]: one for one in nodes}
    for one in nodes:
        if one["parent"] in mapping:
            mapping[one["parent"]]["children"].append(one["id"])
    times = {"create_time": 1715781600.25, "update_time": 1715868000.75}
    rest = {"title": "Paris", "current_node": current or nodes[-1]["id"], "conversation_id": key, "id": key}
    return {**times, "mapping": mapping, **rest, "moderation_results": [], "is_archived": False, **fields}


IMAGE = {"content_type": "image_asset_pointer", "asset_pointer": "file-service://file-1", "width": 1}
WHOLE = conversation(
    node("root", None),
    node("sys", "root", "system", "", weight=0),
    node("q", "sys", "user", {"content_type": "multimodal_text", "parts": [IMAGE, "What is this?"]}),
    node("a0", "q", "assistant", "A dog."),
    node("t", "q", "assistant", {"content_type": "thoughts", "thoughts": [{"summary": "s", "content": "hm"}]}),
    node("call", "t", "assistant", {"content_type": "code", "language": "python", "text": "1+1"}, recipient="python"),
    node("out", "call", "tool", {"content_type": "execution_output", "text": "2"}, name="python"),
    node("quote", "out", "tool", {"content_type": "tether_browsing_display", "result": "r"}, name="browser"),
    node("a", "quote", "assistant", "A cat 🐈."),
    gizmo_id=None,
)


def archive(path, *conversations):
    """The ZIP that ChatGPT sends."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("user.json", "{}")
        file.writestr("conversations.json", json.dumps(conversations))
    return path


def test_an_export(move, tmp_path):
    """The branch that is shown is the conversation, others stand beside it; times, title and calls are kept."""
    (tmp_path / "c.json").write_text(json.dumps([WHOLE]))

    async def use():
        provider = await create_memory_provider_from_env(move.environ)
        report, read = await move(provider, READER, archive(tmp_path / "e.zip", WHOLE), "ada")
        assert (report.conversations, len(report.refused)) == (2, 0)
        again, read_again = await move(provider, READER, tmp_path / "c.json", "ada")
        assert (again.messages_added, read_again) == (0, read)
        held = await provider.get_conversation("c1")
        assert [one.message_id for one in held.messages] == ["sys", "q", "t", "call", "out", "quote", "a"]
        assert (held.user_id, held.metadata["title"]) == ("ada", "Paris")
        assert (held.created_at.timestamp(), held.active_at.timestamp()) == (1715781600.25, 1715868000.75)
        call, out = held.messages[3:5]
        assert (call.tool_calls[0].function.name, out.tool_call_id) == ("python", call.tool_calls[0].id)
        other = await provider.get_conversation("c1:a0")
        assert ([one.message_id for one in other.messages], other.metadata["branch_of"]) == (["sys", "q", "a0"], "c1")
        for form in ("chat", "anthropic", "responses"):
            config = MemoryConfig(provider=provider)
            session = MemorySession(config, conversation_id="c1", user_id="ada", view_format=form)
            assert "A cat 🐈." in str([message.dict() for message in await session.load()])
        await provider.close()

    asyncio.run(use())


LOOP = conversation(node("a", "b", "user", "x"), node("b", "a", "assistant", "y"), current="b", key="loop")
GONE = conversation(node("b", "missing", "user", "x"), node("c", "b", "assistant", "y"), key="gone")
LOST = conversation(node("r", None), node("a", "r", "user", "x"), current="nowhere", key="lost")
ODD = {
    "no object": 7,
    "no mapping": {"conversation_id": "x"},
    "mapping is a list": {"conversation_id": "x", "mapping": []},
    "no id": {**LOST, "id": None, "conversation_id": 5},
    "a node is a text": conversation(node("r", None), key="text") | {"mapping": {"r": "SECRET"}},
    "a message is a text": conversation({**node("r", None), "message": "SECRET"}, key="message"),
    "no author": conversation({**node("r", None), "message": {"content": {"parts": ["SECRET"]}}}, key="author"),
    "no content": conversation({**node("r", None), "message": {"author": {"role": "user"}}}, key="content"),
    "times": conversation(node("r", None), node("a", "r", "user", "x"), key="times", create_time=1e300),
    "times of many digits": conversation(
        node("a", None, "user", "x", create_time=10**400), key="many", create_time=10**400
    ),
    "an id too long": conversation(node("r", None), node("a", "r", "user", "x"), key="x" * 300),
    "in a circle": LOOP,
    "a parent is missing": GONE,
    "current_node is missing": LOST,
}


@pytest.mark.parametrize("kind", ODD)
def test_hostile_exports(kind, command, tmp_path):
    """What is wrong is told, once or more, with nothing of it; the conversation behind it is there."""
    file = archive(tmp_path / "e.zip", ODD[kind], WHOLE)
    ran = command("import", "--from", READER, file, "--keep-going", "--json", "--verify", status=1)
    document = json.loads(ran.stdout)
    assert document["bad_rows"] >= 1
    assert document["verified"] == document["read"] >= 2
    assert "SECRET" not in ran.stdout + ran.stderr


@pytest.mark.parametrize(("most", "room", "kept"), [(5, 50_000, 5), (100, 60, 4)])
def test_a_bush_is_bounded(most, room, kept, tmp_path, monkeypatch):
    """A tree of very many ends is no flood: so many branches are kept, the newest, and how many are not is told."""
    monkeypatch.setattr(chatgpt, "MOST", most)
    monkeypatch.setattr(chatgpt, "ROOM", room)
    nodes = [node("n0", None, "user", "x")]
    nodes += [node(f"n{number}", f"n{number - 1}", "assistant", "y") for number in range(1, 20)]
    nodes += [node(f"e{number}", f"n{number}", "user", "z") for number in range(18)]
    (tmp_path / "c.json").write_text(json.dumps([conversation(*nodes, current="n19")]))
    bad = []
    found = [*chatgpt.read(str(tmp_path / "c.json"), None, lambda *one: bad.append(one))]
    assert [one.conversation_id for one in found] == ["c1", *(f"c1:e{17 - number}" for number in range(kept))]
    assert bad == [("'c1', branches", f"are too many; the {18 - kept} oldest are left out")]
    assert found[0].message_count == 20


def test_a_long_tree_takes_no_stack(tmp_path):
    """A conversation of very many messages is read, one behind the other."""
    nodes = [node("n0", None, "user", "x")]
    nodes += [node(f"n{number}", f"n{number - 1}", "assistant", "y") for number in range(1, 5_000)]
    (tmp_path / "c.json").write_text(json.dumps([conversation(*nodes)]))
    (found,) = chatgpt.read(str(tmp_path / "c.json"), None, lambda *one: pytest.fail(str(one)))
    assert (found.message_count, found.messages[-1].message_id) == (5_000, "n4999")


def test_what_is_no_export(command, tmp_path):
    """Another archive, another file, and one that was cut are refused by a sentence."""
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as file:
        file.writestr("x", "y")
    whole = archive(tmp_path / "e.zip", WHOLE, WHOLE).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text").write_text("SECRET")
    (tmp_path / "object.json").write_text("{}")
    (tmp_path / "cut.json").write_text(json.dumps([WHOLE, WHOLE])[:-40])
    for name, said in (
        ("other.zip", "holds no conversations.json"),
        ("cut.zip", "damaged or encrypted"),
        ("text", "holds no array of JSON"),
        ("object.json", "holds no array of JSON"),
        ("cut.json", "ends within its array"),
    ):
        ran = command("import", "--from", READER, tmp_path / name, status=2)
        assert said in ran.stderr, name
        assert "SECRET" not in ran.stderr


VALUES = ["a", 'q"\\"\\\\', "[{,]}", {"k": ["]", {"x": "}"}]}, [], {}, 1.5, None, True, "é🐈", [[["\\"]]]]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_elements_of_an_array(chunk, indent, monkeypatch):
    """Elements are found wherever a chunk ends: within escapes, strings, and characters."""
    monkeypatch.setattr(chatgpt, "CHUNK", chunk)
    text = json.dumps(VALUES, indent=indent, ensure_ascii=False)
    found = chatgpt.elements(io.BytesIO(text.encode()))
    assert [json.loads(one) for one in found] == VALUES
    with pytest.raises(MemoryInvalidInputError):
        [*chatgpt.elements(io.BytesIO(text.encode()[:-1]))]


def test_an_element_without_end_takes_no_memory(monkeypatch):
    """What is longer than an element may be is passed over, and the next one is found."""
    monkeypatch.setattr(chatgpt, "CHUNK", 10)
    monkeypatch.setattr(chatgpt, "LONGEST", 100)
    text = json.dumps(["x" * 1_000, 1, "y" * 50])
    assert [*chatgpt.elements(io.BytesIO(text.encode()))] == [None, b" 1", b' "' + b"y" * 50 + b'"']
