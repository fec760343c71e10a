"""The user's document: its code stands in docs/document word for word, and does what it says on every backend.

To bring in a backend, give it a line in `BACKENDS`; to bring in a block, move it from `NOT_YET` to a test of its own.
"""

import ast
import asyncio
import json
import re
import shlex
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from jaf_memory_core import (
    ConversationMemory,
    MemoryConnectionError,
    MemoryNotFoundError,
    MemoryProvider,
    MemoryStorageError,
    Message,
    Result,
    Success,
    digest,
)

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT.parent / "shared" / "spec" / "memory-system.txt"
FILES = {file.stem: file for file in sorted((ROOT / "docs" / "document").glob("[0-9]*"))}
BLOCKS = {name: file.read_text(encoding="utf-8") for name, file in FILES.items()}
CODE = {name: BLOCKS[name] for name, file in FILES.items() if file.suffix == ".py"}

# ---- What there is to run ------------------------------------------------------------------------------------

BACKENDS = {
    # provider: its distribution, its settings or the fixture that gives them, and settings with which it cannot work
    "memory": ("jaf-memory-core", {}, None),
    "sqlite": ("jaf-memory-sqlite", {"JAF_SQLITE_PATH": "conversations.db"}, {"JAF_SQLITE_PATH": "."}),
    "files": ("jaf-memory-files", {"JAF_FILES_PATH": "conversations"}, {"JAF_FILES_PATH": "/dev/null"}),
    "postgres": (
        "jaf-memory-postgres",
        "postgres_settings",
        {
            "JAF_POSTGRES_CONNECTION_STRING": "postgresql://user:pass@127.0.0.1:1/jaf_memory",
            "JAF_POSTGRES_OPERATION_TIMEOUT": "0.5",
        },
    ),
    "redis": (
        "jaf-memory-redis",
        "redis_settings",
        {"JAF_REDIS_URL": "redis://:pass@127.0.0.1:1/0", "JAF_REDIS_OPERATION_TIMEOUT": "0.5"},
    ),
}

NOT_YET: dict[str, tuple[str, int]] = {
    # block: the distribution that it needs, and the issue that brings it
}

TAKES = {
    # block: what it takes from earlier ones, which the test runs before it
    "02_provider_protocol": {"Message": "01_conversation"},
    "12_manual": {"Message": "01_conversation", "provider": "09_from_environment"},
    "13_search": {"provider": "09_from_environment"},
    "14_metadata": {"messages": "12_manual", "provider": "09_from_environment"},
    "15_errors": {"messages": "12_manual", "provider": "09_from_environment"},
    "18_production_config": {"MemoryConfig": "09_from_environment", "provider": "09_from_environment"},
    "19_health": {"provider": "09_from_environment"},
    "20_performance": {"provider": "09_from_environment"},
    "22_cleanup": {
        "MemoryQuery": "13_search",
        "datetime": "13_search",
        "provider": "09_from_environment",
        "timedelta": "13_search",
    },
    "23_erasure": {"provider": "09_from_environment"},
    "24_backup": {
        "Dict": "02_provider_protocol",
        "MemoryQuery": "13_search",
        "Message": "01_conversation",
        "Optional": "02_provider_protocol",
        "datetime": "13_search",
        "provider": "09_from_environment",
    },
    "25_connection_failures": {"test_memory_provider_connection": "10_provider_info"},
    "26_performance_issues": {"provider": "09_from_environment"},
    "27_data_consistency": {"provider": "09_from_environment"},
}

LEFT_TO_THE_READER = {
    # block: what the document uses, and never defines
    "02_provider_protocol": {"Result"},
    "11_engine": {"your_model_provider"},
    "15_errors": {"conversation_id"},
    "19_health": {"send_alert"},
    "22_cleanup": {"archive_conversation", "should_archive"},
    "23_erasure": {"audit_log", "verify_deletion_consent"},
}

# ---- The text ------------------------------------------------------------------------------------------------

