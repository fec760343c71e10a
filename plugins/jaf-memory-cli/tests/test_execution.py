"""How the program ends: signals, closed and full streams, wrong arguments; and how it looks on odd terminals."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time

import pytest


def talk(key="talk", **fields):
    """Return a conversation of one message, as a line has it."""
    return {"conversation_id": key, "messages": [{"role": "user", "content": "hello"}], **fields}


def write(path, *conversations):
    """Write a file of JSON Lines, and return its path."""
    path.write_text("".join(json.dumps(one) + "\n" for one in conversations), encoding="utf-8")
    return path


def wait_for(condition):
    """Wait until something holds, for a minute at most."""
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def heard():
    """Answer signals, whatever the tests were started with."""
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, signal.SIG_DFL if one != signal.SIGINT else signal.default_int_handler)


ENDINGS = {signal.SIGINT: "interrupted", signal.SIGTERM: "ended by SIGTERM", signal.SIGHUP: "ended by SIGHUP"}
each_ending = pytest.mark.parametrize("number", ENDINGS, ids=lambda one: one.name)


@each_ending
def test_a_signal_leaves_nothing_behind(sampled, tmp_path, number):
    """Ctrl-C, SIGTERM and SIGHUP end an export with 128 and their number, in one line, and no half file is left."""
    with sampled.start("--type", "endless", "export", "out.jsonl", preexec_fn=heard) as process:
        wait_for(lambda: [one for one in tmp_path.iterdir() if one.name.startswith(".out.jsonl")])
        process.send_signal(number)
        _, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (128 + number, f"error: {ENDINGS[number]}\n")
    assert not [one.name for one in tmp_path.iterdir() if "jsonl" in one.name]


@each_ending
def test_a_signal_ends_a_wait_for_input(fresh, number):
    """A signal ends an import that waits for its input, and says how far it came."""
    with fresh.start("import", "-", stdin=subprocess.PIPE, preexec_fn=heard) as process:
        process.stdin.write(json.dumps(talk()) + "\n")
        process.stdin.flush()
        wait_for((fresh.folder / "store.db").exists)
        time.sleep(0.5)
        process.send_signal(number)
        process.wait(60)
        err = process.stderr.read()
    assert process.returncode == 128 + number
    assert "imported before that; run the same command again to go on" in err
    assert f"error: {ENDINGS[number]}\n" in err


def test_a_signal_that_is_ignored_stays_ignored(sampled, tmp_path):
    """Under `nohup`, SIGHUP ends nothing."""
    ignoring = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    with sampled.start("--type", "endless", "export", "out.jsonl", **ignoring) as process:
        wait_for(lambda: [one for one in tmp_path.iterdir() if one.name.startswith(".out.jsonl")])
        process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        assert process.poll() is None
        process.terminate()
        process.communicate(timeout=300)
    assert process.returncode == 128 + signal.SIGTERM


CLOSED = {
    "help": ["--help"],
    "a command's help": ["list", "--help"],
    "version": ["--version"],
    "list": ["list"],
    "list in JSON": ["list", "--json"],
    "export": ["export"],
    "providers": ["providers"],
    "no arguments": [],
}


@pytest.mark.parametrize("name", CLOSED)
@pytest.mark.parametrize("stream", [">&-", ">/dev/full"])
def test_output_that_cannot_be_written(program, tmp_path, name, stream):
    """Where standard output is closed or full, the program ends with status 2 and one line, and no stack trace."""
    program.run("import", write(tmp_path / "one.jsonl", talk()))
    done = shell(program, f"{' '.join(CLOSED[name])} {stream}")
    assert done.returncode == 2
    said = r'(error: |{"error": ")(the output cannot be written|standard output): [^\n]+\n'
    assert re.fullmatch(said, done.stderr), done.stderr


def test_messages_that_cannot_be_written(program, tmp_path):
    """Where standard error or input is closed or full, answer and status are what they are, and no file is harmed."""
    program.run("import", write(tmp_path / "one.jsonl", talk()))
    for stream in ("2>&-", "2>/dev/full", "<&-", "2>&- <&-"):
        assert json.loads(shell(program, f"stats --json {stream}").stdout)["total_conversations"] == 1
        assert shell(program, f"show nobody {stream}").returncode == 1
        assert shell(program, f"delete talk {stream}").returncode == 2
        assert shell(program, f"frobnicate {stream}").returncode == 2
    assert shell(program, "stats >&- 2>&- <&-").returncode == 2
    assert program.run("stats", "--json").document["total_conversations"] == 1


def test_a_reader_of_help_that_goes(program):
    """Help whose reader has gone ends quietly with 141."""
    for arguments in (["--help"], ["list", "--help"], ["--version"]):
        reader, writer = os.pipe()
        os.close(reader)
        with program.start(*arguments, stdout=writer) as process:
            os.close(writer)
            assert (process.wait(300), process.stderr.read()) == (141, "")


def shell(program, arguments):
    """Run the program from a shell, which can close streams."""
    command = ["sh", "-c", f'exec "$@" {arguments}', "sh", *program.command]
    return subprocess.run(
        command, cwd=program.folder, env=program.environ, check=False, capture_output=True, text=True, timeout=300
    )


WRONG = [
    (["frobnicate"], "No such command 'frobnicate'"),
    (["lst"], "Did you mean 'list'"),
    (["list", "--limit", "0"], "--limit"),
    (["list", "--limit", "many"], "--limit"),
    (["list", "--nosuch"], "--nosuch"),
    (["show"], "ID"),
    (["show", "a", "b"], "b"),
    (["--nosuch", "list"], "--nosuch"),
    (["list", "--since", "yesterday"], "--since"),
]


@pytest.mark.parametrize(("arguments", "said"), WRONG, ids=lambda value: " ".join(value) if type(value) is list else "")
def test_wrong_arguments_are_told_to_programs(program, arguments, said):
    """With `--json` a mistake in the arguments is one JSON object on standard error too, and one line without it."""
    ran = program.run(*arguments, "--json", status=2)
    about = json.loads(ran.err)
    assert ran.out == ""
    assert said in about["error"]
    assert (about["exit_status"], set(about)) == (2, {"error", "kind", "exit_status"})
    assert re.fullmatch(r"error: [^\n]+\n", program.run(*arguments, status=2).err)


def test_an_import_that_stops_tells_what_it_did(program, tmp_path):
    """An import that a bad line stops tells what it had imported and refused, to people and to programs."""
    program.run("import", write(tmp_path / "one.jsonl", talk("a")))
    other = {"conversation_id": "a", "messages": [{"role": "user", "content": "OTHER"}]}
    file = write(tmp_path / "two.jsonl", talk("b"), other)
    file.write_text(file.read_text() + "{broken\n")
    ran = program.run("import", file, status=1)
    assert "1 conversation (1 message added) imported before that" in ran.err
    assert "✗ refused (1):\n  a: conversation 'a' holds message" in ran.err
    about = json.loads(program.run("import", file, "--json", status=1).err)
    assert (about["conversations"], about["refused"], about["bad_lines"]) == (1, 1, 0)
    assert about["refused_first"][0]["conversation_id"] == "a"
    assert about["error"].startswith("line 3: is not JSON")


def test_a_hint_repeats_the_options(program, tmp_path):
    """The command that shows the next page names the same store: the options before it are repeated, no secret is."""
    program.run("import", write(tmp_path / "one.jsonl", talk("a"), talk("b")))
    elsewhere = program.given(JAF_MEMORY_TYPE="", JAF_SQLITE_PATH="")
    given = ["--type", "sqlite", "--set", "path=store.db", "list", "--limit", "1"]
    hint = elsewhere.run(*given).out.splitlines()[-1].split()
    assert hint[:6] == ["jaf-memory", "--type", "sqlite", "--set", "path=store.db", "list"]
    assert elsewhere.run(*hint[1:], "--json").document["conversation_id"] == "a"
    env = tmp_path / "a store.env"
    env.write_text("JAF_MEMORY_TYPE=sqlite\nJAF_SQLITE_PATH=store.db\n")
    hint = elsewhere.run("--env-file", env, "list", "--limit", "1").out.splitlines()[-1]
    assert f"--env-file '{env}' list" in hint


@pytest.mark.parametrize("width", [20, 30, 39, 59])
def test_a_narrow_terminal_shows_ids_whole(program, tmp_path, width):
    """On a narrow terminal every id and owner of a list can be read: each has a line of its own, as long as it fits."""
    program.run("import", write(tmp_path / "one.jsonl", talk("support:12345", user_id="ada.lovelace")))
    out = program.given(COLUMNS=width).run("list").out
    assert out.startswith("support:12345\n  ada.lovelace\n  1 message\n  20")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_an_id_can_be_told_in_any_encoding(program, tmp_path, encoding):
    """Where the output's encoding lacks a character, ids are spelled, and never become question marks."""
    program.run("import", write(tmp_path / "one.jsonl", talk("日本"), talk("emoji 🙂"), talk("ü")))
    odd = program.given(PYTHONIOENCODING=encoding)
    for command in (["list"], ["list", "--all"], ["show", "日本"], ["doctor"], ["providers"], ["--help"]):
        assert "?" not in odd.run(*command).out
    with odd.start("list", text=False, encoding=None) as process:  # a process of its own: what Python makes of it
        out = process.communicate(timeout=300)[0].decode(encoding)
    assert "日本" in out if encoding == "utf-8" else "\\u65e5\\u672c" in out


