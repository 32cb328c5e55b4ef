"""/v1/admin/recordings: the calls that the flight recorder keeps, for admin keys."""

from aiohttp import web

from vivavoce.api.admin import AdminCheck, RecordList
from vivavoce.api.http_errors import json_response
from vivavoce.telemetry.recorder import Recorder


class RecordingRoutes:
    """Lists recorded calls, and sends one as JSON lines."""

    def __init__(self, recorder: Recorder, check: AdminCheck) -> None:
        self._recorder = recorder
        self._check = check

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/v1/admin/recordings", self.recordings)
        app.router.add_get("/v1/admin/recordings/{name}", self.recording)

    async def recordings(self, request: web.Request) -> web.Response:
        self._check(request)
        return json_response(RecordList(list(self._recorder.calls())))

    async def recording(self, request: web.Request) -> web.StreamResponse:
        """The recording of a call, one that goes on included: up to now."""
        self._check(request)
        name = request.match_info["name"]
        call = self._recorder.find(name)
        if call is None:
            raise web.HTTPNotFound(text=f"The recorder has no call {name[:64]!r}.")
        answer = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await answer.prepare(request)
        async for lines in call.lines():
            await answer.write(lines)
        await answer.write_eof()
        return answer
