"""What a client offers, as far as it decides whether there can be a call."""

from aiortc.sdp import SessionDescription

from vivavoce.errors import InvalidRequest

MOST_BYTES = 256 * 1024


def check(offer: str) -> None:
    """Raise InvalidRequest where no call can come of it, and say what is missing."""
    if not offer.strip():
        raise InvalidRequest("Missing required parameter: 'sdp'.", code=MISSING, param="sdp")
    if len(offer) > MOST_BYTES:
        raise _refused(f"it has {len(offer)} characters, more than {MOST_BYTES}")
    try:
        media = SessionDescription.parse(offer).media
    except Exception as exc:  # it raises whatever the lines of strangers lead to
        raise _refused("it is not valid SDP") from exc
    kinds = [section.kind for section in media]
    if kinds.count("audio") != 1 or set(kinds) - {"audio", "application"}:
        named = ", ".join(kinds) or "none"
        raise _refused(f"it must have one audio section and no video; it has: {named}")
    sound = next(section for section in media if section.kind == "audio")
    if "audio/opus" not in [codec.mimeType.lower() for codec in sound.rtp.codecs]:
        raise _refused("its audio section does not offer Opus")
    if sound.direction not in ("sendrecv", "recvonly"):
        raise _refused(f"its audio section is {sound.direction}: the answers would go nowhere")
    for section in media:
        if (
            section.dtls is None
            or not section.dtls.fingerprints
            or not (section.ice and section.ice.password)
        ):
            raise _refused(f"its {section.kind} section lacks a fingerprint or an ICE password")


MISSING = "missing_required_parameter"


def _refused(why: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid 'sdp': {why}.", param="sdp")
