"""Functions that run on this server when a model calls them: Python objects, and HTTP webhooks."""

import asyncio
import logging
from collections.abc import Awaitable, Mapping
from contextlib import AsyncExitStack
from importlib.metadata import entry_points
from typing import Annotated, Any, Literal, NamedTuple, Protocol, Self, TypeAlias

import msgspec
from msgspec import Meta

from vivavoce.engines.http import HttpClient, ResponseTimeouts
from vivavoce.engines.remote import RemoteServer, ServerKind
from vivavoce.errors import EngineError, SettingsError
from vivavoce.protocol.items import FunctionTool
from vivavoce.secret import Secret, conceal
from vivavoce.session.effects import RunTool

log = logging.getLogger(__name__)

ToolOutcome: TypeAlias = Literal["ok", "failed", "timeout", "invalid", "cancelled"]
"""invalid: the arguments were no JSON object; cancelled: the result was no longer needed."""
GROUP = "vivavoce.tools"
"""The group of entry points; each has the name of its function."""
MAX_OUTPUT_CHARACTERS = 16_384
"""The most characters of a result, because a model reads it in every later turn."""
MAX_ANSWER_BYTES = 1 << 20
CONNECT_TIMEOUT_S = 5.0
_KIND = ServerKind("webhook", "a function")


class ToolSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[tools.NAME]: a function of this server, which policies can name."""

    url: str = ""
    """The address of a webhook. Empty: the entry point `vivavoce.tools` of that name is used."""
    secret: str = ""
    """Sent to the webhook as a bearer token."""
    description: str = ""
    """The description for the model. Empty: that of the entry point."""
    parameters: dict[str, Any] = {}
    """A JSON schema of the arguments. Empty: that of the entry point."""
    timeout_seconds: Annotated[float, Meta(gt=0, le=600)] = 8.0
    background: bool = False
    """Whether the conversation continues while it runs.

    The model gets CALL_RUNS as a provisional result. When the function returns, the model is asked
    for another answer, with the real result, as soon as nobody speaks.
    """

    def __post_init__(self) -> None:
        if self.url and not self.url.startswith(("http://", "https://")):
            raise ValueError("url is the address of a webhook, http:// or https://")
        conceal(self, "secret")


class ToolCall(msgspec.Struct, frozen=True):
    """One call: the argument of a function, or the JSON that a webhook gets."""

    name: str
    arguments: dict[str, Any]
    call_id: str
    session_id: str
    key: str
    """The name of the API key that opened the session; "" without keys."""


class ToolResult(NamedTuple):
    """The outcome of a call."""

    text: str
    """The output for the model; of a failure {"error": …}."""
    outcome: ToolOutcome


class Tool(Protocol):
    """The type that an entry point names: an object that is called for each call of a model.

    It may have `description` and `parameters`, a JSON schema. The result is given to the model:
    text as it is, anything else as JSON. Its calls may run at the same time.
    """

    def __call__(self, call: ToolCall) -> Awaitable[object]: ...


class Webhook:
    """POSTs a call, or a text, as JSON; the body of the answer is the result."""

    def __init__(self, name: str, url: str, secret: Secret, timeout_s: float) -> None:
        bearer = secret.reveal()
        headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        self._http = HttpClient(
            RemoteServer(url, _KIND, headers=headers), connect_timeout_s=CONNECT_TIMEOUT_S
        )
        self._name = name
        self._timeouts = ResponseTimeouts(timeout_s, timeout_s)
        self._timeout_s = timeout_s

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._http.__aexit__(*exc)

    async def __call__(self, call: msgspec.Struct) -> str:
        body = msgspec.json.encode(call)
        deadline = asyncio.get_running_loop().time() + self._timeout_s
        async with self._http.request("POST", "", body, timeouts=self._timeouts) as response:
            if not 200 <= response.status < 300:
                raise await response.refusal(CONNECT_TIMEOUT_S)
            return (await response.read(MAX_ANSWER_BYTES, deadline)).decode(errors="replace")


class ServerTool(msgspec.Struct, frozen=True):
    """A function and how it is declared to models."""

    declared: FunctionTool
    function: Tool
    timeout_s: float
    background: bool = False

    async def run(self, order: RunTool, session_id: str, key: str) -> ToolResult:
        """Call it. A failure gives a result, too."""
        name = self.declared.name
        try:
            arguments = msgspec.json.decode(order.arguments or "{}", type=dict[str, Any])
        except msgspec.DecodeError:
            return _error("the arguments are not a JSON object", "invalid")
        call = ToolCall(name, arguments, order.call_id, session_id, key)
        try:
            async with asyncio.timeout(self.timeout_s):
                result = await self.function(call)
            text = result if isinstance(result, str) else msgspec.json.encode(result).decode()
        except TimeoutError:
            log.warning("the tool %r took longer than %g s", name, self.timeout_s)
            return _error("timeout", "timeout")
        except EngineError as exc:
            log.warning("the tool %r failed: %s", name, exc)
            return _error("the function failed")
        except Exception:  # foreign code: it must not end the call
            log.exception("the tool %r failed", name)
            return _error("the function failed")
        if len(text) > MAX_OUTPUT_CHARACTERS:
            log.warning("the result of the tool %r is cut to %d", name, MAX_OUTPUT_CHARACTERS)
        return ToolResult(text[:MAX_OUTPUT_CHARACTERS], "ok")


def _error(reason: str, outcome: ToolOutcome = "failed") -> ToolResult:
    return ToolResult(msgspec.json.encode({"error": reason}).decode(), outcome)


async def built_tools(
    settings: Mapping[str, ToolSettings], stack: AsyncExitStack
) -> dict[str, ServerTool]:
    """The functions by name, entered on the stack. Raises SettingsError."""
    tools: dict[str, ServerTool] = {}
    for name, each in settings.items():
        function = await webhook_or_entry_point(GROUP, "tools", name, each, stack)
        description = each.description or getattr(function, "description", "")
        parameters = each.parameters or getattr(function, "parameters", None)
        declared = FunctionTool(
            name, description, parameters or {"type": "object", "properties": {}}
        )
        tools[name] = ServerTool(declared, function, each.timeout_seconds, each.background)
    return tools


class WebhookSettings(Protocol):
    """The settings of a function of this server. url "": it is an entry point."""

    @property
    def url(self) -> str: ...
    @property
    def secret(self) -> str: ...
    @property
    def timeout_seconds(self) -> float: ...


async def webhook_or_entry_point(
    group: str, table: str, name: str, settings: WebhookSettings, stack: AsyncExitStack
) -> Any:
    """The function of [table.name]; a webhook is entered on the stack. Raises SettingsError."""
    if not settings.url:
        return _loaded(group, table, name)
    secret: str | Secret = settings.secret
    if not isinstance(secret, Secret):
        secret = Secret(secret)
    webhook = Webhook(name, settings.url, secret, settings.timeout_seconds)
    return await stack.enter_async_context(webhook)


def _loaded(group: str, table: str, name: str) -> object:
    """The object that an entry point names, for [table.name]. Raises SettingsError."""
    found = tuple(entry_points(group=group, name=name))
    if not found:
        raise SettingsError(
            f"[{table}.{name}] no package has an entry point {group!r} of that name; set url for "
            f"a webhook"
        )
    try:
        function: object = found[0].load()
    except Exception as exc:
        raise SettingsError(f"[{table}.{name}] {found[0].value} cannot be loaded: {exc}") from exc
    if not callable(function):
        raise SettingsError(f"[{table}.{name}] {found[0].value} cannot be called")
    return function
