"""The other addresses of each path, rewritten before routing and authentication.

Clients that join a base URL with a path write doubled and trailing slashes; Azure's clients write
Azure's addresses. Everything behind this module sees one form of each path.
"""

import re
from typing import NamedTuple
from urllib.parse import unquote

from yarl import URL

_SLASHES = re.compile("/{2,}")


class _Rewrite(NamedTuple):
    pattern: re.Pattern[str]
    path: str
    """The path to serve; a group `deployment` becomes the query's `model`."""


def _rewrite(pattern: str, path: str) -> _Rewrite:
    return _Rewrite(re.compile(pattern), path)


_DEPLOYMENT = r"/openai/deployments/(?P<deployment>[^/]+)"
# Azure's reference: "Azure OpenAI in Azure AI Foundry Models REST API" and its preview versions
_REWRITES = (
    _rewrite(r"/openai/v1(?P<rest>/.*)", r"/v1\g<rest>"),
    _rewrite(_DEPLOYMENT + r"(?P<rest>/(audio/.+|chat/completions))", r"/v1\g<rest>"),
    _rewrite(r"/openai/realtime", "/v1/realtime"),
    _rewrite(r"/openai/realtimeapi/(?P<rest>sessions|transcription_sessions)",
             r"/v1/realtime/\g<rest>"),
    _rewrite(r"(/openai)?/v1/realtimertc", "/v1/realtime"),
    _rewrite(r"/openai/models(?P<rest>/.+)?", r"/v1/models\g<rest>"),
)  # fmt: skip


def canonical(url: URL) -> URL:
    """The address that serves a request for `url`; the same object where nothing changes.

    A deployment of Azure's, from the path or the query, becomes the query's `model`, unless the
    query has one.
    """
    path = _SLASHES.sub("/", url.raw_path)
    if len(path) > 1:
        path = path.removesuffix("/")
    deployment = url.query.get("deployment", "")
    for rewrite in _REWRITES:
        if found := rewrite.pattern.fullmatch(path):
            path = found.expand(rewrite.path)
            deployment = unquote(found.groupdict().get("deployment", "")) or deployment
            break
    if path != url.raw_path:
        url = url.with_path(path, encoded=True, keep_query=True)
    if deployment and not url.query.get("model"):
        url = url.update_query(model=deployment)
    return url
