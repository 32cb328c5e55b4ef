"""What GET /models answers, read: which models a server has that one can talk with."""

import re

import msgspec

MAX_BYTES = 1 << 20

OURS = "vivavoce"
"""`owned_by` of the models that our own server lists."""

# Whole words of a name, between the marks that names are put together with.
_NOT_FOR_TALK = re.compile(
    r"embed|whisper|rerank|moderation|dall-?e|stable-diffusion|transcribe|minilm|"
    r"(?<![a-z0-9])(tts|stt|asr|bge|gte|e5|clip|image|realtime|kokoro|piper|parakeet|sora|flux|"
    r"babbage|davinci)(?![a-z])",
    re.IGNORECASE,
)


class _Model(msgspec.Struct):
    id: str | None = None
    owned_by: str | None = None


class _Page(msgspec.Struct):
    data: list[_Model] | None = None


_decoder: msgspec.json.Decoder[_Page | list[_Model]] = msgspec.json.Decoder(_Page | list[_Model])


def chat_models(body: bytes) -> list[str]:
    """Names in the server's order; none if it is our own server. Raises ValueError: no such list.

    Names that look like those of embedding, speech or picture models are left out.
    """
    page = _decoder.decode(body)
    models: list[_Model] = (page.data or []) if isinstance(page, _Page) else page
    if any(model.owned_by == OURS for model in models):
        return []
    return [model.id for model in models if model.id and not _NOT_FOR_TALK.search(model.id)]
