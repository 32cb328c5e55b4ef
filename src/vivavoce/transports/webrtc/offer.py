"""SDP offers: the sections that are accepted, and the answer to the whole offer.

A call uses one audio section and one data section. All others, such as video, are refused in their
place with port 0 (RFC 3264, 6). Before an accepted section is parsed, lines that a call does not
need are removed from it: other codecs, candidates that cannot be reached.
"""

import ipaddress
import re

import msgspec
from aiortc import RTCIceCandidate
from aiortc.sdp import MediaDescription, SessionDescription, candidate_from_sdp

from vivavoce.errors import InvalidRequest

MAX_BYTES = 128 * 1024
MAX_SECTIONS = 64
MAX_LINES = 500  # lines of an accepted section: aiortc's parser takes time quadratic in them
MAX_CANDIDATES = 20  # candidates of a section: each is an address to which packets are sent
MAX_MESSAGE_BYTES = 256 * 1024
"""The largest message on the data channel, the same that browsers offer."""
MISSING = "missing_required_parameter"
_OPUS = re.compile(r"a=rtpmap:(\d{1,3}) opus/48000/2\s*$", re.IGNORECASE)
_CODEC_LINE = re.compile(r"a=(?:rtpmap|fmtp):(\d+) ")
_CANDIDATE = re.compile(r"a=candidate:\S+ 1 udp \d+ ([0-9a-f.:]+) \d+ typ ", re.IGNORECASE)
_MID = re.compile(r"[!-~]{0,32}")
_REMOVED = re.compile(r"a=(mid\b|candidate:|rtcp:|rtcp-fb:|ssrc-group:|extmap:\S+ \S+ )")
"""Lines that are added again from elsewhere, or not needed, and that may fail to parse."""
_DIRECTIONS = frozenset({"a=sendrecv", "a=sendonly", "a=recvonly", "a=inactive"})


class Section(msgspec.Struct, frozen=True):
    """A section of a description: its lines, from "m=" on."""

    lines: tuple[str, ...]

    @property
    def kind(self) -> str:
        return self.lines[0][2:].partition(" ")[0]

    @property
    def mid(self) -> str:
        return next((line[6:] for line in self.lines if line.startswith("a=mid:")), "")

    @property
    def is_open(self) -> bool:
        """Port 0 refuses a section, unless it is bundle-only (RFC 9143, 6)."""
        return self._words[1:2] != ["0"] or "a=bundle-only" in self.lines

    @property
    def opus(self) -> frozenset[str]:
        """The payload types of Opus."""
        found = (_OPUS.match(line) for line in self.lines)
        return frozenset(match[1] for match in found if match) & set(self._words[3:])

    @property
    def carries_events(self) -> bool:
        return self.kind == "application" and "SCTP" in self.lines[0]

    def refusal_lines(self) -> list[str]:
        """The lines that refuse it in an answer."""
        words = self._words
        first = " ".join((words[0], "0", *words[2:]))
        return [first, "c=IN IP4 0.0.0.0", "a=inactive", *self._mid_lines]

    def accepted_lines(self) -> list[str]:
        """The lines that a call needs."""
        opus, words = self.opus, self._words
        if self.kind == "audio":
            words = words[:3] + [word for word in words[3:] if word in opus]
        lines = [" ".join(words), *self._mid_lines]
        for line in self.lines[1:]:
            codec = _CODEC_LINE.match(line)
            if not _REMOVED.match(line) and (codec is None or codec[1] in opus):
                lines.append(line)
        if self.kind == "audio" and not _DIRECTIONS.intersection(lines):
            lines.append("a=sendrecv")  # RFC 8866, 6.7.1
        return lines + [line for line in self.lines if _CANDIDATE.match(line)][:MAX_CANDIDATES]

    @property
    def _mid_lines(self) -> list[str]:
        return [f"a=mid:{self.mid}"] if self.mid else []

    @property
    def _words(self) -> list[str]:
        return self.lines[0].split()


class SdpOffer(msgspec.Struct, frozen=True):
    """A valid offer."""

    sections: tuple[Section, ...]
    accepted: tuple[int, ...]
    """The indexes of the accepted sections."""
    bundled: tuple[str, ...]
    """The mids of the accepted sections that share one connection."""
    sdp: str
    """An offer of the accepted sections alone."""

    @property
    def mids(self) -> dict[str, str]:
        """The mids of the accepted sections, by their kind."""
        return {self.sections[n].kind: self.sections[n].mid for n in self.accepted}

    def mid_at(self, index: int) -> str | None:
        """The mid of a section by its number in the whole offer; None: it was refused."""
        return self.sections[index].mid if index in self.accepted else None

    def answered(self, answer: str) -> str:
        """The answer to the whole offer, given the answer to `sdp`."""
        head, sections = _split(answer)
        group = f"a=group:BUNDLE {' '.join(self.bundled)}"
        lines = [
            group if line.startswith("a=group:") else line
            for line in head
            if self.bundled or not line.startswith("a=group:")
        ]
        answers = iter(sections)
        for number, section in enumerate(self.sections):
            lines += next(answers).lines if number in self.accepted else section.refusal_lines()
        return "\r\n".join(map(_with_max_message_size, lines)) + "\r\n"


