"""`jaf-memory`, run as a user runs it: as a process, on a SQLite file."""

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sample_conversations import FIRST, FIRST_USER, sample_conversations

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-7]|9[0-7])[;m]")
SECRET = "correct-horse-battery"
MESSAGES = sum(len(one["messages"]) for one in sample_conversations())


def jsonl(path):
    """Return the objects of a file of JSON Lines."""
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def bare(conversations):
    """Return conversations by id, without what a store adds: ids of messages, the owner in the metadata."""
    return {
        one["conversation_id"]: (
            one["user_id"],
            {key: value for key, value in one["metadata"].items() if key != "user_id"},
            [{key: value for key, value in message.items() if key != "message_id"} for message in one["messages"]],
        )
        for one in conversations
    }


def digests(path):
    """Return the digest of each conversation of an export."""
    return {one["conversation_id"]: one["digest"] for one in jsonl(path)}


def write(path, *conversations):
    """Write a file of JSON Lines, and return its path."""
    path.write_text("".join(json.dumps(one) + "\n" for one in conversations), encoding="utf-8")
    return path


def talk(key="talk", **fields):
    """Return a conversation of one message, as a line has it."""
    return {"conversation_id": key, "messages": [{"role": "user", "content": "hello"}], **fields}


# The 100 conversations.


def test_what_was_imported_is_exported(program, conversations_file, tmp_path):
    """The 100 conversations, imported and exported, equal the input message by message, each with its digest."""
    given = jsonl(conversations_file)
    program.run("import", conversations_file)
    done = program.run("export", tmp_path / "export.jsonl", "--json").document
    assert (done["conversations"], done["messages"]) == (100, sum(len(one["messages"]) for one in given))
    assert bare(jsonl(tmp_path / "export.jsonl")) == bare(given)
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests(tmp_path / "export.jsonl").values())
    assert program.run("export").out == (tmp_path / "export.jsonl").read_text(encoding="utf-8")


def test_copies_are_equal_everywhere(filled, tmp_path):
    """Copied to another SQLite file, imported into a third, and copied into memory, all digests are the same."""
    filled.run("export", tmp_path / "first.jsonl")
    other = tmp_path / "other.db"
    done = filled.run("copy", "--to", "sqlite", "--to-set", f"path={other}", "--verify", "--json").document
    assert (done["conversations"], done["messages_added"], done["verified"]) == (100, MESSAGES, 100)
    copied = filled.given(JAF_SQLITE_PATH=other)
    copied.run("export", tmp_path / "second.jsonl")
    # Byte by byte: the times, too.
    assert (tmp_path / "second.jsonl").read_bytes() == (tmp_path / "first.jsonl").read_bytes()
    third = filled.given(JAF_SQLITE_PATH=tmp_path / "third.db")
    assert third.run("import", tmp_path / "second.jsonl", "--json").document["messages_added"] == MESSAGES
    third.run("export", tmp_path / "third.jsonl")
    assert digests(tmp_path / "third.jsonl") == digests(tmp_path / "first.jsonl")
    done = third.run("copy", "--to", "memory", "--verify", "--json").document
    assert (done["conversations"], done["verified"], done["differing"]) == (100, 100, 0)


def test_what_has_changed_since_is_exported(program, tmp_path):
    """`export --since` writes what was changed at that time or later, whenever it was made, and no more."""
    times = {"created_at": "2024-01-01T00:00:00Z", "active_at": "2024-02-01T00:00:00Z"}
    changed = {"old": "2024-05-31T23:59:59Z", "titled": "2024-06-01T00:00:00Z", "new": "2024-07-01T00:00:00Z"}
    talks = [talk(key, **times, updated_at=updated) for key, updated in changed.items()]
    program.run("import", write(tmp_path / "all.jsonl", *talks))
    program.run("export", tmp_path / "since.jsonl", "--since", "2024-06-01T00:00Z")
    written = jsonl(tmp_path / "since.jsonl")
    assert sorted(one["conversation_id"] for one in written) == ["new", "titled"]
    assert {one["active_at"] for one in written} == {"2024-02-01T00:00:00+00:00"}


def test_importing_twice_adds_nothing(program, conversations_file):
    """A second import of the same file, here from standard input, adds nothing, and the export stays the same."""
    messages = program.run("import", conversations_file, "--json").document["messages_added"]
    before = program.run("export").out
    again = program.run("import", "-", "--json", text=conversations_file.read_text(encoding="utf-8")).document
    assert (again["conversations"], again["messages_added"], again["messages_already_there"]) == (100, 0, messages)
    assert program.run("export").out == before


