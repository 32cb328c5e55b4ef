"""Moderation: a function or an HTTP webhook checks what users say, and the answers.

The conversation does not wait for the verdict, so audio is not delayed. An answer is checked
sentence by sentence, so that the rest of it can still be stopped.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Annotated, Literal, Protocol

import msgspec
from msgspec import Meta

from vivavoce.protocol.items import InputText, Message
from vivavoce.protocol.server import ItemAdded, OutputTextDelta, OutputTranscriptDelta, ResponseDone
from vivavoce.runtime.tools import webhook_or_entry_point
from vivavoce.secret import conceal
from vivavoce.session.effects import Close, Effect, Send
from vivavoce.session.facts import ContentBlocked, Fact, TranscriptUpdated, UpstreamEventReceived

log = logging.getLogger(__name__)

GROUP = "vivavoce.moderation"
"""The group of entry points; each has the name of its table."""
MAX_CHECKS = 16
"""The most checks of one session at the same time; a further text counts as a failed check."""
MAX_PIECE_CHARACTERS = 400
"""A longer sentence of an answer is checked in pieces of this length."""
_SENTENCE_ENDS = (".", "!", "?", "\n", "\u3002", "\uff01", "\uff1f", "\u0964")
_DELTAS = ("response.output_audio_transcript.delta", "response.output_text.delta")
_TRANSCRIBED = "conversation.item.input_audio_transcription.completed"


class ModerationSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[moderation.NAME]: the check of a policy that names it."""

    url: str = ""
    """The address of a webhook.

    Empty: the entry point `vivavoce.moderation` of that name is used.
    """
    secret: str = ""
    """Sent to the webhook as a bearer token."""
    timeout_seconds: Annotated[float, Meta(gt=0, le=60)] = 2.0
    say: str = "I'm sorry, I can't talk about that."
    """Said if a text is blocked and the verdict has no sentence of its own. Empty: nothing."""
    block_on_failure: bool = False
    """Whether a text is blocked if its check fails or takes too long."""

    def __post_init__(self) -> None:
        if self.url and not self.url.startswith(("http://", "https://")):
            raise ValueError("url is the address of a webhook, http:// or https://")
        conceal(self, "secret")


class ModeratedText(msgspec.Struct, frozen=True):
    """A text to be checked: the argument of a function, or the JSON that a webhook gets."""

    role: Literal["user", "assistant"]
    text: str
    session_id: str
    key: str
    """The name of the API key that opened the session; "" without keys."""


class Verdict(msgspec.Struct, frozen=True):
    """The result of a check: an object, a dict or JSON text with these fields."""

    action: Literal["allow", "block", "end"] = "allow"
    """block: the answer ends, and the user's item is deleted; end: the session ends."""
    say: str = ""
    """Said in the voice of the session; empty: the sentence of the settings."""


class CheckText(Protocol):
    """The type that an entry point names: it is called for each text, and several calls may run at
    a time."""

    def __call__(self, text: ModeratedText) -> Awaitable[object]: ...


class Moderation(msgspec.Struct, frozen=True):
    """A check and its settings."""

    name: str
    function: CheckText
    settings: ModerationSettings

    async def check(self, text: ModeratedText) -> Verdict:
        """Check a text. A failure gives a verdict, too: see `block_on_failure`."""
        try:
            async with asyncio.timeout(self.settings.timeout_seconds):
                given = await self.function(text)
            if isinstance(given, str):
                return msgspec.json.decode(given, type=Verdict)
            return msgspec.convert(given, Verdict, from_attributes=True)
        except TimeoutError:
            log.warning(
                "moderation %r took longer than %g s", self.name, self.settings.timeout_seconds
            )
        except Exception as exc:  # noqa: BLE001  foreign code: it ends no session
            log.warning("moderation %r failed: %s", self.name, exc)
        return self.failed

    @property
    def failed(self) -> Verdict:
        """The verdict if a check fails."""
        return Verdict("block" if self.settings.block_on_failure else "allow")


class Moderator:
    """An observer that has the texts of one session checked, and reports to it what is blocked."""

    post: Callable[[Fact], None]
    """Passes a fact to the session. Set before the session begins."""

    def __init__(self, moderation: Moderation, session_id: str, key: str) -> None:
        self._moderation = moderation
        self._session_id = session_id
        self._key = key
        self._tasks: set[asyncio.Task[None]] = set()
        self._pieces: dict[str, str] = {}  # incomplete sentences of answers, by response
        self._over = False

    def on(self, fact: Fact | None, effects: list[Effect], now: float) -> None:
        match fact:
            case TranscriptUpdated(key=key, text=text, final=True):
                self._check("user", text, item_id=key.item_id)
            case UpstreamEventReceived(event=event):
                if event.type in _DELTAS:
                    self._add(event.response_id, event.delta)
                elif event.type == _TRANSCRIBED:
                    self._check("user", event.transcript or "", item_id=event.item_id)
                elif event.type == "response.done" and event.response:
                    self._flush(event.response.id)
        for effect in effects:
            match effect:
                case Send(event=OutputTranscriptDelta() | OutputTextDelta() as delta):
                    self._add(delta.response_id, delta.delta)
                case Send(event=ResponseDone(response=response)):
                    self._flush(response.id)
                case Send(event=ItemAdded(item=Message(role="user") as item)):
                    texts = [part.text for part in item.content if isinstance(part, InputText)]
                    self._check("user", "\n".join(texts), item_id=item.id)
                case Close():
                    self._over = True

    def leave(self) -> None:
        """The session has ended, or was refused. Never waits."""
        self._over = True
        for task in self._tasks:
            task.cancel()

    def _add(self, response_id: str, delta: str) -> None:
        piece = self._pieces.get(response_id, "") + delta
        self._pieces[response_id] = piece
        if len(piece) > MAX_PIECE_CHARACTERS or piece.rstrip(" \"')").endswith(_SENTENCE_ENDS):
            self._flush(response_id)

    def _flush(self, response_id: str) -> None:
        self._check("assistant", self._pieces.pop(response_id, ""))

    def _check(self, role: Literal["user", "assistant"], text: str, *, item_id: str = "") -> None:
        if not text.strip() or self._over:
            return
        if len(self._tasks) >= MAX_CHECKS:
            log.warning("%s: too many texts wait for moderation", self._session_id)
            self._apply(self._moderation.failed, item_id)
            return
        asked = ModeratedText(role, text, self._session_id, self._key)
        task = asyncio.get_running_loop().create_task(self._run(asked, item_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, text: ModeratedText, item_id: str) -> None:
        verdict = await self._moderation.check(text)
        self._apply(verdict, item_id)

    def _apply(self, verdict: Verdict, item_id: str) -> None:
        if verdict.action == "allow" or self._over:
            return
        log.info("%s: moderation: %s", self._session_id, verdict.action)
        say = verdict.say or self._moderation.settings.say
        asyncio.get_running_loop().call_soon(
            self.post, ContentBlocked(item_id, say, ends=verdict.action == "end")
        )


async def built_moderation(
    settings: Mapping[str, ModerationSettings], stack: AsyncExitStack
) -> dict[str, Moderation]:
    """The checks by name; they are entered on the stack. Raises SettingsError."""
    found: dict[str, Moderation] = {}
    for name, each in settings.items():
        function = await webhook_or_entry_point(GROUP, "moderation", name, each, stack)
        found[name] = Moderation(name, function, each)
    return found
