"""Messages of telephone providers, in the shapes of their documentation (see telephony_messages).

`start_of` is the opening of a call; the other functions make the messages that follow it.
"""

import base64
from typing import Any

from vivavoce.audio.formats import encode
from vivavoce.audio.resample import resample
from vivavoce.protocol.telephony_messages import Provider

STREAM = "MZ18ad3ab5a668481ce02b83e7395059f0"
CALL = "CAd4f3c1d2e3f405162738495a6b7c8d9e"
CONNECTED: dict[Provider, Any] = {
    "twilio": {"event": "connected", "protocol": "Call", "version": "1.0.0"},
    "telnyx": {"event": "connected", "version": "1.0.0"},
    "exotel": {"event": "connected"},
}
MU_LAW = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}


def start_of(provider: Provider, media: Any = None, **parameters: str) -> dict[str, Any]:
    """The start message. media: the media format, where it is not the usual one."""
    match provider:
        case "twilio":
            return {
                "event": "start",
                "sequenceNumber": "1",
                "start": {
                    "accountSid": "AC0123456789abcdef0123456789abcdef",
                    "streamSid": STREAM,
                    "callSid": CALL,
                    "tracks": ["inbound"],
                    "mediaFormat": media or MU_LAW,
                    "customParameters": parameters,
                },
                "streamSid": STREAM,
            }
        case "telnyx":
            return {
                "event": "start",
                "sequence_number": "1",
                "start": {
                    "user_id": "3E6F995F-85F7-4705-9741-53B116D28237",
                    "call_control_id": "v2:T02llQxIyaRkhfRKxgAP8nY511EhFLizdvdUKJiSw8d6A9Bborher",
                    "call_session_id": "ff55a038-6f5d-11ef-9692-02420aeffb1f",
                    "from": "+13122010094",
                    "to": "+13122123456",
                    "client_state": "aGF2ZSBhIG5pY2UgZGF5ID1d",
                    "custom_parameters": parameters,
                    "media_format": media
                    or {"encoding": "PCMU", "sample_rate": 8000, "channels": 1},
                },
                "stream_id": "32DE0DEA-53CB-4B21-89A4-9E1819C043BC",
            }
        case "plivo":
            return {
                "event": "start",
                "sequenceNumber": 1,
                "start": {
                    "callId": "12345678-1234-1234-1234-123456789abc",
                    "streamId": "87654321-4321-4321-4321-cba987654321",
                    "accountId": "MAXXXXXXXXXXXXXXXXXX",
                    "tracks": ["inbound"],
                    "mediaFormat": media or {"encoding": "audio/x-mulaw", "sampleRate": 8000},
                },
                "extra_headers": ";".join(f"{k}={v}" for k, v in parameters.items()),
            }
        case "exotel":
            return {
                "event": "start",
                "sequence_number": "1",
                "stream_sid": STREAM,
                "start": {
                    "stream_sid": STREAM,
                    "call_sid": CALL,
                    "account_sid": "AC0123456789",
                    "from": "+919876543210",
                    "to": "+918047491899",
                    "custom_parameters": parameters,
                    "media_format": media
                    or {"encoding": "audio/x-raw", "sample_rate": "8000", "bit_rate": "16"},
                },
            }


def media_of(provider: Provider, sound: bytes, track: str = "inbound") -> dict[str, Any]:
    """Sound from the caller, in the encoding of the call."""
    media = {"chunk": "2", "timestamp": "200", "payload": base64.b64encode(sound).decode()}
    if provider != "exotel":
        media["track"] = track
    ids = {"twilio": {"streamSid": STREAM}, "exotel": {"stream_sid": STREAM}}
    return {"event": "media", **ids.get(provider, {"stream_id": "s", "streamId": "s"})} | {
        "media": media
    }


def digit_of(provider: Provider, digit: str) -> dict[str, Any]:
    """A key that the caller pressed."""
    fields: dict[Provider, Any] = {
        "twilio": {"track": "inbound_track"},
        "plivo": {"track": "inbound", "timestamp": "2024-01-15T10:30:02.000Z"},
        "exotel": {"duration": "100"},
        "telnyx": {},
    }
    return {"event": "dtmf", "dtmf": {**fields[provider], "digit": digit}}


def returned(provider: Provider, mark: str) -> dict[str, Any]:
    """The sound before that mark was played."""
    if provider == "plivo":
        return {"event": "playedStream", "streamId": "s", "name": mark, "sequenceNumber": 9}
    return {"event": "mark", "sequenceNumber": "4", "mark": {"name": mark}}


def stop_of(provider: Provider) -> dict[str, Any]:
    """The caller has hung up."""
    return {"event": "stop", "stop": {"callSid": CALL, "call_sid": CALL, "reason": "callended"}}


def name_of_mark(message: dict[str, Any]) -> str:
    """Of a mark or a checkpoint that the server sends."""
    name: str = message["mark"]["name"] if "mark" in message else message["name"]
    return name


def phone_sound(pcm24: bytes, provider: Provider) -> bytes:
    """Sound at 24 kHz as a call of that provider carries it."""
    if provider == "exotel":
        return resample(pcm24, 24_000, 8_000)
    return encode(pcm24, "audio/pcmu")
