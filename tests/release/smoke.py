"""Run inside an environment with one distribution: imports, entry points, a conversation where no server is needed.

`python smoke.py NAME`; it knows nothing of the repository.
"""

import asyncio
import importlib
import pkgutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

SETTINGS = {
    "JAF_SQLITE_PATH": "smoke.db",
    "JAF_ENCRYPTION_KEYS": f"k1:{'A' * 43}=",
    "JAF_ENCRYPTION_DATA_KEYS": "smoke.keys",
}
SERVED = {"redis", "postgres"}
"""Providers that need a server."""

KIT = """
import pytest
from jaf_memory_core import BackendProvider
from jaf_memory_core.backends.in_memory import InMemoryBackend, InMemoryConfig
from jaf_memory_testing import SixMethodConformance, Target

class TestMemory(SixMethodConformance):
    @pytest.fixture
    def target(self):
        backend = InMemoryBackend()

        async def opened(**settings):
            return BackendProvider(backend, InMemoryConfig(**settings))

        here = "in one process"
        return Target(open=opened, declares={"processes": here, "reopen": here})
"""


async def talk(environ):
    """Keep a conversation, and read it back."""
    from jaf_memory_core import Message, create_memory_provider_from_env

    provider = await create_memory_provider_from_env({**SETTINGS, **environ})
    metadata_of_it = {"user_id": "u"}
    (await provider.store_messages("chat", [Message(role="user", content="Hello!")], metadata_of_it)).unwrap()
    (await provider.append_messages("chat", [Message(role="assistant", content="Hello.")])).unwrap()
    found = [message.content for message in await provider.get_recent_messages("chat")]
    await provider.close()
    assert found == ["Hello!", "Hello."], found


def imported(package):
    """Import every module of a package; how many. A bridge's may say that it needs its engine, which is an extra."""
    names = [
        one.name for one in pkgutil.walk_packages(package.__path__, f"{package.__name__}.", onerror=lambda _: None)
    ]
    for name in names:
        try:
            if not name.endswith("__main__"):
                importlib.import_module(name)
        except ImportError:
            if package.__name__ != "jaf_memory_bridges":
                raise
    return f"{len(names) + 1} modules"


def provider(entry):
    """Describe it, and keep a conversation in it."""
    from jaf_memory_core import registry

    spec = registry.load(entry.name)
    if entry.name in SERVED:
        spec.backend(spec.config())
        return "made without its server"
    asyncio.run(talk({"JAF_MEMORY_TYPE": entry.name}))
    return "a conversation"


def plugin(entry):
    """Keep a conversation under it."""
    if entry.name == "encryption":
        keys = importlib.import_module("jaf_memory_encryption.settings")
        settings = importlib.import_module("jaf_memory_core.settings")
        keys.key_file_of(settings.load(keys.EncryptionSettings, SETTINGS)).make()
    asyncio.run(talk({"JAF_MEMORY_PLUGINS": entry.name}))
    return "a conversation"


def reader(entry):
    """Describe it."""
    from jaf_memory_core import registry

    return registry.load_reader(entry.name).name


def script(entry):
    """Run it."""
    place = Path(sys.executable).parent / entry.name
    for words in (["--version"], ["--help"], ["doctor"], ["new-provider", "smoke"]):
        subprocess.run([str(place), *words], check=True, capture_output=True, timeout=120)
    return "doctor, new-provider"


def kit(entry):
    """Run a few of the kit's checks."""
    importlib.import_module(entry.module)
    Path("test_smoke.py").write_text(KIT, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--jaf-area", "basic", "test_smoke.py"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    return "its basic checks"


KINDS = {
    "jaf.memory.providers": provider,
    "jaf.memory.plugins": plugin,
    "jaf.memory.readers": reader,
    "console_scripts": script,
    "pytest11": kit,
}


def main(name):
    """Try one distribution."""
    did = [imported(importlib.import_module(name.replace("-", "_")))]
    did += [f"{entry.name}: {KINDS[entry.group](entry)}" for entry in metadata.distribution(name).entry_points]
    sys.stdout.write(", ".join(did) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
