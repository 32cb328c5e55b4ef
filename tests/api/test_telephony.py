"""POST /telephony/{provider} and POST /: who may request an answer, and what it says."""

import base64
import hashlib
import hmac
import json
import time
import zlib
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit
from xml.etree.ElementTree import Element, fromstring

import aiohttp
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests import idle_clock
from tests.server import Server, scripted, serving
from vivavoce.api.provider_signatures import (
    SignedRequest,
    TelephonySettings,
    check_signature,
)
from vivavoce.errors import SettingsError, Unauthorized
from vivavoce.limits.keys import hash_of
from vivavoce.secret import Secret
from vivavoce.settings import Settings
from vivavoce.settings_sources import load_tree

KEY = "vv-the-key-of-a-phone-number"
TWILIO = {"CallSid": "CA1234567890ABCDE", "AccountSid": "AC1", "From": "+12349013030"}
PLIVO = {"CallUUID": "c", "From": "1", "To": "2", "Direction": "inbound"}
TELNYX = {"CallSid": "c", "AccountSid": "a", "CallControlId": "v2:x"}
EXOTEL = {"CallSid": "c", "CallFrom": "1", "CallTo": "2"}
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = base64.b64encode(PRIVATE.public_key().public_bytes_raw()).decode()


def configured(*, keys: bool = False, **telephony: str) -> Settings:
    return msgspec.structs.replace(
        scripted(),
        telephony=TelephonySettings(**telephony),
        keys={"phones": hash_of(KEY)} if keys else {},
    )


def asked(
    path: str,
    form: dict[str, str] | None = None,
    settings: Settings | None = None,
    *,
    method: str = "POST",
    **headers: str,
) -> tuple[int, str, str]:
    """Status, content type and body. `{http}` in a header is the server's own address."""

    async def fetch(server: Server) -> tuple[int, str, str]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with (
            aiohttp.ClientSession() as http,
            http.request(method, server.http + path, data=form, headers=named) as reply,
        ):
            text = (await reply.text()).replace(f":{server.port}", "")
            return reply.status, reply.content_type, text

    async def main() -> tuple[int, str, str]:
        async with serving(settings) as server:
            return await fetch(server)

    return idle_clock.run(main())


def stream_of(xml: str) -> Element:
    found = fromstring(xml).find(".//Stream")
    assert found is not None
    return found


def parameters_of(xml: str) -> dict[str, str]:
    return {each.attrib["name"]: each.attrib["value"] for each in stream_of(xml)}


# --- the answers


@pytest.mark.parametrize(
    ("path", "form"), [("/telephony/twilio", {}), ("/", TWILIO), ("/?provider=Twilio", {})]
)
def test_twilio_gets_twiml_with_the_stream_and_no_more(path: str, form: dict[str, str]) -> None:
    status, kind, xml = asked(path, form)
    assert (status, kind) == (200, "application/xml")
    assert xml == (
        "<?xml version='1.0' encoding='utf-8'?>\n<Response><Connect>"
        '<Stream url="ws://127.0.0.1/telephony/ws" /></Connect></Response>'
    )


def test_options_of_the_address_become_parameters_of_the_stream() -> None:
    path = "/telephony/telnyx?" + urlencode({"voice": 'c"or&al', "greeting": "Hi\1", "x": "y"})
    status, _, xml = asked(path, TELNYX)
    stream = stream_of(xml)
    assert (status, parameters_of(xml)) == (200, {"voice": 'c"or&al', "greeting": "Hi"})
    assert (stream.get("bidirectionalMode"), stream.get("bidirectionalCodec")) == ("rtp", "PCMU")


def test_plivo_gets_the_parameters_in_the_address_of_the_stream() -> None:
    _, _, xml = asked("/?voice=coral", PLIVO)
    stream = stream_of(xml)
    assert stream.text == "ws://127.0.0.1/telephony/ws?provider=plivo&voice=coral"
    assert stream.attrib == {
        "bidirectional": "true",
        "keepCallAlive": "true",
        "contentType": "audio/x-mulaw;rate=8000",
    }


def test_exotel_gets_the_address_of_the_stream_as_json() -> None:
    path = "/telephony/exotel?" + urlencode(EXOTEL)
    status, kind, body = asked(path, method="GET")
    assert (status, kind) == (200, "application/json")
    assert json.loads(body) == {"url": "ws://127.0.0.1/telephony/ws?provider=exotel"}
    assert asked("/", EXOTEL)[1] == "application/json"


