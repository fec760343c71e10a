"""`import --from`: data of other programs, by readers that anybody's distribution brings."""

import json

import pytest


def notes(path, *lines):
    """A file of the sample reader's."""
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_a_reader_of_another_distribution(sampled, tmp_path):
    """It is found by its name; what it reads is imported, whose it is is said, and a second import adds nothing."""
    file = notes(tmp_path / "notes", "a one", "b two")
    ran = sampled.run("import", "--from", "notes", file, "--user", "ada", "--verify")
    assert "imported 2 conversations (2 messages added)" in ran.out
    assert "verified: 2 digests equal" in ran.out
    assert {one["user_id"] for one in sampled.run("list", "--json").lines} == {"ada"}
    again = sampled.run("import", "--from", "notes", file, "--user", "ada", "--json").document
    assert (again["messages_added"], again["messages_already_there"], again["verified"]) == (0, 2, None)
    assert again["read_digest"] in ran.out


def test_what_is_bad(sampled, tmp_path):
    """The first bad row ends it, with what had been done; `--keep-going` tells of each, and ends with status 1."""
    file = notes(tmp_path / "notes", "a one", "?", "b two", "?")
    stopped = sampled.run("import", "--from", "notes", file, "--json", status=2)
    assert "line 2: asks something; --keep-going" in json.loads(stopped.err)["error"]
    ran = sampled.run("import", "--from", "notes", file, "--keep-going", status=1)
    assert "imported 2 conversations" in ran.out
    assert "bad rows, passed over (2):" in ran.err
    document = sampled.run("import", "--from", "notes", file, "--keep-going", "--json", status=1).document
    assert document["bad_rows_first"][1] == {"place": "line 4", "reason": "asks something"}


def test_an_interrupted_import_goes_on(sampled, tmp_path):
    """A signal ends it with whole conversations; the same command, run again, adds the rest, and nothing twice."""
    lines = [f"c{number} text" for number in range(3_000)]
    file = notes(tmp_path / "notes", *lines[:2_500], "!", *lines[2_500:])
    ran = sampled.run("import", "--from", "notes", file, status=143)
    assert "run the same command again to go on" in ran.err
    held = sampled.run("stats", "--json").document["total_messages"]
    assert 0 < held < 3_000
    notes(file, *lines)
    document = sampled.run("import", "--from", "notes", file, "--verify", "--json").document
    assert (document["messages_added"], document["messages_already_there"]) == (3_000 - held, held)
    assert document["verified"] == 3_000


def test_what_the_store_has_otherwise(sampled, tmp_path):
    """What stands there with other content is refused, stays as it is, and is told once."""
    file = notes(tmp_path / "notes", "a one", "b two")
    sampled.run("import", "--from", "notes", file)
    notes(file, "a ONE", "b two")
    ran = sampled.run("import", "--from", "notes", file, "--verify", status=1)
    assert "refused (1):" in ran.err
    assert "different in the store" not in ran.err
    assert "one" in sampled.run("show", "a").out


def test_an_address(sampled):
    """An address may come on standard input, where no other process sees its password; it says whose all is."""
    assert sampled.run("import", "--from", "afar", "-", "--json", text="acme://u:SECRET@host\n").document["read"] == 1
    assert "20" in sampled.run("show", "from-afar").out
    assert "leave out --user" in sampled.run("import", "--from", "afar", "x", "--user", "ben", status=2).err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("note", "there is no reader 'note'; did you mean 'notes'?"),
        ("misnamed", "its entry point is called 'misnamed', but its ReaderSpec 'another'"),
        ("six", "implements none of jaf_memory_reader"),
        ("acme://u:SECRET@host", "a value with credentials (not shown)"),
    ],
)
def test_no_reader(sampled, tmp_path, name, said):
    """A name that no reader has, and a plugin that offers none, are refused by name, and nothing else."""
    ran = sampled.run("import", "--from", name, notes(tmp_path / "notes", "a one"), status=2)
    assert said in ran.err
    assert "SECRET" not in ran.err


def test_options_of_readers_only(sampled, tmp_path):
    """`--user` and `--verify` are refused where a line says itself what they would say."""
    (tmp_path / "lines").write_text("")
    for option in (["--user", "ada"], ["--verify"]):
        assert "go with --from" in sampled.run("import", tmp_path / "lines", *option, status=2).err
    assert "give its path" in sampled.run("import", "--from", "notes", "-", status=2).err