def test_an_interrupted_copy_goes_on(program, tmp_path):
    """A copy that Ctrl-C ends says so with status 130; run again, it copies the rest and every digest is equal."""
    talks = [talk(f"talk-{number}", metadata={"n": number}) for number in range(4000)]
    program.run("import", write(tmp_path / "many.jsonl", *talks))
    target = tmp_path / "target.db"
    copying = ("copy", "--to", "sqlite", "--to-set", f"path={target}", "--json")
    with program.start(*copying, preexec_fn=interruptible) as process:
        wait_for(lambda: size(tmp_path / "target.db-wal") > 200_000)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert json.loads(err) == {"error": "interrupted", "kind": "KeyboardInterrupt", "exit_status": 130}
    done = program.run(*copying, "--verify").document
    assert (done["conversations"], done["verified"]) == (4000, 4000)
    assert 0 < done["already_copied"] < 4000
    assert done["messages_added"] + done["already_copied"] == 4000


def interruptible():
    """Let Ctrl-C end the program, also where the tests run in the background of a shell, which has it ignored there."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def size(path):
    """Return how many bytes a file has, 0 before there is one."""
    return path.stat().st_size if path.exists() else 0


def wait_for(holds):
    """Wait until something holds."""
    deadline = time.monotonic() + 300
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_an_export_takes_no_more_memory_for_more(program, tmp_path):
    """Exporting 120 MB takes hardly more memory than exporting 20 MB: the difference is below 15 MB."""
    peaks = []
    for first, behind in ((0, 70), (70, 400)):
        with (tmp_path / "large.jsonl").open("w") as file:
            for number in range(first, behind):
                messages = [{"role": "user", "content": "x" * 30_000}] * 10
                file.write(json.dumps({"conversation_id": f"c{number}", "messages": messages}) + "\n")
        program.run("import", tmp_path / "large.jsonl")
        peaks.append(peak(program))
    assert (tmp_path / "peak.jsonl").stat().st_size > 120_000_000
    assert peaks[1] - peaks[0] < 15_000


def peak(program):
    """Return the most resident memory that an export had, in kB."""
    measure = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [sys.executable, "-c", measure, *program.command, "export", str(program.folder / "peak.jsonl")]
    return int(subprocess.run(command, env=program.environ, check=True, capture_output=True).stdout)


# Looking.


def test_list_pages_through_everything(filled):
    """Following `--after` from page to page shows each conversation once, in the order of `--all`."""
    everything = [one["conversation_id"] for one in filled.run("list", "--all", "--json").lines]
    assert len(set(everything)) == 100
    paged, after = [], ()
    while page := filled.run("list", "--limit", "33", *after, "--json").lines:
        paged += [one["conversation_id"] for one in page]
        after = ("--after", paged[-1])
    assert paged == everything


def test_list_shows_a_table(filled):
    """`list` shows ids, owners, sizes and times under headings, and the command that shows what comes behind."""
    second = "shop:order-001"
    shown = filled.run("list", "--user", FIRST_USER, "--limit", "1").out
    for part in ("Conversation", "User", "Messages", "Last written", second, FIRST_USER):
        assert part in shown
    assert shown.splitlines()[-1] == f"  jaf-memory list --user {FIRST_USER} --limit 1 --after {second}"
    assert not any(line.endswith(" ") for line in shown.splitlines())


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--since", "2024-05-01"], ["c", "b"]),
        (["--until", "2024-05-01T00:00:00Z"], ["a"]),
        (["--since", "2024-05-01T00:00:00+00:00", "--until", "2024-05-02T00:00Z"], ["b"]),
        (["--since", "100000d", "--until", "2w"], ["c", "b", "a"]),
        (["--since", "24h"], []),
        (["--user", "ada"], ["b", "a"]),
        (["--user", "nobody"], []),
    ],
)
def test_list_filters(program, tmp_path, options, found):
    """`list` keeps to owner and times of making, which may be dates, moments, or so long ago."""
    lines = (
        talk("a", created_at="2024-04-30T00:00:00Z", user_id="ada"),
        talk("b", created_at="2024-05-01T12:00:00Z", user_id="ada"),
        talk("c", created_at="2024-05-03T00:00:00+02:00"),
    )
    program.run("import", write(tmp_path / "three.jsonl", *lines))
    # One call of the program for each; they differ in their last write by the order of the import.
    ran = program.given(TZ="UTC").run("list", *options, "--json")
    assert [one["conversation_id"] for one in ran.lines] == found


def test_show_folds_and_unfolds(filled):
    """A transcript shows prompts, calls and results on a line each, and whole with `--full`."""
    folded, full = filled.run("show", FIRST).out, filled.run("show", FIRST, "--full").out
    assert folded.splitlines()[0] == FIRST
    assert f"{FIRST_USER}  " in folded
    assert f'→ get_user_details(user_id="{FIRST_USER}")' in folded
    assert re.search(r"← get_user_details \{.*…  \d+ bytes$", folded, re.MULTILINE)
    assert len(re.findall("# The shop's assistant", folded)) == 1
    assert "## Returns\n" not in folded
    assert "## Returns\n" in full
    assert f'"user_id": "{FIRST_USER}"' in full
    assert len(full.splitlines()) > 2 * len(folded.splitlines())


def test_show_last_shows_the_end(filled):
    """`--last` shows so many messages, says how many came before, and reads as JSON what it shows."""
    whole, last = (
        filled.run("show", FIRST, "--json").document,
        filled.run("show", FIRST, "--last", "3", "--json").document,
    )
    assert last["messages"] == whole["messages"][-3:]
    assert last["message_count"] == whole["message_count"] == len(whole["messages"])
    assert "digest" in whole
    assert "digest" not in last
    assert f"… {len(whole['messages']) - 3} earlier messages" in filled.run("show", FIRST, "--last", "3").out


def test_a_terminal_obeys_nothing_that_is_stored(program, tmp_path):
    """Escape sequences, marks of direction and lone surrogates in ids, owners and messages are shown, not sent."""
    evil = "\x1b]0;owned\x07\x1b[2J\u202e\ud800"
    key = "a\x1b[31mb\nc"
    message = {"role": "user", "content": evil, "name": evil}
    call = {"id": evil, "type": "function", "function": {"name": evil, "arguments": evil}}
    calling = {"role": "assistant", "content": evil, "tool_calls": [call]}
    answer = {"role": "tool", "content": evil, "name": evil, "tool_call_id": evil}
    stored = {
        "conversation_id": key,
        "user_id": "u\x1bu",
        "metadata": {evil: evil},
        "messages": [message, calling, answer],
    }
    program.run("import", write(tmp_path / "evil.jsonl", stored))
    for command in (["list"], ["show", key], ["show", key, "--full"], ["show", key, "--last", "1"]):
        shown = program.run(*command).out
        assert "\x1b" not in shown
        assert "\u202e" not in shown
        assert "␛" in shown


def test_stats_count(filled):
    """`stats` counts conversations, messages and bytes, of all or of one user."""
    found = filled.run("stats", "--json").document
    assert (found["total_conversations"], found["total_messages"], found["user_id"]) == (100, MESSAGES, None)
    mine = filled.run("stats", "--user", FIRST_USER, "--json").document
    assert mine["user_conversations"] == mine["total_conversations"] == 2
    assert f"{MESSAGES:,}" in filled.run("stats").out


# Exit statuses, and what stands beside them.


STATUSES = [
    (0, ["list"], ""),
    (1, ["show", "nobody"], "error: there is no conversation 'nobody'"),
    (1, ["delete", "nobody", "--yes"], "error: there is no conversation 'nobody'"),
    (1, ["list", "--after", "nobody"], "error: there is no conversation 'nobody'"),
    (2, [], "Usage"),
    (2, ["frobnicate"], "frobnicate"),
    (2, ["list", "--limit", "0"], "--limit"),
    (2, ["list", "--since", "yesterday"], "error: --since: 'yesterday' is no time; write 2024-05-15"),
    (2, ["show", "x" * 256], "error: conversation_id must have 1 to 255 characters, not 256"),
    (2, ["import", "missing.jsonl"], "error: missing.jsonl: No such file or directory"),
    (2, ["import", "."], "error: .: Is a directory"),
    (2, ["export", "missing/export.jsonl"], "error: missing: No such file or directory"),
    (2, ["--type", "sqllite", "list"], "error: there is no memory provider 'sqllite'; did you mean 'sqlite'?"),
    (2, ["--set", "pth=x", "list"], "error: --set: the provider 'sqlite' has no setting 'pth'; did you mean path?"),
    (2, ["--set", "path", "list"], "error: --set takes FIELD=VALUE, for example --set path=…"),
    (2, ["--set", "ttl=soon", "list"], "error: JAF_SQLITE_TTL holds 'soon'; allowed: a number, above 0"),
    (2, ["--env-file", "missing.env", "list"], "error: missing.env: No such file or directory"),
    (2, ["--env-file", "/dev/zero", "list"], "error: /dev/zero has more than 1048576 bytes; this is no file of"),
    (2, ["copy"], "error: say where to copy: --to NAME"),
    (2, ["copy", "--to", "sqlite"], "error: source and destination are the same store"),
    (2, ["forget-user", "ada"], "error: there is nobody to ask here, and this cannot be undone; say --yes to do it"),
    (2, ["delete", "talk"], "say --yes"),
    (2, ["delete-message", "talk", "m1"], "say --yes"),
    (2, ["purge"], "say --yes"),
    (2, ["--type", "memory", "schema"], "error: provider 'memory' has no schema of its own to print or apply"),
    (2, ["adopt"], "error: provider 'sqlite' knows of no older data to adopt"),
    (
        2,
        ["--type", "six", "list"],
        "error: provider 'SixProvider' does not offer find_conversations, which `list` needs",
    ),
    (2, ["--type", "six", "stats"], "does not offer get_stats, which `stats` needs"),
    (2, ["--type", "six", "export"], "does not offer iter_conversations, which `export` needs"),
    (2, ["--type", "six", "copy", "--to", "memory"], "does not offer iter_conversations, which `copy` needs"),
    (2, ["--type", "six", "forget-user", "ada", "--yes"], "does not offer clear_user_conversations"),
    (2, ["--type", "six", "delete-message", "talk", "m", "--yes"], "does not offer delete_messages"),
    (2, ["--type", "six", "purge", "--yes"], "does not offer purge_expired, which `purge` needs"),
    (2, ["--type", "broken", "list"], "(sample-providers 1.5) does not load: "),
    (3, ["--type", "unreachable", "list"], "error: unreachable: the store could not be reached"),
    (3, ["--type", "unreachable", "import", "-"], "error: "),
    (3, ["--type", "torn", "export"], "error: torn: the store failed"),
]


@pytest.mark.parametrize(("status", "arguments", "said"), STATUSES, ids=lambda value: str(value)[:40])
def test_exit_statuses(sampled, status, arguments, said):
    """Each way to end has its status, one line on standard error that says why, and no stack trace."""
    ran = sampled.given(JAF_UNREACHABLE_OPERATION_TIMEOUT=1).run(*arguments, status=status)
    pattern = said if "|" in said else re.escape(said)
    assert re.search(pattern, ran.err + (ran.out if not arguments else ""))


def test_an_error_can_be_read_by_programs(sampled):
    """With `--json` an error is a JSON document on standard error, and standard output is empty."""
    ran = sampled.run("show", "nobody", "--json", status=1)
    assert ran.out == ""
    about = json.loads(ran.err)
    assert about == {"error": "there is no conversation 'nobody'", "kind": "MemoryNotFoundError", "exit_status": 1}


def test_a_reader_that_goes_is_no_error(filled):
    """When whoever reads the output goes, as `head` does, the program ends quietly with 141."""
    for command in (["list", "--all"], ["export"], ["show", FIRST, "--full"], ["list", "--all", "--json"]):
        reader, writer = os.pipe()
        os.close(reader)
        with filled.start(*command, stdout=writer) as process:
            os.close(writer)
            assert process.wait(300) == 141
            assert process.stderr.read().replace(f"✓ exported 100 conversations, {MESSAGES:,} messages\n", "") == ""


def test_ctrl_c_ends_with_130(sampled):
    """Ctrl-C ends the program with status 130 and one line."""
    with sampled.start("--type", "sleepy", "list", preexec_fn=interruptible) as process:
        wait_for((sampled.folder / "asleep").exists)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (130, "error: interrupted\n")


EVERY = [
    ["list"],
    ["show", FIRST],
    ["stats"],
    ["doctor"],
    ["info"],
    ["providers"],
    ["export", "export.jsonl"],
    ["copy", "--to", "sqlite", "--to-set", "path=copy.db", "--verify"],
    ["import", "export.jsonl"],
    ["delete", FIRST, "--yes"],
    ["forget-user", FIRST_USER, "--yes"],
    ["purge", "--yes"],
    ["--type", "tidy", "schema"],
    ["--type", "tidy", "schema", "--apply"],
]


def test_every_command_writes_json(sampled, filled):
    """With `--json` every command writes one JSON object a line, in ASCII, and nothing to standard error."""
    shutil.copy(filled.folder / "store.db", sampled.folder)
    for arguments in EVERY:
        ran = sampled.run(*arguments, "--json")
        assert ran.err == "", arguments
        assert ran.out.isascii()
        assert ran.lines, arguments
        assert all(isinstance(document, dict) for document in ran.lines)
        if arguments != ["list"]:
            assert len(ran.lines) == 1


# Files.


def test_a_bad_line_stops_an_import(program, tmp_path):
    """A bad line ends an import with status 1, its number and what is wrong; mended, the file is imported again."""
    file = write(tmp_path / "bad.jsonl", talk("a"), talk("b", metdata={"secret": SECRET}), talk("c"))
    ran = program.run("import", file, status=1)
    assert "error: line 2: has the unknown field 'metdata'" in ran.err
    assert "1 conversation (1 message added) imported before that; run the same command again to go on" in ran.err
    assert SECRET not in ran.err
    ran = program.run("import", file, "--keep-going", status=1)
    assert "imported 2 conversations (1 message added, 1 there already)" in ran.out
    assert "✗ bad lines, passed over (1):\n  2: has the unknown field 'metdata'" in ran.err
    assert program.run("import", write(file, talk("a"), talk("b"), talk("c")), "--json").document["messages_added"] == 1


def test_a_conflict_is_told(program, tmp_path):
    """A conversation that conflicts is refused with status 1 and a reason without content; the others are imported."""
    program.run("import", write(tmp_path / "one.jsonl", talk("a")))
    other = {**talk("a"), "messages": [{"role": "user", "content": SECRET}]}
    ran = program.run("import", write(tmp_path / "two.jsonl", other, talk("b")), status=1)
    assert "✓ imported 1 conversation (1 message added)" in ran.out
    assert "✗ refused (1):\n  a: conversation 'a' holds message" in ran.err
    assert SECRET not in ran.err


def test_a_copy_reports_conflicts(program, tmp_path):
    """A conversation that stands in the destination with other content is reported, and not overwritten."""
    other = program.given(JAF_SQLITE_PATH=tmp_path / "other.db")
    program.run("import", write(tmp_path / "one.jsonl", talk("a"), talk("b")))
    other.run("import", write(tmp_path / "two.jsonl", talk("a", metadata={"mine": True}, messages=[])))
    other.run(
        "import",
        write(tmp_path / "two.jsonl", {**talk("a"), "messages": [{"role": "user", "content": SECRET}]}),
        status=0,
    )
    before = other.run("show", "a", "--json").document
    ran = program.run("copy", "--to", "sqlite", "--to-set", f"path={tmp_path / 'other.db'}", "--verify", status=1)
    assert "✗ conflicts, left as they are (1):\n  a: it holds other messages in the destination" in ran.err
    assert "✓ verified: 1 digest equal" in ran.out
    assert other.run("show", "a", "--json").document == before


def test_an_export_that_fails_leaves_what_was_there(sampled, tmp_path):
    """If an export fails half-way, the file of the last one stays as it was, and no half of the new one is left."""
    file = tmp_path / "export.jsonl"
    sampled.run("import", write(tmp_path / "one.json", talk()))
    sampled.run("export", file)
    before = file.read_bytes()
    sampled.run("--type", "torn", "export", file, status=3)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if "jsonl" in path.name] == ["export.jsonl"]


def test_an_export_is_its_owners(program, tmp_path):
    """Nobody but its owner may read an export; a device is written as it is."""
    program.run("export", tmp_path / "export.jsonl")
    assert (tmp_path / "export.jsonl").stat().st_mode & 0o777 == 0o600
    program.run("export", "/dev/null")
    assert Path("/dev/null").is_char_device()


# Which store.


def test_options_choose_the_store(program, empty, tmp_path):
    """`--type` and `--set` go over the environment; a variable's whole name does as well as a field's."""
    shutil.copy(empty, tmp_path / "other.db")
    program.run("import", write(tmp_path / "one.jsonl", talk("a")))
    for option in (f"path={tmp_path / 'other.db'}", f"JAF_SQLITE_PATH={tmp_path / 'other.db'}"):
        assert program.run("--type", "sqlite", "--set", option, "list", "--json").lines == []
    assert len(program.run("list", "--json").lines) == 1


def test_a_file_describes_a_store(program, tmp_path):
    """A file of variables describes a store all by itself: nothing of the environment's is mixed into it."""
    program.run("import", write(tmp_path / "one.jsonl", talk("a")))
    env = tmp_path / "other.env"
    env.write_text(f"\ufeff# the other\n\nexport JAF_MEMORY_TYPE=sqlite\nJAF_SQLITE_PATH='{tmp_path}/o t.db' \n")
    done = program.given(JAF_SQLITE_TTL=60).run("copy", "--to-env-file", env, "--verify", "--json").document
    assert (done["conversations"], done["verified"]) == (1, 1)
    assert (tmp_path / "o t.db").exists()
    settings = program.given(JAF_SQLITE_TTL=60).run("--env-file", env, "info", "--json").document["settings"]
    assert settings["JAF_SQLITE_TTL"] == ""
    env.write_text("JAF_MEMORY_TYPE=sqlite\nJAF_SQLITE_PTH=x.db\n")
    assert "JAF_SQLITE_PTH; did you mean JAF_SQLITE_PATH?" in program.run("copy", "--to-env-file", env, status=2).err
    env.write_text(f"JAF_MEMORY_TYPE=sqlite\n{SECRET}\n")
    ran = program.run("copy", "--to-env-file", env, status=2)
    assert "line 2: expected VARIABLE=VALUE" in ran.err
    assert SECRET not in ran.err


