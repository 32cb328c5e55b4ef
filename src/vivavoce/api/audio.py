"""The audio endpoints of OpenAI's API, models and voices, and the description of all of them."""

import time
from collections.abc import Callable

from aiohttp import web

from vivavoce.api.models import ModelRoutes
from vivavoce.api.openapi import ReferenceRoutes
from vivavoce.api.speech import SpeechRoutes
from vivavoce.api.transcription import TranscriptionRoutes
from vivavoce.runtime.sessions import ServerContext


class AudioRoutes:
    """Opens them for the models of a house."""

    def __init__(
        self, house: ServerContext, *, version: str, wall_clock: Callable[[], float] = time.time
    ) -> None:
        voice = house.models.models[house.models.default_model].default_voice
        self._speech = SpeechRoutes(house.catalog, voice)
        self._transcription = TranscriptionRoutes(house.catalog, most_bytes=house.max_upload_bytes)
        self._models = ModelRoutes(house.catalog, voice, wall_clock)
        self._reference = ReferenceRoutes(version)

    def add_to(self, app: web.Application) -> None:
        for door in (self._speech, self._transcription, self._models, self._reference):
            door.add_to(app)
