"""What an export may replace, and that no command makes a store in passing, or claims to have erased where none is."""

import json
import os
import resource
import threading
from pathlib import Path

import pytest


def talk(key="talk", **fields):
    """Return a conversation of one message, as a line has it."""
    return {"conversation_id": key, "messages": [{"role": "user", "content": "hello"}], **fields}


def write(path, *conversations):
    """Write a file of JSON Lines, and return its path."""
    path.write_text("".join(json.dumps(one) + "\n" for one in conversations), encoding="utf-8")
    return path


@pytest.fixture
def standing(program, tmp_path):
    """`jaf-memory` on a SQLite file with two conversations."""
    program.run("import", write(tmp_path / "given.jsonl", talk("a", user_id="ada"), talk("b")))
    return program


def paths_to_the_store(folder):
    """Yield names that lead to a file of the store, by name and by link, one at a time."""
    yield "store.db"
    yield folder / "." / "store.db"
    yield "store.db-wal"
    yield "store.db-shm"
    yield "store.db-journal"
    (folder / "soft").symlink_to("store.db")
    yield "soft"
    (folder / "hard").hardlink_to(folder / "store.db")
    yield "hard"
    (folder / "log").symlink_to("store.db-wal")
    yield "log"
    (folder / "elsewhere").symlink_to(folder, target_is_directory=True)
    yield "elsewhere/store.db"


def test_no_export_replaces_the_store(standing, tmp_path):
    """An export to a file of the store's own, by whatever name, is refused, with `--force` too."""
    for name in paths_to_the_store(tmp_path):
        for options in ([], ["--force"], ["--user", "ada"]):
            ran = standing.run("export", name, *options, status=2)
            assert "belongs to the store" in ran.err, name
    assert standing.run("stats", "--json").document["total_conversations"] == 2


def test_nor_does_one_to_standard_output(standing, tmp_path):
    """Standard output, by any of its names, that is appended to the database is refused."""
    for name in ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"):
        with (tmp_path / "store.db").open("ab") as stdout:
            process = standing.start("export", name, stdout=stdout)
            assert "belongs to the store" in process.communicate(timeout=300)[1]
            assert process.returncode == 2
    assert standing.run("stats", "--json").document["total_conversations"] == 2


def test_a_link_to_the_store_is_the_store(standing, tmp_path):
    """A store that is named by a link is spared where the link leads."""
    (tmp_path / "link.db").symlink_to("store.db")
    linked = standing.given(JAF_SQLITE_PATH=tmp_path / "link.db")
    for name in ("link.db", "store.db", "store.db-wal"):
        assert "belongs to the store" in linked.run("export", name, "--force", status=2).err


OTHER = {
    "a text": b"the last one",
    "a letter": b"x",
    "input of one's own": json.dumps(talk()).encode() + b"\n",
    "a database": b"SQLite format 3\0" + bytes(100),
    "binary": bytes(range(256)),
    "blank lines": b"\n\n",
}


@pytest.mark.parametrize("name", OTHER)
def test_an_export_replaces_nothing_else(standing, tmp_path, name):
    """A file that no export wrote stays as it is, with status 2; `--force` replaces it."""
    file = tmp_path / "file"
    file.write_bytes(OTHER[name])
    ran = standing.run("export", file, status=2)
    assert "is no export of conversations, and stays as it is; name another file, or add --force" in ran.err
    assert file.read_bytes() == OTHER[name]
    standing.run("export", file, "--force")
    assert len(file.read_text(encoding="utf-8").splitlines()) == 2


def test_an_export_with_a_foreign_line_is_none(standing, tmp_path):
    """An export to which somebody has added a line of their own stays as it is."""
    file = tmp_path / "backup.jsonl"
    standing.run("export", file)
    with file.open("a", encoding="utf-8") as more:
        more.write("# mine\n")
    before = file.read_bytes()
    standing.run("export", file, status=2)
    assert file.read_bytes() == before


def test_an_export_replaces_an_export(standing, tmp_path):
    """An older export, an empty file and what a link leads to are replaced; a link stays one."""
    file, link = tmp_path / "backup.jsonl", tmp_path / "link.jsonl"
    file.touch()
    link.symlink_to(file)
    for name in (file, file, link):
        standing.run("export", name)
        assert len(file.read_text(encoding="utf-8").splitlines()) == 2
    assert link.is_symlink()


def test_an_export_is_not_emptied(standing, tmp_path):
    """An export of nothing does not take the place of one that holds something, unless `--force` is given."""
    file = tmp_path / "backup.jsonl"
    standing.run("export", file)
    before = file.read_bytes()
    ran = standing.run("export", file, "--user", "nobody", status=1)
    assert "there is nothing to export; " in ran.err
    assert json.loads(standing.run("export", file, "--user", "nobody", "--json", status=1).err)["exit_status"] == 1
    assert file.read_bytes() == before
    standing.run("export", file, "--user", "nobody", "--force")
    assert file.read_bytes() == b""
    standing.run("export", tmp_path / "new.jsonl", "--user", "nobody")
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".")] == []


def test_a_description_of_the_store_is_spared(standing, tmp_path):
    """The file that `--env-file` names is no place for an export."""
    env = tmp_path / "store.env"
    env.write_text(f"JAF_MEMORY_TYPE=sqlite\nJAF_SQLITE_PATH={tmp_path / 'store.db'}\n")
    ran = standing.run("--env-file", env, "export", env, "--force", status=2)
    assert "belongs to the store" in ran.err