@pytest.mark.parametrize(
    ("settings", "headers", "address"),
    [
        (configured(), {"X_Forwarded_Proto": "https, http"}, "wss://127.0.0.1/telephony/ws"),
        (
            configured(public_url="https://voice.example/v/"),
            {},
            "wss://voice.example/v/telephony/ws",
        ),
    ],
)
def test_address_of_the_stream_is_that_which_providers_reach(
    settings: Settings, headers: dict[str, str], address: str
) -> None:
    assert stream_of(asked("/", TWILIO, settings, **headers)[2]).get("url") == address


def test_server_without_keys_answers_to_the_name_in_public_url() -> None:
    settings = configured(public_url="https://voice.example")
    assert asked("/", TWILIO, settings, Host="voice.example")[0] == 200
    assert asked("/", TWILIO, settings, Host="other.example")[0] == 403


@pytest.mark.parametrize(
    ("path", "form", "words"),
    [
        ("/telephony/acme", TWILIO, "'acme'"),
        ("/", {}, "/telephony/NAME"),
        ("/", {f"f{n}": "" for n in range(600)}, "too many fields"),
    ],
)
def test_unknown_request_is_refused_with_the_remedy(
    path: str, form: dict[str, str], words: str
) -> None:
    status, _, body = asked(path, form)
    assert status == 400
    assert words in body


# --- keys


def test_key_is_required_and_the_stream_gets_a_short_lived_one() -> None:
    settings = configured(keys=True)
    assert asked("/", TWILIO, settings)[0] == 401
    status, _, xml = asked(f"/?api_key={KEY}", TWILIO, settings)
    assert status == 200
    assert parameters_of(xml)["token"].startswith("ek_")
    assert KEY not in xml


def test_short_lived_key_does_not_make_another_one() -> None:
    settings = configured(keys=True)

    async def main() -> int:
        async with serving(settings) as server, aiohttp.ClientSession() as http:
            headers = {"Authorization": f"Bearer {KEY}"}
            url = f"{server.http}/v1/realtime/client_secrets"
            token = (await (await http.post(url, json={}, headers=headers)).json())["value"]
            async with http.post(f"{server.http}/?api_key={token}", data=TWILIO) as reply:
                return reply.status

    assert idle_clock.run(main()) == 401


# --- signatures


def signed_by_twilio(url: str, form: dict[str, str], token: str) -> str:
    text = url + "".join(name + form[name] for name in sorted(form))
    digest = hmac.new(token.encode(), text.encode(), hashlib.sha1).digest()
    return base64.b64encode(digest).decode()


