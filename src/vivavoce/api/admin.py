"""/v1/admin: keys, users, teams and budgets over HTTP, for admin keys.

The same records that `vivavoce keys`, `users` and `budgets` manage; a change is in force at once on
this server, and within seconds on others that share the store. Keys of the settings are not shown:
they are changed there.
"""

import secrets
from typing import Annotated, Any, TypeVar

import msgspec
from aiohttp import web
from msgspec import Meta

from vivavoce.api.auth import Auth
from vivavoce.api.http_errors import json_response
from vivavoce.errors import InvalidRequest
from vivavoce.limits.accounts import (
    ApiKey,
    Budget,
    Name,
    OwnerName,
    Period,
    Scope,
    Team,
    Unit,
    User,
    amount_of,
    amount_text,
    check_timezone,
)
from vivavoce.limits.keys import KEY_BYTES, hash_of, key_of
from vivavoce.protocol.codec import Reader
from vivavoce.store.base import RecordKind
from vivavoce.telemetry.metering import Metering

T = TypeVar("T", bound=msgspec.Struct)
MAX_DAYS = 36_500
Count = Annotated[int, Meta(ge=0)]


class NewKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /v1/admin/keys."""

    name: Name
    user: OwnerName = ""
    team: OwnerName = ""
    days: Annotated[float, Meta(gt=0, le=MAX_DAYS)] | None = None
    """It expires after so many."""
    admin: bool = False
    max_sessions: Count = 0
    max_requests: Count = 0
    models: tuple[str, ...] = ()


class OwnerChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of PUT /v1/admin/users/NAME and /v1/admin/teams/NAME; a team has no team."""

    team: OwnerName = ""
    blocked: bool = False


class NewBudget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of PUT /v1/admin/budgets."""

    scope: Scope
    name: str = ""
    """The name of the key, user or team."""
    limit: str
    """In the unit, as people write it: 20 or 2.50."""
    unit: Unit
    period: Period
    timezone: str = "UTC"


class ShownKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key without its hash."""

    name: str
    user: str
    team: str
    created_at: float
    expires_at: float | None
    revoked: bool
    admin: bool
    max_sessions: int
    max_requests: int
    models: tuple[str, ...]
    key: str | None = None
    """The text of the key: only in the answer to the request that makes it."""


class ShownBudget(msgspec.Struct, frozen=True, kw_only=True):
    """A budget, and how much of it is used in its present period."""

    id: str
    scope: str
    name: str
    unit: str
    period: str
    timezone: str
    limit: str
    spent: str
    reserved: str


class RecordList(msgspec.Struct, frozen=True):
    """The answer to every GET."""

    data: list[Any]
    object: str = "list"


_new_key: Reader[NewKey] = Reader(NewKey, "body")
_owner: Reader[OwnerChange] = Reader(OwnerChange, "body")
_budget: Reader[NewBudget] = Reader(NewBudget, "body")


class AdminCheck:
    """Admits admin keys, and everybody if the server needs no keys."""

    def __init__(self, auth: Auth, metering: Metering | None) -> None:
        """metering: has the records of the keys; None: no key is an admin's."""
        self._auth = auth
        self._metering = metering

    @property
    def is_open(self) -> bool:
        """Whether no keys are needed."""
        return not self._auth.keys

    def __call__(self, request: web.Request) -> None:
        """Raises HTTPForbidden."""
        name = self._auth.identify(request).name
        key = self._metering.directory.keys.get(name) if self._metering else None
        if name and not (key is not None and key.admin):
            raise web.HTTPForbidden(
                text="This needs an admin key; make one with: vivavoce keys add NAME --admin"
            )