WRONG = {
    "a folder": (".", r"Is a directory"),
    "a folder that is not there": ("missing/x.jsonl", "missing: No such file or directory"),
    "a link into a folder that is not there": ("astray", "nowhere: No such file or directory"),
    "a file for a folder": ("given.jsonl/x.jsonl", "given.jsonl/x.jsonl: Not a directory"),
    "a long name": ("x" * 300, "File name too long"),
    "a loop of links": ("loop", "loop: Too many levels of symbolic links"),
    "no name": ("", "Is a directory"),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_impossible_file_is_named(standing, tmp_path, name):
    """Where no export can be written, the error names file or folder, no temporary one, and nothing is left."""
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "astray").symlink_to("nowhere/x.jsonl")
    file, said = WRONG[name]
    ran = standing.run("export", file, status=2)
    assert said in ran.err
    assert not [one.name for one in tmp_path.iterdir() if one.name.startswith(".")]


def test_a_full_disk_is_told(standing, tmp_path):
    """A disk that fills up during an export, to a file or to standard output, is one line, and nothing is left."""
    # Of short lines some stand in the buffer when the first does not fit, and are written once more.
    many = [{"conversation_id": f"c{n}", "messages": [{"role": "user", "content": "x" * 2_000}]} for n in range(60)]
    standing.run("import", write(tmp_path / "long.jsonl", *many))
    small = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))}
    with standing.start("export", "out.jsonl", **small) as process:
        assert process.communicate(timeout=300)[1] == "error: out.jsonl: File too large\n"
        assert process.returncode == 2
    assert not [one.name for one in tmp_path.iterdir() if "out.jsonl" in one.name]
    with Path("/dev/full").open("wb") as full, standing.start("export", stdout=full) as process:
        assert process.communicate(timeout=300)[1] == "error: standard output: No space left on device\n"
        assert process.returncode == 2


def test_a_pipe_is_written_as_it_is(standing, tmp_path):
    """A named pipe gets the export, and stays a pipe."""
    os.mkfifo(tmp_path / "pipe")
    got = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    standing.run("export", "pipe")
    reader.join(60)
    assert len(got[0].splitlines()) == 2
    assert (tmp_path / "pipe").is_fifo()


# No store.

READING = [
    ["list"],
    ["show", "a"],
    ["stats"],
    ["export"],
    ["export", "backup.jsonl"],
    ["delete", "a", "--yes"],
    ["delete-message", "a", "m", "--yes"],
    ["forget-user", "ada", "--yes"],
    ["purge", "--yes"],
    ["copy", "--to", "sqlite", "--to-set", "path=other.db", "--verify"],
]


@pytest.mark.parametrize("arguments", READING, ids=" ".join)
def test_what_reads_or_erases_makes_no_store(fresh, tmp_path, arguments):
    """Where there is no store, a command that reads or erases says so, ends with status 2, and makes no file."""
    ran = fresh.run(*arguments, status=2)
    assert f"there is no store: there is no file {tmp_path / 'store.db'}" in ran.err
    assert ran.out == ""
    ran = fresh.given(JAF_MEMORY_TYPE="").run(*arguments, "--json", status=2)
    assert "the store is 'memory', which lives as long as one process" in json.loads(ran.err)["error"]
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_is_no_store(fresh, tmp_path):
    """A file without a byte is no store that could be erased from."""
    (tmp_path / "store.db").touch()
    assert "is empty, and no database yet" in fresh.run("forget-user", "ada", "--yes", status=2).err
    assert (tmp_path / "store.db").stat().st_size == 0
    assert "in no file" in fresh.given(JAF_SQLITE_PATH=":memory:").run("list", status=2).err


def test_doctor_makes_no_store(fresh, tmp_path):
    """`doctor` says that a store is still to be made, makes none, and finds nothing wrong with that."""
    wide = fresh.given(COLUMNS=1000)  # a long path would be broken between two lines
    ran = wide.run("doctor")
    said = f"there is no file {tmp_path / 'store.db'}: the first write makes the store"
    assert said in " ".join(ran.out.split())
    found = fresh.run("doctor", "--json").document
    assert (found["healthy"], found["absent"]) == (True, said)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "astray.db").symlink_to(tmp_path / "nowhere" / "x.db")
    ran = wide.given(JAF_SQLITE_PATH=tmp_path / "astray.db").run("doctor", status=1)
    assert f"there is no folder {tmp_path / 'nowhere'}" in " ".join(ran.out.split())


def test_a_copy_to_the_same_file_is_refused(standing, tmp_path):
    """A copy whose destination is its source by another name is refused."""
    (tmp_path / "soft.db").symlink_to("store.db")
    (tmp_path / "hard.db").hardlink_to(tmp_path / "store.db")
    for name in ("store.db", "./store.db", "soft.db", "hard.db"):
        ran = standing.run("copy", "--to", "sqlite", "--to-set", f"path={name}", status=2)
        assert "source and destination are the same store" in ran.err


def test_an_import_makes_the_store(fresh, tmp_path):
    """What writes makes the store, and into one that is gone with the process says so."""
    fresh.run("import", write(tmp_path / "one.jsonl", talk()))
    assert (tmp_path / "store.db").is_file()
    ran = fresh.given(JAF_MEMORY_TYPE="memory").run("import", tmp_path / "one.jsonl")
    assert "the store is 'memory', which lives as long as one process" in ran.err


def test_links_of_imports(program, tmp_path):
    """Reading a file and writing it again in one pipe is not what destroys it: the export is another file."""
    program.run("import", write(tmp_path / "one.jsonl", talk()))
    program.run("export", tmp_path / "one.jsonl", status=2)
    assert json.loads((tmp_path / "one.jsonl").read_text()) == talk()