def test_signed_request_needs_no_key_and_is_booked_on_the_named_one() -> None:
    base = "https://voice.example"
    settings = configured(keys=True, twilio_auth_token="12345", public_url=base, key="phones")
    signature = signed_by_twilio(f"{base}/telephony/twilio?voice=ash", TWILIO, "12345")
    path = "/telephony/twilio?voice=ash"
    status, _, xml = asked(path, TWILIO, settings, X_Twilio_Signature=signature)
    assert (status, parameters_of(xml)["voice"]) == (200, "ash")
    payload = parameters_of(xml)["token"].removeprefix("ek_").partition(".")[0]
    grant = zlib.decompress(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert json.loads(grant)["key"] == "phones"
    forged, _, body = asked(path, TWILIO | {"To": "1"}, settings, X_Twilio_Signature=signature)
    assert forged == 403
    assert "[telephony] twilio_auth_token" in body
    assert "12345" not in body


def test_signed_request_may_name_its_key_in_the_address() -> None:
    base = "https://voice.example"
    settings = configured(keys=True, twilio_auth_token="12345", public_url=base)
    for key, expected in ((KEY, 200), ("vv-wrong", 401)):
        signature = signed_by_twilio(f"{base}/?api_key={key}", TWILIO, "12345")
        found = asked(f"/?api_key={key}", TWILIO, settings, X_Twilio_Signature=signature)
        assert found[0] == expected


def request_of(
    url: str, form: dict[str, str], headers: dict[str, str], body: bytes = b"", method: str = "POST"
) -> SignedRequest:
    return SignedRequest(method, url, headers, body, tuple(form.items()))


def test_twilio_signature_is_that_of_its_documentation_with_and_without_the_port() -> None:
    form = {
        "CallSid": "CA1234567890ABCDE",
        "Caller": "+12349013030",
        "Digits": "1234",
        "From": "+12349013030",
        "To": "+18005551212",
    }
    headers = {"X-Twilio-Signature": "0/KCTR6DLpKmkAf8muzZqo1nDgQ="}
    url = "https://mycompany.com/myapp.php?foo=1&bar=2"
    for each in (url, url.replace(".com", ".com:443", 1)):
        check_signature("twilio", Secret("12345"), request_of(each, form, headers), 0.0)
    with pytest.raises(Unauthorized, match="not signed by Twilio: expected"):
        check_signature("twilio", Secret("12346"), request_of(url, form, headers), 0.0)
    with pytest.raises(Unauthorized, match="no header X-Twilio-Signature"):
        check_signature("twilio", Secret("12345"), request_of(url, form, {}), 0.0)


def plivo_headers(text: str, name: str = "X-Plivo-Signature-V3") -> dict[str, str]:
    digest = hmac.new(b"token", f"{text}.12345".encode(), hashlib.sha256).digest()
    return {name: f"x,{base64.b64encode(digest).decode()}", "X-Plivo-Signature-V3-Nonce": "12345"}


@pytest.mark.parametrize(
    ("url", "form", "text"),
    [
        ("https://a.example/p", {"b": "2", "a": "1"}, "https://a.example/p?a1b2"),
        ("https://a.example/p?d=4&c=3", {"a": "1"}, "https://a.example/p?c=3&d=4.a1"),
        ("https://a.example/p?d=4&c=3", {}, "https://a.example/p?c=3&d=4"),
        ("https://a.example/p", {}, "https://a.example/p"),
    ],
)
def test_plivo_signature_covers_the_sorted_query_and_form(
    url: str, form: dict[str, str], text: str
) -> None:
    for name in ("X-Plivo-Signature-V3", "X-Plivo-Signature-Ma-V3"):
        check_signature("plivo", "token", request_of(url, form, plivo_headers(text, name)), 0.0)
    with pytest.raises(Unauthorized):
        check_signature("plivo", "other", request_of(url, form, plivo_headers(text)), 0.0)


def test_telnyx_signature_is_checked_with_its_time() -> None:
    body = urlencode(TELNYX).encode()
    signature = base64.b64encode(PRIVATE.sign(b"1700000000|" + body)).decode()
    headers = {"telnyx-signature-ed25519": signature, "telnyx-timestamp": "1700000000"}
    request = request_of("https://a.example/", TELNYX, headers, body)
    check_signature("telnyx", PUBLIC, request, 1_700_000_200.0)
    late = request, 1_700_000_400.0
    changed = request_of("https://a.example/", TELNYX, headers, body + b"x"), 1_700_000_000.0
    broken = dict(headers, **{"telnyx-signature-ed25519": "!"})
    timeless = dict(headers, **{"telnyx-timestamp": "now"})
    others = [request_of("", {}, each, body) for each in (broken, timeless)]
    for each, now in (late, changed, *((one, 1_700_000_000.0) for one in others)):
        with pytest.raises(Unauthorized):
            check_signature("telnyx", PUBLIC, each, now)


def test_telnyx_request_is_answered_when_it_is_signed() -> None:
    settings = configured(telnyx_public_key=PUBLIC)
    now = str(int(time.time()))
    signature = base64.b64encode(PRIVATE.sign(f"{now}|{urlencode(TELNYX)}".encode())).decode()
    headers = {"telnyx_signature_ed25519": signature, "telnyx_timestamp": now}
    assert asked("/", TELNYX, settings, **headers)[0] == 200
    assert asked("/telephony/telnyx", TELNYX, settings)[0] == 403


def test_settings_come_from_the_names_that_providers_use() -> None:
    environment = {"TWILIO_AUTH_TOKEN": "t", "PLIVO_AUTH_TOKEN": "p", "TELNYX_PUBLIC_KEY": PUBLIC}
    settings, _ = load_tree({}, "", environment, {})
    assert settings.telephony.secret_of("twilio") == "t"
    assert settings.telephony.secret_of("plivo") == "p"
    assert settings.telephony.secret_of("exotel") == ""
    assert "'t'" not in repr(settings.telephony)
    for bad in ({"TELNYX_PUBLIC_KEY": "abc"}, {"VIVAVOCE_TELEPHONY_PUBLIC_URL": "voice.example"}):
        with pytest.raises(SettingsError):
            load_tree({}, "", bad, {})


def query_of(url: str) -> dict[str, Any]:
    return parse_qs(urlsplit(url).query)


def test_exotel_stream_carries_the_token_in_its_address() -> None:
    settings = configured(keys=True)
    body = asked(f"/telephony/exotel?api_key={KEY}&voice=ash", {}, settings, method="GET")[2]
    query = query_of(json.loads(body)["url"])
    assert query["voice"] == ["ash"]
    assert query["token"][0].startswith("ek_")