PROSE = re.compile(
    r"""
      .* ¶                          # a heading
    | (?: - | \d\. ) \s .*          # an item of a list
    | Characteristics: .*           # a list that lost its line breaks
    | [A-Z] [^=()"'\#]* [.:]        # a sentence, or the words that introduce a block
    """,
    re.VERBOSE,
)
BROKEN_SENTENCES = {
    # where a name in code type has become a line of its own
    "The ConversationMemory",
    "dataclass represents a complete conversation:",
    "All memory providers implement the MemoryProvider",
    "protocol:",
}
IMPORT = re.compile(r"^[ \t]*(?:from[ ]+(\S+)[ ]+)?import[ ]+(\([^)]*\)|[^(\n]+)$", re.MULTILINE)
MODULES = {"jaf.memory": "jaf_memory_core", "jaf.core.types": "jaf_memory_core"}
MODULES_OF = {
    "04_redis": {"jaf.memory": "jaf_memory_redis"},
    "06_postgres": {"jaf.memory": "jaf_memory_postgres"},
    # jaf-py's own RunState asks for ids that the document does not give
    "11_engine": {"jaf": "jaf_memory_bridges.jaf", "jaf.memory": "jaf_memory_bridges.jaf"},
}


@pytest.fixture(scope="module")
def document():
    """The user's document."""
    if not DOCUMENT.is_file():
        pytest.skip(f"the user's document is not here: {DOCUMENT.name} belongs into ../shared/spec")
    return DOCUMENT.read_text(encoding="utf-8")


def code_of(document):
    """The document without its prose: code lines, which have lost their indentation."""
    lines = (line.strip() for line in document.splitlines())
    return "\n".join(line for line in lines if line not in BROKEN_SENTENCES and not PROSE.fullmatch(line))


def bare(code):
    """Code without import lines and white space."""
    return re.sub(r"\s", "", IMPORT.sub("", code))


def imports(code):
    """What code imports, in order: (module, names), without white space."""
    return [(module, re.sub(r"\s", "", names)) for module, names in IMPORT.findall(code)]


def test_the_files_are_the_document(document):
    """All files together are the document's code, in order, nothing missing and nothing extra."""
    theirs, ours = bare(code_of(document)), bare("\n".join(BLOCKS.values()))
    same = next((at for at, pair in enumerate(zip(theirs, ours, strict=False)) if pair[0] != pair[1]), None)
    assert same is None, f"the document has {theirs[same:][:80]!r}, the files have {ours[same:][:80]!r}"
    assert len(theirs) == len(ours)


def test_only_modules_of_imports_are_changed(document):
    """Every import line is the document's, but for the modules that this test names."""
    ours = [(name, *line) for name, block in BLOCKS.items() for line in imports(block)]
    theirs = imports(code_of(document))
    assert len(ours) == len(theirs)
    for (name, *line), (module, names) in zip(ours, theirs, strict=True):
        assert tuple(line) == ((MODULES | MODULES_OF.get(name, {})).get(module, module), names)


def test_the_files_are_numbered():
    """The names of the files tell the order of the document."""
    assert [int(name[:2]) for name in FILES] == list(range(1, len(FILES) + 1))


def test_every_block_is_run_or_waits_for_a_distribution():
    """A block has a test, or it needs a distribution that is not there yet; none is both or neither."""
    tested = {name.removeprefix("test_") for name in globals() if re.match(r"test_\d\d_", name)}
    assert tested | NOT_YET.keys() == set(FILES)
    assert not tested & NOT_YET.keys()


@pytest.mark.parametrize(("name", "distribution", "issue"), [(name, *why) for name, why in NOT_YET.items()])
def test_no_block_waits_for_what_is_there(name, distribution, issue):
    """Once a distribution is installed, the blocks that waited for it have to run."""
    try:
        found = version(distribution)
    except PackageNotFoundError:
        return
    pytest.fail(f"{distribution} {found} is here (issue {issue}): write the test of {name}, take it out of NOT_YET")