def test_an_option_is_not_overruled_quietly(sampled):
    """An option that a variable of the environment would make void is refused: the work would be done elsewhere."""
    program = sampled.given(JAF_TIDY_URL=f"tidy://user:{SECRET}@production")
    ran = program.run("--type", "tidy", "--set", "host=staging", "list", status=2)
    assert "--set and the environment contradict each other: JAF_TIDY_URL is set, so that JAF_TIDY_HOST" in ran.err
    assert SECRET not in ran.err


def test_the_empty_default_is_explained(program):
    """On the default store, which is empty in each process, a command says why there is nothing to be found."""
    ran = program.given(JAF_MEMORY_TYPE="").run("list", status=2)
    assert "the store is 'memory', which lives as long as one process; set JAF_MEMORY_TYPE" in ran.err


def test_a_provider_with_six_methods_is_served(sampled, tmp_path):
    """Import, show, delete and doctor work with a provider that has only the document's six methods."""
    program = sampled.given(JAF_MEMORY_TYPE="six")
    ran = program.run("import", write(tmp_path / "one.jsonl", talk("a", user_id="ada")))
    assert "the provider 'six' cannot keep when conversations were made" in ran.err
    assert "hello" in program.run("show", "a").out
    assert "hello" in program.run("show", "a", "--last", "1").out
    assert program.run("doctor", "--json").document["healthy"] is True
    program.run("delete", "a", "--yes")
    program.run("show", "a", status=1)