def read(offer: str) -> SdpOffer:
    """Check an offer. Raises InvalidRequest, which names what is missing."""
    if not offer.strip():
        raise InvalidRequest("Missing required parameter: 'sdp'.", code=MISSING, param="sdp")
    if len(offer) > MAX_BYTES:
        raise _refused(f"it has {len(offer)} characters, more than {MAX_BYTES}")
    head, sections = _split(offer)
    if not sections or not head[0].startswith("v="):
        raise _refused("it is not valid SDP")
    if len(sections) > MAX_SECTIONS:
        raise _refused(f"it has {len(sections)} sections, more than {MAX_SECTIONS}")
    accepted = _accepted(sections)
    for number in accepted:
        if (count := len(sections[number].lines)) > MAX_LINES:
            kind = sections[number].kind
            raise _refused(f"its {kind} section has {count} lines, more than {MAX_LINES}")
    mids = [sections[number].mid for number in accepted]
    if len(set(mids)) < len(mids) or not all(_MID.fullmatch(mid) for mid in mids):
        raise _refused("its sections need an a=mid, short and each its own")
    group = next((line for line in head if line.startswith("a=group:BUNDLE")), "")
    bundled = [mid for mid in dict.fromkeys(group.split()[1:]) if mid in mids]
    lines = [line for line in head if not line.startswith("a=group:")]
    lines += [f"a=group:BUNDLE {' '.join(bundled)}"] if bundled else []
    for number in accepted:
        lines += sections[number].accepted_lines()
    checked = SdpOffer(tuple(sections), accepted, tuple(bundled), "\r\n".join(lines) + "\r\n")
    _check(checked.sdp)
    return checked


def read_candidate(text: str) -> RTCIceCandidate | None:
    """An ICE candidate as browsers write it; None: it is not one that a call can use."""
    line = f"a={text.removeprefix('a=')}"
    if (found := _CANDIDATE.match(line)) is None:
        return None
    try:
        ipaddress.ip_address(found[1])
        return candidate_from_sdp(line.partition(":")[2])
    except (AssertionError, ValueError):
        return None


def _accepted(sections: list[Section]) -> tuple[int, ...]:
    kinds = ", ".join(section.kind for section in sections)
    audio = [n for n, s in enumerate(sections) if s.kind == "audio" and s.is_open]
    if not audio:
        raise _refused(f"it must have an audio section; it has: {kinds}")
    with_opus = [n for n in audio if sections[n].opus]
    if not with_opus:
        raise _refused("its audio section does not offer Opus (opus/48000/2)")
    events = [n for n, s in enumerate(sections) if s.carries_events and s.is_open]
    return tuple(sorted(with_opus[:1] + events[:1]))


def _check(sdp: str) -> None:
    try:
        media = SessionDescription.parse(sdp).media
    except Exception as exc:  # aiortc's parser raises many types
        raise _refused("it is not valid SDP") from exc
    for section in media:
        if section.dtls is None or not section.dtls.fingerprints:
            raise _refused(f"its {section.kind} section lacks a=setup or a=fingerprint")
        if not (section.ice and section.ice.usernameFragment and section.ice.password):
            raise _refused(f"its {section.kind} section lacks a=ice-ufrag or a=ice-pwd")
        if section.kind == "application" and not _has_port(section):
            raise _refused("its application section lacks a=sctp-port")


def _has_port(section: MediaDescription) -> bool:
    """Whether there is an SCTP port, in the syntax of RFC 8841 or the older one."""
    if section.profile == "DTLS/SCTP":
        port = section.fmt[0]
        return str(port).isdecimal() and 0 < int(port) < 65536
    return 0 < (section.sctp_port or 0) < 65536


def _split(sdp: str) -> tuple[list[str], list[Section]]:
    """The lines before the first section, and the sections."""
    head: list[str] = []
    sections: list[list[str]] = []
    for line in map(str.rstrip, sdp.splitlines()):
        if line.startswith("m="):
            sections.append([line])
        elif line:
            (sections[-1] if sections else head).append(line)
    return head or [""], [Section(tuple(lines)) for lines in sections]


def _with_max_message_size(line: str) -> str:
    if line.startswith("a=max-message-size:"):
        return f"a=max-message-size:{MAX_MESSAGE_BYTES}"
    return line


def _refused(why: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid 'sdp': {why}.", param="sdp")
