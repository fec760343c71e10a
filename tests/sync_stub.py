"""Writes `jaf_memory_core/sync_methods.pyi`: what `SyncMemoryProvider` offers, for type checkers and editors.

The methods are made at run time from the two protocols, so nothing can be read off the source. Run this file to write
the stub anew after a protocol has changed; a test fails while the two differ.
"""

import ast
import inspect
from pathlib import Path

import jaf_memory_core
from jaf_memory_core import protocol
from jaf_memory_core.sync import BY_HAND

STUB = Path(jaf_memory_core.__file__).with_name("sync_methods.pyi")
HEAD = "# Made by tests/sync_stub.py from the protocols; not to be edited."


def methods():
    """Yield the definitions of both protocols, those of the larger one in place of the smaller one's."""
    tree = ast.parse(inspect.getsource(protocol))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    found = {}
    for name in ("MemoryProvider", "ManagedMemoryProvider"):
        for node in classes[name].body:
            if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef) and not node.name.startswith("_"):
                found[node.name] = node
    for name, node in found.items():
        if name not in BY_HAND:
            yield node


def blocking(node):
    """Return a method's definition as it is without asyncio, its documentation kept for editors."""
    plain = ast.FunctionDef(node.name, node.args, node.body[:1], node.decorator_list, node.returns)
    return ast.unparse(ast.fix_missing_locations(plain)).replace("AsyncIterator[", "Iterator[")


def stub():
    """Return the text of the stub."""
    lines = ["class SyncMethods:"]
    for node in methods():
        lines += ["    " + line for line in blocking(node).splitlines()]
    body = "\n".join(lines)
    names = [alias.name for node in imports() for alias in node.names if alias.name in body]
    head = [
        HEAD,
        "",
        "from collections.abc import Collection, Iterator, Mapping, Sequence",
        "from typing import Any",
        "",
    ]
    head += [
        f"from {node.module} import {', '.join(kept)}"
        for node in imports()
        if node.module.startswith("jaf_memory_core")
        if (kept := [alias.name for alias in node.names if alias.name in names])
    ]
    return "\n".join([*head, "", body, ""])


def imports():
    """Return the imports of the protocols' module."""
    return [node for node in ast.parse(inspect.getsource(protocol)).body if isinstance(node, ast.ImportFrom)]


if __name__ == "__main__":
    STUB.write_text(stub(), encoding="utf-8")