# Checking.


def test_providers_lists_what_is_installed(sampled):
    """`providers` lists each with its distribution and version, marks the selected and the broken, and says why."""
    ran = sampled.run("providers")
    found = {one["name"]: one for one in sampled.run("providers", "--json").document["providers"]}
    assert found["sqlite"]["ok"]
    assert found["sqlite"]["selected"]
    assert found["sqlite"]["distribution"] == "jaf-memory-sqlite"
    assert (found["six"]["distribution"], found["six"]["version"]) == ("sample-providers", "1.5")
    assert not found["broken"]["ok"]
    assert "sample_missing" in found["broken"]["error"]
    assert re.search(r"^✓ +sqlite +jaf-memory-sqlite \S+ .*selected", ran.out.replace("\n  ", ""), re.MULTILINE)
    assert re.search(r"^✗ +broken +sample-providers 1\.5 ", ran.out, re.MULTILINE)


def test_doctor_shows_where_settings_come_from(program):
    """`doctor` shows each setting with its value and origin, the connection, and status 0 when all is well."""
    ran = program.run("--set", "ttl=60", "doctor")
    assert re.search(r"^JAF_MEMORY_TYPE +sqlite +environment$", ran.out, re.MULTILINE)
    assert re.search(r"^JAF_SQLITE_TTL +60 +--set$", ran.out, re.MULTILINE)
    assert re.search(r"^JAF_SQLITE_SYNCHRONOUS +FULL +default$", ran.out, re.MULTILINE)
    assert ran.out.splitlines()[-1] == "healthy"
    assert ran.err == ""


