"""What telephone providers request when a call comes in: POST /telephony/{provider}, and POST /.

The answer tells the provider to stream the call to /telephony/ws. Where the server requires a key
the stream has a short-lived one among its parameters. Documentation of the answers: Twilio, "TwiML
Voice: <Stream>"; Telnyx, TeXML "Stream"; Plivo, "The AudioStream element"; Exotel, "Working with
the Stream and Voicebot Applet".
"""

import logging
import secrets
from collections.abc import Mapping
from typing import cast
from urllib.parse import parse_qsl, urlencode
from xml.etree.ElementTree import Element, SubElement, tostring

from aiohttp import web

from vivavoce.api.auth import Auth, presented_key
from vivavoce.api.http_errors import json_response
from vivavoce.api.provider_signatures import SignedRequest, TelephonySettings, check_signature
from vivavoce.api.requests import read_body
from vivavoce.errors import InvalidRequest, Unauthorized
from vivavoce.limits.tokens import Grant
from vivavoce.protocol.telephony_messages import PROVIDERS, Provider
from vivavoce.protocol.validation import MAX_QUOTED

log = logging.getLogger(__name__)

STREAM_PATH = "/telephony/ws"
TOKEN_SECONDS = 120
"""The time within which the provider has to open the stream."""
MAX_BODY_BYTES = 64 * 1024
BODY_TIMEOUT_S = 10.0
MAX_FORM_FIELDS = 500
PASSED_ON = (
    *("model", "voice", "language", "stt_model", "allow_interruptions"),
    *("greeting", "instructions"),
)
"""Options of the request's address that become parameters of the stream."""


class TelephonyRoutes:
    """Tells providers where to stream a call. `auth` makes the short-lived keys."""

    def __init__(self, auth: Auth, settings: TelephonySettings) -> None:
        self._auth = auth
        self._settings = settings

    def add_to(self, app: web.Application) -> None:
        app.router.add_post("/", self.answer)
        app.router.add_post("/telephony/{provider}", self.answer)
        app.router.add_get("/telephony/{provider}", self.answer)

    async def answer(self, request: web.Request) -> web.Response:
        body = await read_body(request, MAX_BODY_BYTES, BODY_TIMEOUT_S)
        form = _form_of(body)
        provider = _provider_of(request, dict(form))
        base = self._public_url(request)
        who = self._admit(
            request,
            provider,
            SignedRequest(request.method, base + request.raw_path, request.headers, body, form),
        )
        parameters = {name: request.query[name] for name in PASSED_ON if name in request.query}
        if self._auth.keys:
            parameters["token"] = self._token(who)
        stream = base.replace("http", "ws", 1) + STREAM_PATH
        log.info("%s asked where a call goes: %s", provider, stream)
        return _answer(provider, stream, _printable(parameters))

    def _admit(self, request: web.Request, provider: Provider, signed: SignedRequest) -> str:
        """The name of the key for the call. Raises HTTPForbidden and Unauthorized."""
        if secret := self._settings.secret_of(provider):
            try:
                check_signature(provider, secret, signed, self._auth.wall_clock())
            except Unauthorized as exc:
                log.warning("a request was refused: %s", exc)
                raise web.HTTPForbidden(text=str(exc)) from exc
            if not presented_key(request):
                return self._settings.key
        identity = self._auth.identify(request)
        if identity.grant is not None:
            raise Unauthorized("A short-lived key opens Realtime sessions and nothing else.")
        return identity.name

    def _token(self, who: str) -> str:
        expires_at = int(self._auth.wall_clock()) + TOKEN_SECONDS
        grant = Grant(id=secrets.token_hex(8), expires_at=expires_at, key=who)
        return self._auth.mint.issue(grant).reveal()

    def _public_url(self, request: web.Request) -> str:
        """Scheme and host under which the provider knows this server."""
        if self._settings.public_url:
            return self._settings.public_url.rstrip("/")
        forwarded = request.headers.get("X-Forwarded-Proto", "").partition(",")[0].strip()
        scheme = forwarded if forwarded in ("http", "https") else request.scheme
        return f"{scheme}://{request.host}"


def _form_of(body: bytes) -> tuple[tuple[str, str], ...]:
    """The fields of a form. Raises InvalidRequest for too many."""
    try:
        text = body.decode(errors="replace")
        return tuple(parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FORM_FIELDS))
    except ValueError as exc:
        raise InvalidRequest(
            f"The form has too many fields: at most {MAX_FORM_FIELDS} are accepted."
        ) from exc


def _provider_of(request: web.Request, form: Mapping[str, str]) -> Provider:
    """The provider: named in the path or as `?provider=`, or else recognised by a field that only
    this provider sends.

    Raises InvalidRequest.
    """
    named = request.match_info.get("provider") or request.query.get("provider")
    if named:
        if named.lower() not in PROVIDERS:
            raise InvalidRequest(
                f"Unknown telephone provider {named[:MAX_QUOTED]!r}. Supported are: "
                f"{', '.join(PROVIDERS)}.",
                param="provider",
            )
        return cast(Provider, named.lower())
    headers, fields = request.headers, form.keys() | request.query.keys()
    if "X-Twilio-Signature" in headers:
        return "twilio"
    if "telnyx-signature-ed25519" in headers or "CallControlId" in fields:
        return "telnyx"
    if "X-Plivo-Signature-V3" in headers or "CallUUID" in fields:
        return "plivo"
    if {"CallFrom", "CallTo"} <= fields:
        return "exotel"
    if {"CallSid", "AccountSid"} <= fields:
        return "twilio"
    raise InvalidRequest(
        "The request is of no known telephone provider: let the provider call /telephony/NAME, "
        f"where NAME is one of {', '.join(PROVIDERS)}.",
        param="provider",
    )


def _answer(provider: Provider, stream: str, parameters: Mapping[str, str]) -> web.Response:
    if provider == "exotel":
        return json_response({"url": f"{stream}?{urlencode({'provider': provider, **parameters})}"})
    response = Element("Response")
    # accepts no parameters other than letters and digits: the options are in the address
    if provider == "plivo":
        place = SubElement(
            response,
            "Stream",
            bidirectional="true",
            keepCallAlive="true",
            contentType="audio/x-mulaw;rate=8000",
        )
        place.text = f"{stream}?{urlencode({'provider': provider, **parameters})}"
    else:
        place = SubElement(SubElement(response, "Connect"), "Stream", url=stream)
        if provider == "telnyx":
            place.attrib |= {"bidirectionalMode": "rtp", "bidirectionalCodec": "PCMU"}
        for name, value in parameters.items():
            SubElement(place, "Parameter", name=name, value=value)
    text = tostring(response, encoding="utf-8", xml_declaration=True)
    return web.Response(body=text, content_type="application/xml")


def _printable(parameters: Mapping[str, str]) -> dict[str, str]:
    """The text without the characters that XML 1.0 cannot contain."""
    return {
        name: "".join(each for each in value if each.isprintable())
        for name, value in parameters.items()
    }
