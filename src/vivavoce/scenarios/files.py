"""Scenario files, TOML: what the user does, step by step, and what has to come of it.

name = "Tool round trip"

[tools.get_weather]
output = {sky = "sunny", degrees = 21}

[[steps]]
says = "What is the weather in Rome?"
expect = {tool_call = "get_weather", said = "21 degrees", first_audio_ms = 1500}
"""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

import msgspec
from msgspec import Meta

from vivavoce.errors import SettingsError

Texts: TypeAlias = str | tuple[str, ...]
Milliseconds: TypeAlias = Annotated[int, Meta(ge=0, le=3_600_000)]
MAX_STEPS: Final = 200
ACTIONS: Final = ("says", "types", "clip", "sends", "silence_ms")


def texts(given: Texts) -> tuple[str, ...]:
    """One text or several, as several."""
    if isinstance(given, str):
        return (given,) if given else ()
    return given


class StepExpectation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What has to come of a step. Words are compared without letter case and punctuation."""

    said: Texts = ()
    """Words of the answer, all of these."""
    not_said: Texts = ()
    heard: str = ""
    """What the server should have understood of the user."""
    max_word_errors: Annotated[float, Meta(ge=0, le=1)] = 0.25
    """Wrong, missing and added words for each word of `heard`."""
    tool_call: str = ""
    """A function that is called."""
    arguments: dict[str, Any] = {}
    """Some of its arguments, at least."""
    event: str = ""
    """The type of an event of the server, which is waited for."""
    fields: dict[str, Any] = {}
    """Some of its fields, at least; tables are compared likewise."""
    interrupted: bool | None = None
    """Whether the user's next speech has to end this answer, or must not."""
    error: str = ""
    """Text of an error that is wanted; every other error of the server fails the step."""
    first_audio_ms: Milliseconds | None = None
    """The longest time from the end of the user's turn to the first sound of the answer."""
    stop_ms: Milliseconds | None = None
    """Of a step that interrupts: from the start of its speech until nothing more comes of the
    answer before it."""
    answer_ms: Milliseconds | None = None
    """From the end of the user's turn to the end of the last response."""
    judge: Texts = ()
    """Sentences about this step that a language model has to find true."""


class ScenarioStep(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the user does: one of says, types, clip, sends and silence_ms."""

    says: str = ""
    types: str = ""
    clip: str = ""
    """A sound file beside the scenario, or a kind of the clip library: "two_questions"."""
    sends: dict[str, Any] = {}
    """Any event of a client, as a table with `type`."""
    silence_ms: Milliseconds = 0
    voice: str = ""
    """The voice of `says` and `clip` in this step; empty: that of the scenario."""
    interrupts_after: str = ""
    """The step begins when the user has heard these words of the answer before it."""
    interrupts_after_ms: Milliseconds = 0
    """The step begins when the user has heard so much of the answer before it."""
    waits: bool | None = None
    """Whether the step lasts until its answer is complete and was played. By default a step waits
    that speaks or types and that the next one does not interrupt."""
    within: Annotated[float, Meta(gt=0, le=3600)] = 30.0
    """Seconds for the whole step."""
    expect: StepExpectation = StepExpectation()

    def __post_init__(self) -> None:
        given = [name for name in ACTIONS if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(
                f"a step has one of {', '.join(ACTIONS)}; this one has "
                f"{' and '.join(given) or 'none'}"
            )

    @property
    def interrupts(self) -> bool:
        """Whether it begins in the answer before it."""
        return bool(self.interrupts_after or self.interrupts_after_ms)

    @property
    def text(self) -> str:
        """What the user says, as a report shows it."""
        if self.sends:
            return str(self.sends.get("type", "(no type)"))
        silence = f"(silent for {self.silence_ms} ms)" if self.silence_ms else ""
        return self.says or self.types or (f"(clip {self.clip})" if self.clip else silence)


class ScenarioTool(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[tools.NAME]: a function of the application, and its output each time it is called."""

    output: Any = ""
    """A text, or a table, which is given as JSON."""
    description: str = ""
    parameters: dict[str, Any] = {}
    """Their JSON schema. Empty: there are none."""
    delay_ms: Milliseconds = 0
    """Before the output is given."""
    declared: bool = True
    """Whether session.update declares it. False: the server knows it already."""


class ScenarioUser(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[user]: after the steps a language model speaks for the user, until the goal is reached."""

    goal: str
    """What the user wants: "Book a table for two on Friday at eight." """
    manner: str = ""
    """How the user speaks: "in a hurry, changes the day once"."""
    max_turns: Annotated[int, Meta(ge=1, le=50)] = 8
    within: Annotated[float, Meta(gt=0, le=3600)] = 30.0
    """Seconds for one turn."""


class ScenarioLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[limits]: of the whole conversation."""

    first_audio_ms_p50: Milliseconds | None = None
    """The median over all answers."""
    first_audio_ms_max: Milliseconds | None = None
    usd: Annotated[float, Meta(ge=0)] | None = None
    """What the tokens of all responses cost, by the price table."""
    seconds: Annotated[float, Meta(gt=0)] | None = None


class ScenarioFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A whole file."""

    name: str = ""
    """The name in reports; empty: that of the file."""
    about: str = ""
    model: str = ""
    """The model to ask for; --model takes precedence."""
    voice: str = ""
    """The voice of the user; --voice takes precedence."""
    session: dict[str, Any] = {}
    """Settings of session.update."""
    tools: dict[str, ScenarioTool] = {}
    steps: Annotated[tuple[ScenarioStep, ...], Meta(max_length=MAX_STEPS)] = ()
    user: ScenarioUser | None = None
    limits: ScenarioLimits = ScenarioLimits()
    judge: Texts = ()
    """Sentences about the conversation that a language model has to find true."""
    price_model: str = ""
    """The model of the price table; by default the one that the session names."""

    def __post_init__(self) -> None:
        if not self.steps and self.user is None:
            raise ValueError("a scenario has [[steps]], or a [user] with a goal")
        for place, step in enumerate(self.steps, 1):
            if step.interrupts and place == 1:
                raise ValueError("the first step has no answer before it to interrupt")

    @property
    def is_spoken(self) -> bool:
        """Whether the user is heard."""
        return self.user is not None or any(s.says or s.clip or s.silence_ms for s in self.steps)

    def waits(self, place: int) -> bool:
        """Whether that step lasts until its answer is complete."""
        step = self.steps[place]
        if step.waits is not None:
            return step.waits
        interrupted = place + 1 < len(self.steps) and self.steps[place + 1].interrupts
        speaks = bool(step.says or step.types or step.clip)
        return not interrupted and (speaks or step.sends.get("type") == "response.create")


def read_scenario(path: Path) -> ScenarioFile:
    """Raises SettingsError, which names the file, the place and the mistake."""
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as exc:
        raise SettingsError(f"the scenario {path} cannot be read: {exc.strerror}") from exc
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise SettingsError(f"the scenario {path} is not TOML: {exc}") from exc
    if not tree.keys() & {"steps", "user"}:
        raise SettingsError(
            f"{path} is no scenario, which has [[steps]], or a [user] with a goal; "
            f"examples/flows has some"
        )
    try:
        scenario = msgspec.convert(tree, ScenarioFile)
    except msgspec.ValidationError as exc:
        raise SettingsError(f"{path}: {exc}") from exc
    return msgspec.structs.replace(scenario, name=scenario.name or path.stem)