def test_doctor_finds_misspelt_variables(program):
    """`doctor` names a variable that nothing reads, and what was meant; the other commands warn of it, too."""
    program = program.given(JAF_SQLITE_SYNCHRONOS="FULL")
    found = program.run("doctor", "--json").document
    assert found["unknown_variables"] == [{"name": "JAF_SQLITE_SYNCHRONOS", "suggestion": "JAF_SQLITE_SYNCHRONOUS"}]
    said = "nothing reads the variable JAF_SQLITE_SYNCHRONOS; did you mean JAF_SQLITE_SYNCHRONOUS?"
    assert f"! {said}" in program.run("doctor").out
    assert program.run("list").err.startswith(f"note: {said}\n")


def test_no_command_shows_a_secret(sampled):
    """A secret in a setting is masked by `doctor` and `info`, and stands in no error."""
    program = sampled.given(JAF_MEMORY_TYPE="tidy", JAF_TIDY_URL=f"tidy://user:{SECRET}@host", JAF_TIDY_HOST="host")
    for command, status in ((["info"], 0), (["info", "--json"], 0), (["schema"], 0), (["list", "--json"], None)):
        if status is not None:
            ran = program.run(*command, status=status)
            assert SECRET not in ran.out + ran.err
    assert "********" in program.run("info").out


