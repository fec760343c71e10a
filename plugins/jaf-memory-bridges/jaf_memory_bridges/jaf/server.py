"""Owners on JAF's HTTP server: whose a conversation is follows from the request, and not from what its body claims.

    app = create_jaf_server(config, user_of=lambda request: users.get(request.headers.get("authorization")))

The server gives the engine a plain `dict` as context, in which the engine finds no owner; and whoever sends a request
writes that `dict`. Here a resolver says who sent it, and the request sees and writes that user's conversations only.
"""

from __future__ import annotations

import inspect
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from jaf.memory import types as jaf
from jaf.server import types as server
from jaf.server.server import create_jaf_server as _create_jaf_server
from starlette.requests import Request
from starlette.responses import JSONResponse

from jaf_memory_bridges.jaf.provider import JafProvider, jaf_provider

logger = logging.getLogger("jaf_memory_bridges")

UserOf = Callable[[Request], str | Awaitable[str | None] | None]
"""Who sent a request, or `None` for nobody; a coroutine function, or a plain one that does not wait."""

OPEN_PATHS = frozenset({"/health", "/docs", "/openapi.json"})
"""What the server tells anybody."""

USERS_KEPT = 1024
"""Bridges for single users that are kept for their next request; each is a few objects."""

_USER: ContextVar[str | None] = ContextVar("jaf_memory_user", default=None)


def create_jaf_server(config: Any, *, user_of: UserOf | None = None) -> Any:
    """JAF's server, each of whose requests sees and writes its own user's conversations.

    `compression_threshold` in a request cuts nothing that is stored, either.

    Args:
        config: jaf-py's `ServerConfig`; its `default_memory_provider` is a bridge, or any provider of ours.
        user_of: who sent a request. A request of nobody's is refused with status 401, but for `/health` and the API's
            description. Without it the server works as jaf-py's, and warns if its conversations will have no owner.

    Returns:
        an ASGI application: jaf-py's `FastAPI`.

    Raises:
        MemoryConfigurationError: there is no memory provider, or it cannot keep users apart.
    """
    if config.default_memory_provider is None:
        return _create_jaf_server(config)
    given = config.default_memory_provider
    bridge = given if isinstance(given, JafProvider) else jaf_provider(given)
    if user_of is None:
        if not bridge.has_owner:
            logger.warning(
                "JAF's server has no user_of: the context of a request is a dict, in which the engine finds no owner, "
                "so its conversations belong to nobody, anybody may read them, and no erasure by user finds them"
            )
        return _create_jaf_server(_uncut(replace(config, default_memory_provider=bridge)))
    app = _create_jaf_server(_uncut(replace(config, default_memory_provider=UsersProvider(bridge))))
    app.add_middleware(Users, user_of=user_of)
    return app


async def run_server(
    agents: Any,
    run_config: Any,
    host: str = "127.0.0.1",
    port: int = 3000,
    cors: bool = True,
    default_memory_provider: Any = None,
    *,
    user_of: UserOf | None = None,
) -> None:
    """Create and start JAF's server; see `create_jaf_server`.

    Args:
        agents: a list of agents, or name → agent.
        run_config: jaf-py's `RunConfig`.
        host: where to listen.
        port: the same.
        cors: whether other sites may send requests.
        default_memory_provider: a bridge, or any provider of ours.
        user_of: who sent a request.

    Raises:
        ValueError: there is no agent.
        MemoryConfigurationError: the memory provider cannot keep users apart.
    """
    import uvicorn

    registry = {agent.name: agent for agent in agents} if isinstance(agents, list) else agents
    if not registry:
        raise ValueError("At least one agent must be provided.")
    config = server.ServerConfig(
        agent_registry=registry,
        run_config=run_config,
        host=host,
        port=port,
        cors=cors,
        default_memory_provider=default_memory_provider,
    )
    app = create_jaf_server(config, user_of=user_of)
    await uvicorn.Server(uvicorn.Config(app=app, host=host, port=port, log_level="info")).serve()


class Users:
    """Middleware that resolves who sent a request, before anything of the server's sees it."""

    def __init__(self, app: Any, user_of: UserOf) -> None:
        self._app = app
        self._user_of = user_of

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Pass the request on as its user's, or refuse it."""
        # What passes here is nobody's, and is refused as soon as it asks for the memory (`_current`).
        if scope["type"] != "http" or scope["method"] == "OPTIONS" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        user = self._user_of(Request(scope))
        user = await user if inspect.isawaitable(user) else user
        if not isinstance(user, str) or not user:
            refusal = JSONResponse({"success": False, "error": "who sent this request is not known"}, status_code=401)
            await refusal(scope, receive, send)
            return
        # For this request's task and those that it starts: each has a context of its own.
        before = _USER.set(user)
        try:
            await self._app(scope, receive, send)
        finally:
            _USER.reset(before)


class UsersProvider:
    """The bridge for the user of the request that is being answered.

    Args:
        bridge: for all users; it stays open until `close`.

    Raises:
        MemoryConfigurationError: its provider cannot keep users apart.
    """

    def __init__(self, bridge: JafProvider) -> None:
        # Only to be refused at the start, and not at the first request, where users cannot be kept apart.
        jaf_provider(bridge, user_id="nobody yet")
        self._bridge = bridge
        self._bridges: OrderedDict[str, JafProvider] = OrderedDict()

    def __repr__(self) -> str:
        return f"<UsersProvider over {self._bridge!r}>"

    def __getattr__(self, name: str) -> Any:
        """A method of the bridge for the request's user."""
        if name in {"close", "health_check"}:
            return getattr(self._bridge, name)
        if name.startswith("_") or name not in METHODS:
            raise AttributeError(name)
        return getattr(self._current(), name)

    def _current(self) -> JafProvider:
        user = _USER.get()
        if user is None:
            raise PermissionError("nobody's request: JAF's server is reached past its middleware")
        # Out, and in again at the end: the first is then the one that was not needed for longest.
        bridge = self._bridges.pop(user, None) or jaf_provider(self._bridge, user_id=user)
        self._bridges[user] = bridge
        while len(self._bridges) > USERS_KEPT:
            self._bridges.popitem(last=False)
        return bridge


METHODS = frozenset(name for name in vars(jaf.MemoryProvider) if not name.startswith("_"))


class Whole(list[Any]):
    """A list of messages that the engine's compression, which slices it twice, leaves whole."""

    def __getitem__(self, wanted: Any) -> Any:
        if isinstance(wanted, slice) and wanted.step is None:
            return list(self) if wanted.start is None else []
        return super().__getitem__(wanted)


def _uncut(config: Any) -> Any:
    """The server makes its configuration of memory for each request: hand the engine a list that it does not cut."""
    before = config.run_config.before_memory_store

    async def whole(messages: list[Any], state: Any) -> list[Any]:
        given = messages if before is None else before(messages, state)
        given = await given if inspect.isawaitable(given) else given
        return Whole(given) if isinstance(given, list) else given

    return replace(config, run_config=replace(config.run_config, before_memory_store=whole))