class AdminRoutes:
    """Manages the records of the store."""

    def __init__(self, auth: Auth, metering: Metering) -> None:
        self._check = AdminCheck(auth, metering)
        self._metering = metering

    def add_to(self, app: web.Application) -> None:
        router, base = app.router, "/v1/admin"
        router.add_get(f"{base}/keys", self.keys)
        router.add_post(f"{base}/keys", self.add_key)
        router.add_delete(f"{base}/keys/{{name}}", self.revoke_key)
        for kind in ("user", "team"):
            router.add_get(f"{base}/{kind}s", self.owners)
            router.add_put(f"{base}/{kind}s/{{name}}", self.set_owner)
            router.add_delete(f"{base}/{kind}s/{{name}}", self.remove_owner)
        router.add_get(f"{base}/budgets", self.budgets)
        router.add_put(f"{base}/budgets", self.set_budget)
        router.add_delete(f"{base}/budgets/{{name}}", self.remove_budget)

    async def keys(self, request: web.Request) -> web.Response:
        self._check(request)
        found = await self._records("key", ApiKey)
        return json_response(RecordList([_shown_key(key) for key in found]))

    async def add_key(self, request: web.Request) -> web.Response:
        """Make a key; its text is in this answer and nowhere else. Raises InvalidRequest."""
        self._check(request)
        body = _new_key.read(await request.read())
        if body.name in self._metering.directory.keys:
            raise InvalidRequest(f"There is a key {body.name!r} already.", param="name")
        text, now = key_of(secrets.token_bytes(KEY_BYTES)), self._metering.wall_clock()
        key = ApiKey(
            name=body.name,
            hash=hash_of(text),
            user=body.user,
            team=body.team,
            created_at=now,
            expires_at=None if body.days is None else now + body.days * 86_400,
            admin=body.admin,
            max_sessions=body.max_sessions,
            max_requests=body.max_requests,
            models=body.models,
        )
        await self._save("key", key.name, key)
        shown = msgspec.structs.replace(_shown_key(key), key=text.reveal())
        return json_response(shown, 201)

    async def revoke_key(self, request: web.Request) -> web.Response:
        """Revoke the key, and end its sessions."""
        self._check(request)
        name = request.match_info["name"]
        for key in await self._records("key", ApiKey):
            if key.name == name:
                revoked = msgspec.structs.replace(key, revoked=True)
                await self._save("key", name, revoked)
                return json_response(_shown_key(revoked))
        raise web.HTTPNotFound(text=f"The store has no key {name[:64]!r}.")

    async def owners(self, request: web.Request) -> web.Response:
        self._check(request)
        found: list[Any] = await self._records(*_owner_kind(request))
        return json_response(RecordList([msgspec.structs.asdict(one) for one in found]))

    async def set_owner(self, request: web.Request) -> web.Response:
        """Add or change a user or a team. Raises InvalidRequest."""
        self._check(request)
        kind, type_ = _owner_kind(request)
        body = _owner.read(await request.read())
        fields = {"name": request.match_info["name"], "blocked": body.blocked}
        if type_ is User:
            fields["team"] = body.team
        elif body.team:
            raise InvalidRequest("A team has no team.", param="team")
        record = _checked(type_, fields)
        await self._save(kind, str(fields["name"]), record)
        return json_response(msgspec.structs.asdict(record))

    async def remove_owner(self, request: web.Request) -> web.Response:
        self._check(request)
        kind, _ = _owner_kind(request)
        return await self._remove(kind, request.match_info["name"])

    async def budgets(self, request: web.Request) -> web.Response:
        self._check(request)
        found = await self._records("budget", Budget)
        return json_response(RecordList([await self._shown(budget) for budget in found]))

    async def set_budget(self, request: web.Request) -> web.Response:
        """Add a budget, or change its limit. Raises InvalidRequest."""
        self._check(request)
        body = _budget.read(await request.read())
        if bool(body.name) == (body.scope == "all"):
            has = "no name" if body.scope == "all" else "a name"
            raise InvalidRequest(f"A budget of {body.scope} has {has}.", param="name")
        try:
            limit = amount_of(body.limit, body.unit)
        except ValueError as exc:
            raise InvalidRequest(f"{exc}.", param="limit") from exc
        try:
            check_timezone(body.timezone)
        except ValueError as exc:
            raise InvalidRequest(f"{exc}.", param="timezone") from exc
        fields = {"scope": body.scope, "owner": body.name, "unit": body.unit, "limit": limit}
        budget = _checked(Budget, {**fields, "period": body.period, "timezone": body.timezone})
        await self._save("budget", budget.id, budget)
        return json_response(await self._shown(budget))

    async def remove_budget(self, request: web.Request) -> web.Response:
        self._check(request)
        return await self._remove("budget", request.match_info["name"])

    async def _records(self, kind: RecordKind, type_: type[T]) -> list[T]:
        found = await self._metering.store.records(kind)
        return [msgspec.json.decode(data, type=type_) for data in found.values()]

    async def _save(self, kind: RecordKind, name: str, record: msgspec.Struct) -> None:
        await self._metering.store.save(kind, name, msgspec.json.encode(record))
        await self._metering.refresh()

    async def _remove(self, kind: RecordKind, name: str) -> web.Response:
        if not await self._metering.store.remove(kind, name):
            raise web.HTTPNotFound(text=f"The store has no {kind} {name[:200]!r}.")
        await self._metering.refresh()
        return web.Response(status=204)

    async def _shown(self, budget: Budget) -> ShownBudget:
        period = budget.period_at(self._metering.wall_clock())
        spent, reserved = await self._metering.store.balance(budget.id, period)
        return ShownBudget(
            id=budget.id,
            scope=budget.scope,
            name=budget.owner,
            unit=budget.unit,
            period=period,
            timezone=budget.timezone,
            limit=amount_text(budget.limit, budget.unit),
            spent=amount_text(spent, budget.unit),
            reserved=amount_text(reserved, budget.unit),
        )


def _owner_kind(request: web.Request) -> tuple[RecordKind, Any]:
    is_user = request.path.split("/")[3] == "users"
    return ("user", User) if is_user else ("team", Team)


def _shown_key(key: ApiKey) -> ShownKey:
    fields = msgspec.structs.asdict(key)
    del fields["hash"]
    return ShownKey(**fields)


def _checked(type_: type[T], fields: dict[str, Any]) -> T:
    """A record of valid fields. Raises InvalidRequest."""
    try:
        return msgspec.convert(fields, type_)
    except msgspec.ValidationError as exc:
        raise InvalidRequest(f"The record is not valid: {exc}.") from exc