UNHEALTHY = {
    "unknown provider": ({"JAF_MEMORY_TYPE": "sqllite"}, "did you mean 'sqlite'?"),
    "wrong value": ({"JAF_SQLITE_TTL": "soon"}, "JAF_SQLITE_TTL holds 'soon'; allowed: a number"),
    "broken plugin": ({"JAF_MEMORY_TYPE": "broken"}, "(sample-providers 1.5) does not load"),
    "missing plugin": ({"JAF_MEMORY_PLUGINS": "redactor"}, "there is no plugin 'redactor'"),
    "unreachable": ({"JAF_MEMORY_TYPE": "unreachable", "JAF_UNREACHABLE_OPERATION_TIMEOUT": "1"}, "reached"),
    "no such folder": ({"JAF_SQLITE_PATH": "/nowhere/at/all.db"}, "/nowhere/at"),
}


@pytest.mark.parametrize("name", UNHEALTHY)
def test_doctor_says_what_is_wrong(sampled, name):
    """`doctor` names what is wrong, and ends with status 1, whatever it is, in JSON as well."""
    variables, said = UNHEALTHY[name]
    ran = sampled.given(**variables).run("doctor", status=1)
    assert said in " ".join(ran.out.split())
    assert ran.out.splitlines()[-1] == "not healthy"
    found = sampled.given(**variables).run("doctor", "--json", status=1).document
    assert found["healthy"] is False
    assert said in found["problems"][0]["problem"]


