"""What a client offers: the part of it that is taken up, and the answer to all of it.

One section of sound and one of data make a call. Whatever else is offered, such as video, is
refused in its place with port 0, as RFC 3264 (6) has it. What is taken up is cut down to what a
call needs before it is parsed: foreign codecs, addresses that lead nowhere.
"""

import re
from dataclasses import dataclass

from aiortc.sdp import MediaDescription, SessionDescription

from vivavoce.errors import InvalidRequest

MOST_BYTES = 128 * 1024
MOST_SECTIONS = 64
MOST_LINES = 500  # of a section that is taken up: a parser takes the square of them
MOST_CANDIDATES = 20  # of a section: each is an address to which packets are sent
MOST_MESSAGE_BYTES = 256 * 1024
"""Of one event on the data channel: what browsers offer themselves."""
MISSING = "missing_required_parameter"
_OPUS = re.compile(r"a=rtpmap:(\d{1,3}) opus/48000/2\s*$", re.IGNORECASE)
_OF_A_CODEC = re.compile(r"a=(?:rtpmap|fmtp):(\d+) ")
_CANDIDATE = re.compile(r"a=candidate:\S+ 1 udp \d+ ([0-9a-f.:]+) \d+ typ ", re.IGNORECASE)
_NAME = re.compile(r"[!-~]{0,32}")
_IDLE = re.compile(r"a=(mid\b|candidate:|rtcp:|rtcp-fb:|ssrc-group:|extmap:\S+ \S+ )")
"""Lines that come from elsewhere, or that a call does without and a parser may stumble over."""
_DIRECTIONS = frozenset({"a=sendrecv", "a=sendonly", "a=recvonly", "a=inactive"})


@dataclass(frozen=True, slots=True)
class Section:
    """Its lines, from "m=" on."""

    lines: tuple[str, ...]

    @property
    def kind(self) -> str:
        return self.lines[0][2:].partition(" ")[0]

    @property
    def mid(self) -> str:
        return next((line[6:] for line in self.lines if line.startswith("a=mid:")), "")

    @property
    def is_open(self) -> bool:
        """Port 0 means that it is not, unless it is only a part of a bundle (RFC 9143)."""
        return self._words[1:2] != ["0"] or "a=bundle-only" in self.lines

    @property
    def opus(self) -> frozenset[str]:
        """The payload types that are Opus."""
        found = (_OPUS.match(line) for line in self.lines)
        return frozenset(match[1] for match in found if match) & set(self._words[3:])

    @property
    def carries_events(self) -> bool:
        return self.kind == "application" and "SCTP" in self.lines[0]

    def refused(self) -> list[str]:
        """The answer that there is no use for it."""
        words = self._words
        first = " ".join((words[0], "0", *words[2:]))
        return [first, "c=IN IP4 0.0.0.0", "a=inactive", *self._named]

    def cut(self) -> list[str]:
        """The lines that a call needs."""
        opus, words = self.opus, self._words
        if self.kind == "audio":
            words = words[:3] + [word for word in words[3:] if word in opus]
        lines = [" ".join(words), *self._named]
        for line in self.lines[1:]:
            codec = _OF_A_CODEC.match(line)
            if not _IDLE.match(line) and (codec is None or codec[1] in opus):
                lines.append(line)
        if self.kind == "audio" and not _DIRECTIONS.intersection(lines):
            lines.append("a=sendrecv")  # RFC 8866, 6.7.1
        return lines + [line for line in self.lines if _CANDIDATE.match(line)][:MOST_CANDIDATES]

    @property
    def _named(self) -> list[str]:
        return [f"a=mid:{self.mid}"] if self.mid else []

    @property
    def _words(self) -> list[str]:
        return self.lines[0].split()


