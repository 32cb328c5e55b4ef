"""Every error this package raises on purpose.

* VoiceError
    * InvalidRequest   the client broke the protocol; the session goes on
    * EngineError      an engine failed; the response is lost, the session goes on
        * EngineLost       its process or connection died; a retry may succeed
        * NoSound          it cannot read this text; it works otherwise
    * Unauthorized     the key is missing or invalid; the client is refused
    * LimitReached     the server is full; the session closes
    * QuotaExceeded    a budget of the owner is spent; the session closes
    * SettingsError    the operator's configuration is wrong; the server does not start
        * EngineNotUsable  something that an engine needs is missing on this machine
    * StoreError       a store cannot be reached; the session goes on
        * StorageFull      its disk is full
    * AudioError       an audio file cannot be read; the caller says so and goes on
    * RecordingError   a recorded call cannot be read; the command ends
"""


class VoiceError(Exception):
    """Base of every error above."""


class InvalidRequest(VoiceError):
    """The client sent something the protocol does not allow here.

    `code` and `param` are those of the wire's `error` event; `event_id` is the client's own, where
    it could be read. `rule` names the rule of the operator that forbids it; "": the protocol does.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str | None = "invalid_value",
        param: str | None = None,
        event_id: str | None = None,
        rule: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.rule = rule
        self.code = code
        self.param = param
        self.event_id = event_id


class EngineError(VoiceError):
    """An engine could not do its work. The message is shown to the client: no secrets in it."""

    def __init__(self, message: str = "", *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        """Seconds after which the same request may succeed; None: it is not known to."""


class EngineLost(EngineError):
    """The process of an engine or the connection to it died; a retry may succeed."""


class NoSound(EngineError):
    """A synthesiser cannot read this text: its script, for example. Another one may."""


class Unauthorized(VoiceError):
    """The key of a request is missing or invalid. The message does not repeat the key."""


class LimitReached(VoiceError):
    """The server, or a part of it, has as much work as it takes."""


class QuotaExceeded(VoiceError):
    """A budget, or the number of sessions or requests of a key, is used up."""


class SettingsError(VoiceError):
    """The configuration is wrong. The message names the place and the remedy."""


class EngineNotUsable(SettingsError):
    """An engine lacks a package, its weights, or the right to use them. Another may serve."""


class StoreError(VoiceError):
    """A store could not be reached or written to. The message names it and the reason."""


class StorageFull(StoreError):
    """A store cannot be written to, because its disk is full. The message has the remedy."""


class AudioError(VoiceError):
    """Bytes that claim to be audio and are not. The message names the source and the reason."""


class RecordingError(VoiceError):
    """A recorded call cannot be read. The message names the file and the remedy."""