# Upkeep.


def test_schema_prints_and_applies(sampled):
    """`schema` prints what the backend offers, as it is, and applies it; the store need not be open for it."""
    tidy = sampled.given(JAF_MEMORY_TYPE="tidy")
    assert tidy.run("schema").out == "CREATE TABLE [bold]conversations[/bold] (id text);\n"
    assert tidy.run("schema", "--apply").out == "✓ applied 0001-tables\n"
    assert tidy.run("schema", "--apply", "--json").document == {"applied": ["0001-tables"]}


def test_rights_are_given_to_a_role(sampled):
    """`schema --role` prints the rights behind the rest, or gives them; without it `--apply` speaks of them."""
    tidy = sampled.given(JAF_MEMORY_TYPE="tidy")
    assert tidy.run("schema", "--role", "app").out.endswith("(id text);\nGRANT SELECT TO app;\n")
    ran = tidy.run("schema", "--apply", "--role", "app")
    assert ran.out == "✓ applied 0001-tables; app has the rights that it needs\n"
    assert "--role" not in ran.err
    assert "--role ROLE" in tidy.run("schema", "--apply").err
    document = tidy.run("schema", "--apply", "--role", "app", "--json").document
    assert document == {"applied": ["0001-tables"], "granted": "app"}
    assert "no role 'nobody'" in tidy.run("schema", "--apply", "--role", "nobody", status=2).err
    assert "no schema" in sampled.given(JAF_MEMORY_TYPE="memory").run("schema", "--role", "app", status=2).err


def test_adopt_tells_what_it_did(sampled):
    """`adopt` says what it found and did, with status 1 if something was refused, and removes only when told to."""
    tidy = sampled.given(JAF_MEMORY_TYPE="tidy")
    ran = tidy.run("adopt", status=1)
    assert ran.out == "✓ moved 1 conversation, 1 had been moved before\n"
    assert "· found 3 older conversations; they stay\n" in ran.err
    assert "three: another stands there" in ran.err
    tidy.run("adopt", "--remove", status=2)
    document = tidy.run("adopt", "--remove", "--yes", "--json", status=1).document
    assert (document["moved"], document["already_moved"], document["refused"]) == (1, 1, 1)
    assert document["notes"] == ["found 3 older conversations; they go"]


