"""GET /v1/usage: the usage of the sender's key; for an admin key, of all keys."""

import csv
import io

import msgspec
from aiohttp import web

from vivavoce.api.auth import Auth
from vivavoce.api.http_errors import json_response
from vivavoce.errors import InvalidRequest
from vivavoce.telemetry.metering import Metering
from vivavoce.telemetry.metrics import Metrics
from vivavoce.telemetry.reports import GroupBy, ReportLine, group_by, report, span_of

_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
_FILTERS: tuple[GroupBy, ...] = ("key", "user", "team", "model", "session", "mode")


class UsageReport(msgspec.Struct, frozen=True):
    """The body of GET /v1/usage."""

    since: float
    """Unix seconds, as `until`, which is not included."""
    until: float
    data: list[ReportLine]
    object: str = "list"


class UsageRoutes:
    """Reports of the usage that was booked."""

    def __init__(self, auth: Auth, metering: Metering) -> None:
        self._auth = auth
        self._metering = metering

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/v1/usage", self.usage)

    async def usage(self, request: web.Request) -> web.Response:
        """Raises InvalidRequest, and StoreError."""
        query = request.query
        since, until = span_of(
            query.get("since", ""), query.get("until", ""), self._metering.wall_clock()
        )
        by = group_by(query.get("by", "day"))
        where: dict[GroupBy, str] = {name: query[name] for name in _FILTERS if name in query}
        where |= self._own(request)
        await self._metering.booking.flush()
        metering = self._metering
        lines = await report(metering.store, since, until, by, where, metering.rater.prices)
        match query.get("form", "json"):
            case "json":
                return json_response(UsageReport(since, until, lines))
            case "csv":
                return web.Response(text=as_csv(lines), content_type="text/csv", charset="utf-8")
            case form:
                raise InvalidRequest(f"The form {form!r} is neither json nor csv.", param="form")

    def _own(self, request: web.Request) -> dict[GroupBy, str]:
        """A key sees its own usage only.

        This does not apply to admin keys, nor to servers without keys.
        """
        name = self._auth.identify(request).name
        key = self._metering.directory.keys.get(name)
        if not name or (key is not None and key.admin):
            return {}
        return {"key": name}


class MetricsRoutes:
    """GET /metrics, for Prometheus. It needs a key like every other route."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/metrics", self.metrics)

    async def metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._metrics.text(), headers={"Content-Type": _PROMETHEUS})


def flat(line: ReportLine) -> dict[str, str | int | float]:
    """A line with its groups as columns."""
    columns: dict[str, str | int | float] = msgspec.to_builtins(line)
    columns.pop("group")
    return {**line.group, **columns}


def as_csv(lines: list[ReportLine]) -> str:
    text = io.StringIO()
    rows = [flat(line) for line in lines]
    writer = csv.DictWriter(text, rows[0] if rows else (), lineterminator="\n")
    if rows:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
