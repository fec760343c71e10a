"""What importing the core brings along: what its types need, and no more."""

import json
import subprocess
import sys

import pytest

LATER = {
    # module: who needs it
    "dotenv": "nobody; pydantic-settings brings it",
    "hypothesis": "the conformance kit",
    "importlib_metadata": "who creates a provider by name",
    "jaf_memory_cli": "the command line",
    "jaf_memory_core.settings.environment": "who is told about settings",
    "jaf_memory_core.notebooks": "a notebook",
    "jaf_memory_core.registry": "who creates a provider by name",
    "jaf_memory_testing": "the conformance kit",
    "jaf_memory_core.session": "who keeps sessions",
    "jaf_memory_core.transfer": "the command line",
    "jaf_memory_sqlite": "who names it",
    "pydantic_settings": "who creates a provider by name",
    "pytest": "the conformance kit",
    "rich": "the command line",
    "sqlite3": "a plugin",
    "typer": "the command line",
}


@pytest.fixture(scope="module")
def imported():
    """The modules that are there after `import jaf_memory_core`, in a new process."""
    code = "import jaf_memory_core, json, sys; print(json.dumps([*sys.modules]))"
    return json.loads(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)


@pytest.mark.parametrize("module", LATER)
def test_importing_the_core_does_not_import(module, imported):
    """A program that only uses the types, or the in-memory provider, does not wait for what others need."""
    assert module not in imported, f"this is for {LATER[module]}"


def test_the_in_memory_provider_needs_none_of_it():
    """Making and using the in-memory provider imports none of that either."""
    code = """if True:
        import asyncio, json, sys
        from jaf_memory_core import Message, create_in_memory_provider

        async def main():
            async with create_in_memory_provider() as provider:
                await provider.store_messages("chat", [Message(role="user", content="Hello!")])
                assert await provider.get_conversation("chat")

        asyncio.run(main())
        print(json.dumps([*sys.modules]))
    """
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout
    assert not LATER.keys() & set(json.loads(output))