@dataclass(frozen=True, slots=True)
class SdpOffer:
    """An offer of which a call can be made."""

    sections: tuple[Section, ...]
    taken: tuple[int, ...]
    """Which of them a call is made of, in their order."""
    bundled: tuple[str, ...]
    """The names of those that share one connection."""
    sdp: str
    """What is taken up, as an offer of its own."""

    def answered(self, answer: str) -> str:
        """The answer to the whole, from the one to what is taken up."""
        head, sections = _split(answer)
        group = f"a=group:BUNDLE {' '.join(self.bundled)}"
        lines = [
            group if line.startswith("a=group:") else line
            for line in head
            if self.bundled or not line.startswith("a=group:")
        ]
        answers = iter(sections)
        for number, section in enumerate(self.sections):
            lines += next(answers).lines if number in self.taken else section.refused()
        return "\r\n".join(map(_larger, lines)) + "\r\n"


def read(offer: str) -> SdpOffer:
    """What can be made of an offer. Raises InvalidRequest, which says what is missing."""
    if not offer.strip():
        raise InvalidRequest("Missing required parameter: 'sdp'.", code=MISSING, param="sdp")
    if len(offer) > MOST_BYTES:
        raise _refused(f"it has {len(offer)} characters, more than {MOST_BYTES}")
    head, sections = _split(offer)
    if not sections or not head[0].startswith("v="):
        raise _refused("it is not valid SDP")
    if len(sections) > MOST_SECTIONS:
        raise _refused(f"it has {len(sections)} sections, more than {MOST_SECTIONS}")
    taken = _taken(sections)
    for number in taken:
        if (count := len(sections[number].lines)) > MOST_LINES:
            kind = sections[number].kind
            raise _refused(f"its {kind} section has {count} lines, more than {MOST_LINES}")
    mids = [sections[number].mid for number in taken]
    if len(set(mids)) < len(mids) or not all(_NAME.fullmatch(mid) for mid in mids):
        raise _refused("its sections need an a=mid, short and each its own")
    group = next((line for line in head if line.startswith("a=group:BUNDLE")), "")
    bundled = [mid for mid in dict.fromkeys(group.split()[1:]) if mid in mids]
    lines = [line for line in head if not line.startswith("a=group:")]
    lines += [f"a=group:BUNDLE {' '.join(bundled)}"] if bundled else []
    for number in taken:
        lines += sections[number].cut()
    made = SdpOffer(tuple(sections), taken, tuple(bundled), "\r\n".join(lines) + "\r\n")
    _check(made.sdp)
    return made


def _taken(sections: list[Section]) -> tuple[int, ...]:
    kinds = ", ".join(section.kind for section in sections)
    sounds = [n for n, s in enumerate(sections) if s.kind == "audio" and s.is_open]
    if not sounds:
        raise _refused(f"it must have an audio section; it has: {kinds}")
    with_opus = [n for n in sounds if sections[n].opus]
    if not with_opus:
        raise _refused("its audio section does not offer Opus (opus/48000/2)")
    events = [n for n, s in enumerate(sections) if s.carries_events and s.is_open]
    return tuple(sorted(with_opus[:1] + events[:1]))


def _check(sdp: str) -> None:
    try:
        media = SessionDescription.parse(sdp).media
    except Exception as exc:  # it raises whatever the lines of strangers lead to
        raise _refused("it is not valid SDP") from exc
    for section in media:
        if section.dtls is None or not section.dtls.fingerprints:
            raise _refused(f"its {section.kind} section lacks a=setup or a=fingerprint")
        if not (section.ice and section.ice.usernameFragment and section.ice.password):
            raise _refused(f"its {section.kind} section lacks a=ice-ufrag or a=ice-pwd")
        if section.kind == "application" and not _has_port(section):
            raise _refused("its application section lacks a=sctp-port")


def _has_port(section: MediaDescription) -> bool:
    """As it is said now, or as it was before RFC 8841."""
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


def _larger(line: str) -> str:
    if line.startswith("a=max-message-size:"):
        return f"a=max-message-size:{MOST_MESSAGE_BYTES}"
    return line


def _refused(why: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid 'sdp': {why}.", param="sdp")
