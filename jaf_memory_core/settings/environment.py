"""What people are told about variables: what each setting holds, and which variables nothing knows."""

from __future__ import annotations

import ast
import difflib
import inspect
import itertools
import os
import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydantic import SecretBytes, SecretStr
from pydantic.fields import FieldInfo

from jaf_memory_core.errors import MemoryConfigurationError
from jaf_memory_core.settings import CoreSettings, Settings, given, load, variables
from jaf_memory_core.settings.errors import MASK, allowed, is_secret, masked

OURS = ("sqlite", "redis", "postgres")
"""Providers whose variables may stand ready for another day, installed or not."""

ALIKE = 0.85
"""How much two variables must be alike (difflib's ratio) to take one for a misspelling of the other."""


@dataclass(frozen=True)
class Setting:
    """One setting, as people may see it.

    Attributes:
        variable: the variable that sets it.
        field: the field of the configuration.
        value_shown: what it holds, unchecked; a secret is masked, `""` stands for nothing.
        source: the variable that it comes from (an older name perhaps), or `default`.
        default: what it holds if no variable sets it, masked too.
        help: what it means, with its unit, and what is allowed.
    """

    variable: str
    field: str
    value_shown: str
    source: str
    default: str
    help: str


@dataclass(frozen=True)
class UnknownVariable:
    """A variable that nothing reads.

    Attributes:
        name: the variable.
        suggestion: what may have been meant, or `None`.
    """

    name: str
    suggestion: str | None


def describe(config_type: type[Settings], environ: Mapping[str, str] | None = None) -> list[Setting]:
    """Every setting of a configuration, with what the environment holds for it, right or wrong.

    Args:
        config_type: a class of settings.
        environ: the variables; `os.environ` when `None`.

    Returns:
        one row a field, in the order of the class; no row shows a secret.
    """
    found = given(config_type, environ)
    docstrings = _docstrings(config_type)
    rows = []
    for field, names in variables(config_type).items():
        info = config_type.model_fields[field]
        default = _default(info)
        source, text = found.get(field, ("default", ""))
        rows.append(
            Setting(
                variable=names[0],
                field=field,
                value_shown=masked(info, text) if text else default,
                source=source,
                default=default,
                help=f"{docstrings.get(field) or info.description or ''} Allowed: {allowed(info)}.".lstrip(),
            )
        )
    return rows


def _docstrings(config_type: type[Settings]) -> dict[str, str]:
    """The docstrings under fields; pydantic would read them too, but at import, and take 10 ms for it."""
    found = {}
    for kind in reversed(config_type.__mro__):
        if not issubclass(kind, Settings):
            continue
        try:
            source = textwrap.dedent(inspect.getsource(kind))
        except (OSError, TypeError):  # no file to read, as for a class that was made at a prompt
            continue
        (definition,) = ast.parse(source).body
        assert isinstance(definition, ast.ClassDef)  # the source of a class
        for field, below in itertools.pairwise(definition.body):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[name] = inspect.cleandoc(text)
    return found


def _default(info: FieldInfo) -> str:
    if info.default_factory is not None:
        return "(computed)"
    value = info.default
    if info.is_required() or value is None or value == ():
        return ""
    if isinstance(value, (SecretStr, SecretBytes)) or is_secret(info):
        return MASK
    return masked(info, f"{value:g}" if isinstance(value, float) else str(value))


def doctor_notes(config_type: type[Settings], environ: Mapping[str, str] | None = None) -> list[str]:
    """What deserves a word though nothing is wrong.

    Args:
        config_type: a class of settings.
        environ: the variables; `os.environ` when `None`.

    Returns:
        sentences without values: variables set beside their older names, and what the configuration `notes`.
    """
    environ = os.environ if environ is None else environ
    notes = []
    for names in variables(config_type).values():
        both = [name for name in names if environ.get(name)]
        if len(both) > 1:
            notes.append(f"{both[0]} is set, and {', '.join(both[1:])} too: the first one counts.")
    try:
        config = load(config_type, environ)
    except MemoryConfigurationError:
        return notes  # whoever asks for notes has shown what is wrong already, or is about to
    return [*notes, *config.notes()]


def unknown_variables(
    environ: Mapping[str, str] | None,
    provider_name: str,
    config_type: type[Settings],
    installed_names: Iterable[str] = (),
) -> list[UnknownVariable]:
    """The `JAF_…` variables that nothing reads: misspelt ones, most likely.

    Args:
        environ: the variables; `os.environ` when `None`.
        provider_name: the selected provider; all its variables are known.
        config_type: the class of its settings.
        installed_names: names of other providers and plugins. Variables that begin with `JAF_<NAME>_` are
            theirs, and only they could tell whether those are right.

    Returns:
        the variables in alphabetical order, each with the known variable that is most like it.
    """
    # Late, because settings are below backends: this one's variables share the core's prefix.
    from jaf_memory_core.backends.in_memory import InMemoryConfig

    known = {
        name
        for settings in (CoreSettings, InMemoryConfig, config_type)
        for names in variables(settings).values()
        for name in names
    }
    owners = {_prefix(name): name for name in (*OURS, *installed_names)}
    owners |= dict.fromkeys((CoreSettings.env_prefix, config_type.env_prefix, _prefix(provider_name)), "")
    unknown = []
    for name in sorted(os.environ if environ is None else environ):
        if not name.upper().startswith("JAF_") or name in known:
            continue
        # The longest prefix decides: `sqlite` does not own what belongs to `sqlite-vec`.
        if not owners.get(max((one for one in owners if name.startswith(one)), key=len, default="")):
            alike = difflib.get_close_matches(name.upper(), known, n=1, cutoff=ALIKE)
            unknown.append(UnknownVariable(name, alike[0] if alike else None))
    return unknown


def _prefix(name: str) -> str:
    return f"JAF_{re.sub('[^A-Z0-9]+', '_', name.upper())}_"