def test_finishing_an_adoption(sampled):
    """`adopt --finish` says what is kept of the older form, and removes it once that was answered."""
    tidy = sampled.given(JAF_MEMORY_TYPE="tidy")
    asked = tidy.run("adopt", "--finish", status=2)
    assert "the older table holds 1 conversation" in asked.err
    assert tidy.run("adopt", "--finish", "--yes").out == "✓ the older table was removed\n"
    done = tidy.run("adopt", "--finish", "--yes", "--json")
    assert done.document == {"removed": "the older table holds 1 conversation"}
    assert "no older data" in sampled.given(JAF_MEMORY_TYPE="memory").run("adopt", "--finish", status=2).err


# Terminals.


def on_terminal(program, *arguments, typed="", **variables):
    """Run on a terminal of 80 columns, type something, and return the status and all that was shown."""
    pid, terminal = pty.fork()
    if pid == 0:
        environ = {**program.environ, "TERM": "xterm-256color", "COLUMNS": "80", **variables}
        os.chdir(program.folder)
        os.execve(program.command[0], [*program.command, *map(str, arguments)], environ)
    shown = b""
    while True:
        if typed and b"[y/N]" in shown:
            os.write(terminal, typed.encode())
            typed = ""
        if not select.select([terminal], [], [], 120)[0]:
            os.kill(pid, signal.SIGKILL)  # a test that fails, and not a suite that hangs
        try:
            read = os.read(terminal, 65536)
        except OSError:
            break
        if not read:
            break
        shown += read
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), shown.decode()


@pytest.mark.parametrize(("typed", "status", "left"), [("y\n", 0, 0), ("n\n", 1, 1), ("\n", 1, 1)])
def test_erasing_asks(program, tmp_path, typed, status, left):
    """On a terminal `delete` asks, and does nothing unless the answer is yes; `forget-user` says how much goes."""
    program.run("import", write(tmp_path / "one.jsonl", talk("a", user_id="ada")))
    ended, shown = on_terminal(program, "forget-user", "ada", typed=typed)
    assert ended == status
    assert "Delete all 1 conversation (1 message) of user ada for good? [y/N]" in ESCAPE.sub("", shown)
    assert len(program.run("list", "--json").lines) == left
    if left:
        ended, shown = on_terminal(program, "delete", "a", typed=typed)
        assert ended == status
        assert "nothing was done" in shown
        ended, shown = on_terminal(program, "delete", "a", typed="\x03")
        assert ended == 130
        assert "interrupted" in shown
        assert len(program.run("list", "--json").lines) == 1


def test_a_terminal_gets_colours_and_progress(filled, tmp_path):
    """On a terminal there are colours and a progress bar; NO_COLOR takes the colours, and a pipe gets neither."""
    _, shown = on_terminal(filled, "show", FIRST)
    assert COLOUR.search(shown)
    assert max(len(line) for line in ESCAPE.sub("", shown).splitlines()) <= 80
    _, shown = on_terminal(filled, "show", FIRST, NO_COLOR="1")
    assert not COLOUR.search(shown)
    _, shown = on_terminal(filled, "export", tmp_path / "export.jsonl")
    assert "exporting" in shown
    assert "100/100" in shown
    ran = filled.run("export", tmp_path / "export.jsonl")
    assert ran.err == ""


def test_without_its_extra_it_says_how_to_get_it():
    """Without typer and rich the program says in one line which command installs them, and ends with status 2."""
    code = "import sys; sys.modules.update(typer=None, rich=None); from jaf_memory_cli import main; sys.exit(main())"
    ran = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    said = "jaf-memory needs typer and rich; to install what is missing: pip install typer rich\n"
    assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", said)


def test_the_module_is_the_program(program):
    """`python -m jaf_memory_cli` is the same program."""
    program.command = [sys.executable, "-m", "jaf_memory_cli"]
    assert program.run("--version").out.startswith("jaf-memory ")
    assert "Usage: jaf-memory " in program.run("--help").out
    program.run("show", "nobody", status=1)


def test_show_says_what_a_model_refused(program, tmp_path):
    """A refusal shows as one, as a field and as a part, and an item of the Responses interface shows what it says."""
    messages = [
        {"role": "assistant", "content": None, "refusal": "Not that."},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "Nor this."}]},
        {"type": "function_call_output", "call_id": "c1", "output": "forty-two"},
    ]
    file = tmp_path / "talk.jsonl"
    lines = [{**message, "message_id": f"m{place}"} for place, message in enumerate(messages)]
    file.write_text(json.dumps({"conversation_id": "c", "messages": lines}), encoding="utf-8")
    program.run("import", str(file))
    shown = program.run("show", "c").out
    for said in ("[refused] Not that.", "[refused] Nor this.", "forty-two"):
        assert said in shown
