"""The local page on which voices are rated: each rater has a link, the owner another for results.

GET /r/TOKEN            the page of a rater
GET /r/TOKEN/next       what it shows next
GET /r/TOKEN/clip/N/S   the sound of task N, side S: no name of a voice is in it
POST /r/TOKEN/answer    an answer; returns what is shown next
GET /results/TOKEN      the report; .csv behind it: as CSV
"""

import asyncio
import secrets
from pathlib import Path
from typing import Any, Final

import msgspec
from aiohttp import web

from vivavoce.voices.report import as_csv, as_html
from vivavoce.voices.study import CLIPS, StudyAnswer, StudyRater, VoiceStudy, task_view

FOLDER: Final = Path(__file__).parent
PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; media-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
REPORT_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
MAX_ANSWER_BYTES: Final = 4_096
FILES: Final = {"rate.js": "text/javascript", "rate.css": "text/css"}


class RatingRoutes:
    """The page of one study."""

    def __init__(self, study: VoiceStudy) -> None:
        self._study = study
        self._writing = asyncio.Lock()
        self._page = (FOLDER / "rate.html").read_text("utf-8")
        self._files = {name: (FOLDER / name).read_text("utf-8") for name in FILES}

    def application(self) -> web.Application:
        """All routes."""
        app = web.Application(client_max_size=MAX_ANSWER_BYTES)
        app.router.add_get("/{name:rate\\.(?:js|css)}", self._file)
        app.router.add_get("/r/{token}", self._rater_page)
        app.router.add_get("/r/{token}/next", self._next)
        app.router.add_get("/r/{token}/clip/{task:[0-9]+}/{side:[01]}", self._clip)
        app.router.add_post("/r/{token}/answer", self._answer)
        app.router.add_get("/results/{token}", self._results)
        app.router.add_get("/results/{token}/voices.csv", self._csv)
        return app

    def _rater(self, request: web.Request) -> StudyRater:
        rater = self._study.rater_of(request.match_info["token"])
        if rater is None:
            raise web.HTTPNotFound(text="This link belongs to no rater of this study.")
        return rater

    def _check_owner(self, request: web.Request) -> None:
        given = request.match_info["token"].encode()
        if not secrets.compare_digest(given, self._study.file.results_token.encode()):
            raise web.HTTPNotFound(text="This link is not that of the results.")

    async def _file(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        return _response(self._files[name], FILES[name], PAGE_POLICY)

    async def _rater_page(self, request: web.Request) -> web.Response:
        self._rater(request)
        return _response(self._page, "text/html", PAGE_POLICY)

    async def _next(self, request: web.Request) -> web.Response:
        return _json(task_view(self._study, self._rater(request)))

    async def _clip(self, request: web.Request) -> web.StreamResponse:
        clips = self._study.task(self._rater(request), int(request.match_info["task"]))
        side = int(request.match_info["side"])
        if clips is None or side >= len(clips):
            raise web.HTTPNotFound(text="There is no such clip.")
        path = self._study.folder / CLIPS / self._study.file.clips[clips[side]].file
        body = await asyncio.to_thread(path.read_bytes)
        # sent from memory: a file response would name the file in its headers
        return web.Response(
            body=body, content_type="audio/wav", headers={"Cache-Control": "no-store"}
        )

    async def _answer(self, request: web.Request) -> web.Response:
        rater = self._rater(request)
        try:
            answer = msgspec.json.decode(await request.read(), type=StudyAnswer)
        except msgspec.MsgspecError as exc:
            return _json({"error": str(exc)}, 400)
        async with self._writing:
            problem = await asyncio.to_thread(self._study.add, rater, answer)
        if problem:
            return _json({"error": problem}, 409)
        return _json(task_view(self._study, rater))

    async def _results(self, request: web.Request) -> web.Response:
        self._check_owner(request)
        text = await asyncio.to_thread(as_html, self._study)
        return _response(text, "text/html", REPORT_POLICY)

    async def _csv(self, request: web.Request) -> web.Response:
        self._check_owner(request)
        return _response(
            await asyncio.to_thread(as_csv, self._study), "text/csv", "default-src 'none'"
        )


def _json(body: dict[str, Any], status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(body), status=status, content_type="application/json"
    )


def _response(text: str, content_type: str, policy: str) -> web.Response:
    headers = {
        "Cache-Control": "no-store",
        "Content-Security-Policy": policy,
        "Referrer-Policy": "no-referrer",  # the link is the rater's key
        "X-Content-Type-Options": "nosniff",
    }
    return web.Response(text=text, content_type=content_type, charset="utf-8", headers=headers)