@pytest.mark.parametrize("name", CODE)
def test_what_a_block_takes_is_declared_exactly(name):
    """A block uses each name that the tables give it, imports none of them itself, and takes from earlier blocks."""
    tree = compile(CODE[name], name, "exec", flags=ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    given = TAKES.get(name, {}).keys() | LEFT_TO_THE_READER.get(name, set())
    assert given <= {node.id for node in nodes if isinstance(node.ctx, ast.Load)}
    assert not given & {alias.name for node in ast.walk(tree) for alias in getattr(node, "names", [])}
    assert all(block < name for block in TAKES.get(name, {}).values())


# ---- Running it ----------------------------------------------------------------------------------------------


def is_installed(distribution):
    """Whether a distribution is installed."""
    try:
        return bool(version(distribution))
    except PackageNotFoundError:
        return False


class Reader:
    """Somebody who reads the document on one backend, and types in what it says."""

    def __init__(self, backend, settings, console, monkeypatch):
        self.backend = backend
        self.broken_settings = BACKENDS[backend][2]
        self.wait = console.wait
        self._console = console
        self._monkeypatch = monkeypatch
        self._names = {}
        self.set({"JAF_MEMORY_TYPE": backend, **settings})

    def set(self, settings):
        """Set variables."""
        for variable, text in settings.items():
            self._monkeypatch.setenv(variable, text)

    def run(self, block, **given):
        """Run a block with what it takes from earlier ones, and what the test gives; return what it printed."""
        names = {name: self.name(name, source) for name, source in TAKES.get(block, {}).items()} | given
        assert given.keys() >= LEFT_TO_THE_READER.get(block, set())
        self._names[block] = names
        return self._console.run(CODE[block], names, title=FILES[block].name)

    def name(self, name, block):
        """What a block defines; it is run first if it has not been."""
        if block not in self._names:
            if block == "13_search":  # it expects what the engine's example has left behind
                self.store(self.name("conversation", "01_conversation"))
            self.run(block, **({"Result": Result} if block == "02_provider_protocol" else {}))
        return self._names[block][name]

    @property
    def provider(self):
        """The provider that the document creates from the environment."""
        return self.name("provider", "09_from_environment")

    def store(self, conversation):
        """Keep a conversation as if it had been kept when it says."""
        assert isinstance(self.wait(self.provider.import_conversation(conversation)), Success)

    def stored(self, conversation_id):
        """The conversation that the store has, or `None`."""
        return self.wait(self.provider.get_conversation(conversation_id))

    def close(self):
        """Close all providers that the document made."""
        for names in self._names.values():
            if hasattr(names.get("provider"), "close"):
                self.wait(names["provider"].close())


@pytest.fixture(params=[name for name, (distribution, *_) in BACKENDS.items() if is_installed(distribution)])
def reader(request, console, monkeypatch):
    """A reader of the document, on each backend that is installed."""
    settings = BACKENDS[request.param][1]
    settings = request.getfixturevalue(settings) if isinstance(settings, str) else settings
    reader = Reader(request.param, settings, console, monkeypatch)
    yield reader
    reader.close()


def conversation(conversation_id, *contents, user_id="user-123", created_at=None, **more):
    """A conversation in which user and assistant take turns."""
    messages = [Message(("user", "assistant")[at % 2], content) for at, content in enumerate(contents)]
    return ConversationMemory(conversation_id, user_id, messages, created_at=created_at, **more)


class Fails:
    """A provider that raises what it was given."""

    def __init__(self, error):
        self.error = error

    async def store_messages(self, *_arguments):
        """Raise."""
        raise self.error


# ---- What each block does ------------------------------------------------------------------------------------


def test_01_conversation(reader):
    """A conversation is a frozen object with what it was given."""
    made = reader.name("conversation", "01_conversation")
    assert (made.conversation_id, made.user_id) == ("user-123-session-1", "user-123")
    assert [(one.role, one.content) for one in made.messages] == [
        ("user", "Hello!"),
        ("assistant", "Hi there! How can I help you?"),
    ]
    assert made.metadata == {"session_start": "2024-01-15T10:00:00Z"}
    with pytest.raises(AttributeError):
        made.user_id = "somebody else"
    with pytest.raises(TypeError):
        made.metadata["session_start"] = "later"


def test_02_provider_protocol(reader):
    """A class with the six methods and no base class is a `MemoryProvider`, and so is ours; with five it is none."""
    written = reader.name("MyCustomProvider", "02_provider_protocol")
    five = type("Five", (), {name: one for name, one in vars(written).items() if name != "health_check"})
    assert isinstance(written(), MemoryProvider)
    assert isinstance(reader.provider, MemoryProvider)
    assert not isinstance(five(), MemoryProvider)


def test_03_in_memory(reader):
    """The in-memory provider keeps conversations, within the bounds that its configuration sets."""
    provider = reader.name("provider", "03_in_memory")
    assert (provider.config.max_conversations, provider.config.max_messages) == (1000, 1000)
    reader.wait(provider.store_messages("a", [Message("user", str(number)) for number in range(1001)]))
    kept = reader.wait(provider.get_recent_messages("a", limit=2000))
    assert (len(kept), kept[0].content) == (1000, "1")
    for number in range(1000):
        reader.wait(provider.store_messages(f"b{number}", []))
    assert reader.wait(provider.get_stats())["total_conversations"] == 1000
    assert reader.wait(provider.get_conversation("a")) is None


needs_redis = pytest.mark.skipif(not is_installed("jaf-memory-redis"), reason="jaf-memory-redis is not installed")


@needs_redis
def test_04_redis(console, redis_server):
    """A provider is made over a client, which stays open, and from a URL, and both see the same conversations."""
    names = {}
    code = CODE["04_redis"].replace("6379", str(redis_server.port))
    first, mark, second = code.partition("# Method 2")
    console.run(first, names, title="04_redis.py")
    over_client = names["provider"]
    assert (over_client.config.key_prefix, over_client.config.ttl) == ("jaf:memory:", 86400)
    console.wait(over_client.store_messages("a", [Message("user", "hello")]))
    console.run(mark + second, names, title="04_redis.py")
    found = console.wait(names["provider"].get_conversation("a"))
    assert [message.content for message in found.messages] == ["hello"]
    for provider in (over_client, names["provider"]):
        console.wait(provider.close())
    assert console.wait(names["redis_client"].ping())
    console.wait(names["redis_client"].aclose())


def exported(block):
    """The variables that a shell would read."""
    words = shlex.split(BLOCKS[block], comments=True)
    return dict(word.split("=", 1) for word in words)


@needs_redis
def test_05_redis():
    """Its variables are read, and the URL wins over the single parameters that it names."""
    from jaf_memory_redis import RedisConfig

    from jaf_memory_core.settings import load

    variables = exported("05_redis")
    config = load(RedisConfig, variables)
    assert config.arguments() == {
        "host": "localhost",
        "port": 6379,
        "db": 0,
        "username": None,
        "password": "your-password",
    }
    assert (config.key_prefix, config.ttl) == ("jaf:memory:", 86400)
    del variables["JAF_REDIS_URL"]
    assert load(RedisConfig, variables).arguments() == config.arguments()


@needs_redis
def test_16_redis_production():
    """The word before @ is the password, and the sentinels name the server."""
    from jaf_memory_redis import RedisConfig

    from jaf_memory_core.settings import load

    config = load(RedisConfig, exported("16_redis_production"))
    found = config.arguments()
    assert (found["host"], found["port"], found["username"], found["password"]) == (
        "redis-cluster.company.com",
        6380,
        None,
        "auth-token",
    )
    assert (config.key_prefix, config.ttl) == ("prod:jaf:memory:", 2592000)
    assert config.sentinel_hosts == ("sentinel1:26379", "sentinel2:26379", "sentinel3:26379")
    assert config.sentinel_service_name == "mymaster"


needs_postgres = pytest.mark.skipif(
    not is_installed("jaf-memory-postgres"), reason="jaf-memory-postgres is not installed"
)


@needs_postgres
def test_06_postgres(console, documented_postgres):
    """A provider is made over a connection, and from a connection string, and both see the same conversations."""
    names = {}
    first, mark, second = CODE["06_postgres"].partition("# Method 2")
    console.run(first, names, title="06_postgres.py")
    over_connection = names["provider"]
    console.wait(over_connection.store_messages("a", [Message("user", "hello")]))
    console.run(mark + second, names, title="06_postgres.py")
    found = console.wait(names["provider"].get_conversation("a"))
    assert [message.content for message in found.messages] == ["hello"]
    assert documented_postgres.sql("SELECT conversation_id FROM conversations", "jaf_memory") == "a"
    for provider in (over_connection, names["provider"]):
        console.wait(provider.close())
    console.wait(names["connection"].close())


@needs_postgres
def test_07_postgres():
    """Its variables are read, and the connection string wins over single parameters."""
    from jaf_memory_postgres import PostgresConfig

    from jaf_memory_core.settings import load

    variables = dict(re.findall(r"^(\w+)=(.*)$", BLOCKS["07_postgres"], re.MULTILINE))
    config = load(PostgresConfig, variables)
    address = config.address
    assert (address.hosts, address.database, address.user) == ((("localhost", 5432),), "jaf_memory", "user")
    del variables["JAF_POSTGRES_CONNECTION_STRING"]
    address = load(PostgresConfig, variables).address
    assert (address.database, address.user, address.password) == ("jaf_memory", "postgres", "your-password")
    assert (config.table_name, config.most_connections, address.tls.mode) == ("conversations", 10, "disable")


@needs_postgres
def test_08_postgres_schema(console, documented_postgres):
    """SQL finds the documented columns under the documented name, and the documented table itself is moved in."""
    from jaf_memory_postgres import PostgresBackend, PostgresConfig, create_postgres_provider

    from jaf_memory_core.errors import MemoryConfigurationError

    database = "documented"
    documented_postgres.sql(f"CREATE DATABASE {database}", "postgres")
    documented_postgres.sql(BLOCKS["08_postgres_schema"], database)
    columns = (
        "SELECT string_agg(attname, ',' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'conversations'::regclass"
    )
    before = documented_postgres.sql(f"{columns} AND attnum > 0", database)
    insert = (
        """INSERT INTO conversations (conversation_id, messages) VALUES ('a', '[{"role": "user", "content": "x"}]')"""
    )
    documented_postgres.sql(insert, database)
    config = PostgresConfig(connection_string=documented_postgres.url(database))
    with pytest.raises(MemoryConfigurationError, match="adopt"):
        console.wait(create_postgres_provider(config))

    async def adopted():
        return [step async for step in PostgresBackend(config).adopt()]

    assert [step.conversation_id for step in console.wait(adopted()) if step.outcome == "moved"] == ["a"]
    assert documented_postgres.sql(f"{columns} AND attnum > 0", database) == before
    assert documented_postgres.sql("SELECT messages -> 0 ->> 'content' FROM conversations", database) == "x"


@needs_postgres
def test_17_postgres_production():
    """The production settings verify the server, and bound the pool."""
    from jaf_memory_postgres import PostgresConfig

    from jaf_memory_core.settings import load

    variables = dict(re.findall(r"^(\w+)=(.*)$", BLOCKS["17_postgres_production"], re.MULTILINE))
    config = load(PostgresConfig, variables)
    assert config.address.hosts == (("postgres.company.com", 5432),)
    assert (config.address.database, config.address.tls.mode) == ("jaf_production", "verify-full")
    assert (config.table_name, config.pool_min_size, config.most_connections) == ("prod_conversations", 5, 20)
    assert (config.pool_max_queries, config.pool_max_inactive_connection_lifetime) == (50_000, 300.0)


def test_09_from_environment(reader):
    """The environment chooses the provider, and the engine's configuration holds it."""
    made = reader.name("memory_config", "09_from_environment")
    assert reader.wait(reader.provider.health_check())["provider"] == reader.backend
    assert made.provider is reader.provider
    assert (made.auto_store, made.max_messages, made.ttl) == (True, 1000, 86400)


def test_10_provider_info(reader):
    """Without a provider one learns which it would be, how it keeps, and whether it can be reached; or why not."""
    first, second, third = reader.run("10_provider_info").splitlines()
    assert first == f"Provider type: {reader.backend}"
    assert re.fullmatch(r"Persistence: \S.*", second)
    assert re.fullmatch(r" \S.*", third)
    assert reader.name("result", "10_provider_info")["healthy"] is True
    if reader.broken_settings is not None:
        reader.set(reader.broken_settings)
        *_, third = reader.run("10_provider_info").splitlines()
        result = reader.name("result", "10_provider_info")
        assert (result["healthy"], third) == (False, f" {result['error']}")


@pytest.mark.skipif(not is_installed("jaf-py"), reason="needs jaf-memory-bridges[jaf]")
def test_11_engine(reader):
    """JAF's own engine keeps the run in the provider of the environment, with its owner, and goes on from it."""
    seen = []

    class Model:
        async def get_completion(self, state, _agent, _config):
            seen.append(len(state.messages))
            return {"message": {"content": "Hi there!"}}

    reader.set({"LITELLM_LOCAL_MODEL_COST_MAP": "True"})  # or jaf-py asks the network as soon as it is imported
    for _ in range(2):
        reader.run("11_engine", your_model_provider=Model())
        assert reader.name("result", "11_engine").outcome.output == "Hi there!"
        memory = reader.name("memory_provider", "11_engine")
        kept = reader.wait(memory.provider.get_conversation("user-123-session-1"))
        assert kept.user_id == "user-123"
        reader.wait(memory.close())
    assert seen == ([1, 1] if reader.backend == "memory" else [1, 3])


def test_12_manual(reader):
    """Messages are stored, appended and read back in order, with the metadata."""
    assert reader.run("12_manual") == (
        "Found 4 messages\n"
        "user: What's the weather like?\n"
        "assistant: I'd need your location to check the weather.\n"
        "user: I'm in New York\n"
        "assistant: It's currently 72°F and sunny in New York!\n"
    )
    result = reader.name("result", "12_manual")
    assert isinstance(result, Success)
    assert (result.data.message_count, result.data.added) == (4, 2)
    assert reader.stored("weather-chat-1").metadata == {"topic": "weather", "user_location": "unknown"}


def test_13_search(reader):
    """A user's conversations are found, counted and cleared, and nobody else's; old ones are out of the query."""
    week = datetime.now(UTC) - timedelta(days=8)
    reader.store(conversation("old", "Hello?", created_at=week))
    reader.store(conversation("foreign", "Hello?", user_id="user-456"))
    reader.store(reader.name("conversation", "01_conversation"))
    assert reader.run("13_search") == (
        "Conversation user-123-session-1: 2 messages\n"
        "Total conversations: 2\n"
        "Total messages: 3\n"
        "Deleted 2 conversations\n"
    )
    recent = reader.name("recent_messages", "13_search")
    assert [one.role for one in recent] == ["user", "assistant"]
    assert reader.stored("user-123-session-1") is None
    assert reader.stored("old") is None
    assert reader.stored("foreign") is not None


def test_14_metadata(reader):
    """Metadata may be nested, and comes back equal."""
    reader.run("14_metadata")
    stored = reader.stored("support-ticket-456")
    assert stored.metadata == reader.name("metadata", "14_metadata")
    assert stored.messages == tuple(reader.name("messages", "12_manual"))


def test_15_errors(reader):
    """Success and refusal are answers; a closed provider and other providers' errors arrive in their branches."""
    assert reader.run("15_errors", conversation_id="chat") == "Messages stored successfully\n"
    assert reader.stored("chat").messages == tuple(reader.name("messages", "12_manual"))
    refused = reader.run("15_errors", conversation_id="x" * 256)
    assert refused == "Storage failed: conversation_id must have 1 to 255 characters, not 256\n"
    reader.wait(reader.provider.close())
    closed = reader.run("15_errors", conversation_id="chat")
    assert closed == f"Connection failed to {reader.backend}: the provider is closed; create a new one\n"


@pytest.mark.parametrize(
    ("error", "printed"),
    [
        (MemoryConnectionError("no route", provider="theirs"), "Connection failed to theirs: no route\n"),
        (
            MemoryStorageError("disk full", operation="store_messages"),
            "Storage operation 'store_messages' failed: disk full\n",
        ),
        (MemoryNotFoundError("chat"), "Conversation chat not found\n"),
    ],
)
def test_errors_of_other_providers(reader, error, printed):
    """A provider that raises what ours would return is understood by the same lines."""
    assert reader.run("15_errors", provider=Fails(error), conversation_id="chat") == printed


def test_18_production_config(reader):
    """The engine's configuration takes all that the document gives it."""
    made = reader.name("memory_config", "18_production_config")
    assert (made.max_messages, made.ttl, made.compression_threshold) == (1000, 2592000, 100)


def test_19_health(reader):
    """Health is reported with its figures; a provider that is not well is reported, and the alert goes out."""
    alerts = []

    async def send_alert(text):
        alerts.append(text)

    first, *figures = reader.run("19_health", send_alert=send_alert).splitlines()
    assert re.fullmatch(r" Memory provider healthy: \S.*", first)
    assert re.fullmatch(
        r" - Connections: \d+\n - Memory usage: \d+\n - Response time: \d+(\.\d+)?(e-\d+)?ms", "\n".join(figures)
    )
    assert not alerts
    reader.wait(reader.provider.close())
    why = "the provider is closed; create a new one"
    assert reader.run("19_health", send_alert=send_alert) == f" Memory provider unhealthy: {why}\n"
    assert alerts == [f"Memory provider failure: {why}"]


def test_20_performance(reader):
    """Statistics count all conversations, and a user's own."""
    reader.store(conversation("a", "one", "two", "three"))
    reader.store(conversation("b", "one", user_id="user-456"))
    bodies = [one for key in "ab" for one in reader.stored(key).messages]
    size = sum(len(json.dumps(one.dict(), separators=(",", ":"))) for one in bodies)
    assert reader.run("20_performance") == (
        "Total conversations: 2\n"
        "Total messages: 4\n"
        "Average messages per conversation: 2.0\n"
        f"Storage size: {size} bytes\n"
        "User conversations: 1\n"
        "User messages: 3\n"
    )


def test_21_conversation_ids(reader):
    """An id may be made of parts with colons between."""
    make = reader.name("create_conversation_id", "21_conversation_ids")
    made = make("user-123", "chat", "2024-01-15T10:00:00Z")
    assert made == "user-123:chat:2024-01-15T10:00:00Z"
    reader.store(conversation(made, "Hello!"))
    assert reader.stored(made).message_count == 1


def test_22_cleanup(reader):
    """Conversations that are more than 90 days old are archived where wanted, and deleted; younger ones stay."""
    archived = []

    async def archive_conversation(old):
        archived.append(old.conversation_id)

    def should_archive(old):
        return len(old.messages) > 1

    reader.run("22_cleanup", should_archive=should_archive, archive_conversation=archive_conversation)
    today = datetime.now(UTC)
    reader.store(conversation("long ago", "one", "two", created_at=today - timedelta(days=91)))
    reader.store(conversation("long ago, and short", "one", created_at=today - timedelta(days=400)))
    reader.store(conversation("young", "one", created_at=today - timedelta(days=89)))
    reader.wait(reader.name("cleanup_old_conversations", "22_cleanup")())
    assert archived == ["long ago"]
    assert reader.stored("long ago") is reader.stored("long ago, and short") is None
    assert reader.stored("young") is not None


def test_23_erasure(reader):
    """A user's conversations go when consent is there, all and nobody else's, and the log says how many."""
    log = []

    class audit_log:  # noqa: N801  (the document's name)
        info = log.append

    reader.run("23_erasure", audit_log=audit_log, verify_deletion_consent=lambda user: user == "user-123")
    for number in range(3):
        reader.store(conversation(f"mine {number}", "Hello!"))
    reader.store(conversation("foreign", "Hello!", user_id="user-456"))
    delete = reader.name("delete_user_data", "23_erasure")
    with pytest.raises(ValueError, match="requires verified consent"):
        reader.wait(delete("user-456"))
    assert reader.wait(delete("user-123")) == 3
    assert log == ["Deleted 3 conversations for user user-123"]
    assert reader.stored("foreign") is not None
    assert reader.stored("mine 0") is None


def test_24_backup(reader):
    """What was exported goes through JSON and comes back equal, owner, metadata and every field of a message."""
    call = {"id": "call-1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    messages = [
        Message("user", "Hello! 👋"),
        Message("assistant", None, tool_calls=[call]),
        Message("tool", "\0 \ud800 1e22", tool_call_id="call-1", name="find", weight=2**70),
    ]
    reader.run("24_backup")
    reader.store(ConversationMemory("a", "user-123", messages, {"topic": "x", "parts": [1, 1.0, True, None, {}]}))
    reader.store(conversation("b", "Hello?", user_id="user-456"))
    reader.store(ConversationMemory("c", None, messages))
    before = {key: reader.stored(key) for key in "abc"}
    export = reader.name("export_conversations", "24_backup")
    assert [one["conversation_id"] for one in reader.wait(export("user-123"))["conversations"]] == ["a"]
    exported = json.loads(json.dumps(reader.wait(export())))
    assert exported["conversation_count"] == len(exported["conversations"]) == 3
    for key in before:
        reader.wait(reader.provider.delete_conversation(key))
    reader.wait(reader.name("import_conversations", "24_backup")(exported))
    for key, was in before.items():
        assert digest(reader.stored(key)) == digest(was)
        assert reader.stored(key).messages == was.messages


def test_25_connection_failures(reader):
    """A connection that works is nothing to talk of; one that does not is told with its reason."""
    assert reader.run("25_connection_failures") == ""
    reader.set({"JAF_MEMORY_TYPE": "nonsense"})
    assert re.fullmatch(r"Connection issue: \S.*'nonsense'.*\n", reader.run("25_connection_failures"))


def test_26_performance_issues(reader):
    """A quick answer is nothing to talk of; a slow one is told with its time."""

    class Slow:
        async def get_conversation(self, _conversation_id):
            await asyncio.sleep(0.11)

    # Above 100 ms it speaks: what is quick may be so on a busy machine, but not ten times.
    assert "" in (reader.run("26_performance_issues") for _ in range(10))
    assert re.fullmatch(r"Slow response: \d+\.\d\dms\n", reader.run("26_performance_issues", provider=Slow()))


def test_27_data_consistency(reader):
    """A whole conversation passes, a missing one does not, and an empty message is named."""
    assert reader.run("27_data_consistency") == ""
    verify = reader.name("verify_conversation_integrity", "27_data_consistency")
    reader.store(conversation("whole", "one", "two"))
    assert reader.wait(verify("whole")) is True
    assert reader.wait(verify("missing")) is False
    reader.store(conversation("holey", "one", ""))
    assert reader.wait(verify("holey")) is False