def test_help_is_quick():
    """Help starts within three times of what its libraries need: it imports no core, no store and no asyncio."""
    code = "import sys; from jaf_memory_cli.app import run; sys.argv[1:] = ['--help']; run(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    imported = set(done.stdout.splitlines()[-1].split())
    assert not imported & {"jaf_memory_core", "asyncio", "pydantic", "msgspec", "rich.markdown", "typer.rich_utils"}


def processor_time(*command):
    """Return the seconds of a processor that a command takes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_takes_three_times_its_libraries_at_most(program):
    """`jaf-memory --help` takes at most three times the time of `import typer, rich`, the best of five each."""
    libraries = min(processor_time(sys.executable, "-c", "import typer, rich") for _ in range(5))
    assert min(processor_time(*program.command, "--help") for _ in range(5)) <= 3 * libraries


def test_help_says_what_the_commands_say():
    """Each line of help is the first line of its command's docstring."""
    from importlib import import_module

    from jaf_memory_cli.app import COMMANDS

    for entry in COMMANDS.values():
        module, _, function = entry.work.partition(".")
        work = getattr(import_module(f"jaf_memory_cli.{module}"), function)
        assert work.__doc__.partition("\n")[0] == entry.about


def test_every_page_of_help(program):
    """The help of a command has its usage with the argument's name, and each of its options once."""
    from jaf_memory_cli.app import COMMANDS

    for name in COMMANDS:
        out = program.run(name, "--help").out
        assert out.startswith(f"Usage: jaf-memory {name} [OPTIONS]")
        assert not re.search(r"[{<]", out)
        assert out.count("--json") >= 1
        assert out.count("-h, --help") == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_completes(program, shell):
    """Commands and options are completed by the shells that `--show-completion` has a script for."""
    completing = program.given(
        _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1",
        _JAF_MEMORY_COMPLETE=f"complete_{shell}",
        COMP_WORDS="jaf-memory ex",
        COMP_CWORD="1",
        _TYPER_COMPLETE_ARGS="jaf-memory ex",
        _TYPER_COMPLETE_FISH_ACTION="get-args",
    )
    assert "export" in completing.run().out
    options = {
        "COMP_WORDS": "jaf-memory export --fo",
        "COMP_CWORD": "2",
        "_TYPER_COMPLETE_ARGS": "jaf-memory export --fo",
    }
    assert "--force" in completing.given(**options).run().out
