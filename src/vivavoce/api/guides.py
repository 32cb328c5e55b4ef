"""GET /docs/guides: the documentation as pages, rendered from Markdown beside the API reference."""

import html
import re
from itertools import pairwise
from pathlib import Path
from typing import Final

from aiohttp import web

from vivavoce.api.openapi import FOLDER, POLICY
from vivavoce.api.public import FilesOnDemand, StaticFile

GUIDES: Final = FOLDER / "guides"
"""Markdown files, and their pictures in the folder `images`."""
FIRST: Final = "console.md"
_OUTSIDE: Final = re.compile(r'<a href="\.\./[^"]*">(.*?)</a>', re.DOTALL)
"""A link to a file of the repository that is not served."""
_NO_HEAD: Final = re.compile(r"<thead>\s*<tr>\s*(?:<th></th>\s*)+</tr>\s*</thead>\s*")
"""The head of a table whose columns have no names."""
_TITLE: Final = re.compile(r"^# (.+)$", re.MULTILINE)
PAGE: Final = """<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <meta name="color-scheme" content="light dark">
  <title>{title}: Vivavoce</title>
  <link rel="icon" href="/console/mark.svg" type="image/svg+xml">
  <link rel="stylesheet" href="/docs/guides.css">
</head>
<body>
  <nav aria-label="Guides">
    <p><a href="/">Console</a> <a href="/docs">API reference</a></p>
    <ul>
{links}
    </ul>
  </nav>
  <main>
{body}
  </main>
</body>
</html>
"""


class GuideRoutes:
    """Serves the guides. A page is rendered when it is first asked for."""

    def __init__(self, folder: Path = GUIDES) -> None:
        """Where the folder is missing, there are no guides."""
        self._paths = {path.name: path for path in sorted(folder.glob("*.md"))}
        self._images = {path.name: path for path in folder.glob("images/*.png")}
        self._files = FilesOnDemand(self._read)

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/docs/guides", self.first)
        app.router.add_get("/docs/guides/{name}", self.page)
        app.router.add_get("/docs/guides/images/{name}", self.image)

    async def first(self, _request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": f"/docs/guides/{FIRST}"})

    async def page(self, request: web.Request) -> web.Response:
        return await self._response(request, self._paths)

    async def image(self, request: web.Request) -> web.Response:
        return await self._response(request, self._images)

    async def _response(self, request: web.Request, paths: dict[str, Path]) -> web.Response:
        name = request.match_info["name"]
        if name not in paths:
            raise web.HTTPNotFound
        return await self._files.response(request, name)

    def _read(self, name: str) -> StaticFile:
        if name in self._images:
            return StaticFile(self._images[name].read_bytes(), "image/png", POLICY)
        path = self._paths[name]
        links = "\n".join(
            f'      <li><a href="/docs/guides/{name}"{_current(one, path)}>{_title(one)}</a></li>'
            for name, one in self._paths.items()
        )
        body = rendered(path.read_text(encoding="utf-8"))
        page = PAGE.format(title=_title(path), links=links, body=body)
        return StaticFile(page.encode(), "text/html", POLICY)


def rendered(text: str) -> str:
    """Markdown as HTML; headings get the anchors that GitHub gives them."""
    from markdown_it import MarkdownIt  # 25 ms of a start, and few read the guides

    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(text)
    for token, inline in pairwise(tokens):
        if token.type == "heading_open":
            token.attrSet("id", anchor(inline.content))
    body: str = markdown.renderer.render(tokens, markdown.options, {})
    body = _NO_HEAD.sub("", _OUTSIDE.sub(r"\1", body))
    return body.replace("<th></th>", "<td></td>").replace("<pre>", '<pre tabindex="0">')


def anchor(heading: str) -> str:
    """The anchor of a heading: lower case, without punctuation, spaces as hyphens."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _current(one: Path, path: Path) -> str:
    return ' aria-current="page"' if one == path else ""


def _title(path: Path) -> str:
    found = _TITLE.search(path.read_text(encoding="utf-8"))
    return html.escape((found[1] if found else path.stem).replace("`", ""))
