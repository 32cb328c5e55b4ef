"""Words that trail off are not a finished turn; questions, commands and answers are."""

import asyncio

import pytest

from vivavoce.engines.turn.text import likelihood
from vivavoce.engines.turn.words import WordsSettings, WordsTurn
from vivavoce.testing.conformance import check_turn

UNFINISHED = """
and | but | because | so | okay so | well | um | so um | hmm | yeah um | the | it's | like
i want to go to the | i would like | i would like to | i'd like | my name is | i want | we need
i need a | book a table for | set an alarm for | tell me about | give me | tell me | i mean
what is the | what is the weather in | what about | how about | how do i | where can i | what if
can you | can you please | could you tell me | do you | is there | are there | let me
i was wondering | i think | she said that | it is kind of | the problem is | and then | yes and
when does the
no but | let me see | hold on | just a second | i don't like the | because i | for example
my email is john at | wait, | i was... | my name is, | i would like to. | turn on the
if it rains tomorrow | when i get home | i need to call my | one of | a lot of | and i
"""

FINISHED = """
yes | no | okay | stop | yeah | no no no | yes exactly | um yes | well no | hello | hello there
thank you | thanks | goodbye | please | yes please | no thank you | never mind | hang up
what time is it | where are you from | what are you talking about | how are you | who is she
what does it look like | what is it for | what is the capital of france | what do you want
what is your name | how much is it | can you help me | hey can you hear me | who are you
could you tell me the time please | is it going to rain | do you have any vegetarian dishes
okay so what is the capital of france | turn the lights on | turn off the light | play some jazz
set a timer for five minutes | call my mother | tell me a joke | remind me to call mum
do you deliver on sundays
tell me more about yourself | repeat that | stop it | spell it | i would like a coffee please
i think so | i don't know | that's all | why not | yes i am | that's right | see you later
i want a pizza. | It is raining! | and you? | i'm fine thanks | not really
it is john at gmail dot com | when does the shop close | when is it due
"""

UNDECIDED = """
i am | i don't know what it is | a large pizza | london | tomorrow morning at ten
i live in new york | five
"""

DICTATED = """
my number is five five five | four one five | oh seven seven | 555 12 | s m i t h | 5 5 5.
double seven three | it is 0 1 7 1
"""

OTHERS = [
    ("de", "ich möchte", False),
    ("de", "mein name ist", False),
    ("de", "ich hätte gerne eine", False),
    ("de", "und", False),
    ("de", "ähm", False),
    ("de", "wie spät ist es", True),
    ("de", "ja bitte", True),
    ("de", "mach das licht an", True),
    ("de", "vielen dank", True),
    ("fr", "je voudrais", False),
    ("fr", "je m'appelle", False),
    ("fr", "est-ce que", False),
    ("fr", "je pense à l'", False),
    ("fr", "quelle heure est-il", True),
    ("fr", "un café s'il vous plaît", True),
    ("fr", "D\u2019accord", True),
    ("es", "me gustaría", False),
    ("es", "mi nombre es", False),
    ("es", "quiero ir a la", False),
    ("es", "qué hora es", True),
    ("es", "¿Dónde está la estación?", True),
    ("es", "un café por favor", True),
    ("it", "vorrei", False),
    ("it", "mi chiamo", False),
    ("it", "vado dall'", False),
    ("it", "che ore sono adesso", True),
    ("it", "va bene", True),
    ("it", "un caffè per favore", True),
]


def examples(table: str) -> list[str]:
    return [text.strip() for line in table.strip().splitlines() for text in line.split("|")]


@pytest.mark.parametrize("text", examples(UNFINISHED))
def test_incomplete_words_are_not_finished(text: str) -> None:
    assert likelihood(text, "en") <= 0.35


@pytest.mark.parametrize("text", examples(FINISHED))
def test_questions_commands_and_answers_are_finished(text: str) -> None:
    assert likelihood(text, "en") >= 0.8


@pytest.mark.parametrize("text", examples(UNDECIDED))
def test_other_words_are_undecided(text: str) -> None:
    assert 0.5 <= likelihood(text, "en") <= 0.6


@pytest.mark.parametrize("text", examples(DICTATED))
def test_number_digit_by_digit_is_not_finished(text: str) -> None:
    assert likelihood(text, "en") == 0.3


@pytest.mark.parametrize(
    "text", ["five five five oh one double two three four six", "415 555 0199"]
)
def test_whole_telephone_number_may_be_finished(text: str) -> None:
    assert likelihood(text, "en") == 0.6


@pytest.mark.parametrize(("language", "text", "done"), OTHERS)
def test_other_languages_have_their_lexicon(language: str, text: str, done: bool) -> None:
    assert (likelihood(text, language) >= 0.8, likelihood(text, language) <= 0.35) == (
        done,
        not done,
    )


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("xx", "and the", 0.5),
        ("ja", "ありがとう", 0.5),
        ("ja", "元気ですか\uff1f", 0.95),
        ("sv", "jag heter Eva.", 0.85),
        ("sv", "jag heter...", 0.05),
        ("en-US", "and the", 0.05),
        ("EN_gb", "and the", 0.05),
        ("en", "", 0.3),
        ("en", "  ", 0.3),
        ("en", "?", 0.95),
        ("en", "*", 0.5),
    ],
)
def test_unknown_language_is_decided_by_punctuation(
    language: str, text: str, expected: float
) -> None:
    assert likelihood(text, language) == expected


def test_question_mark_behind_a_dangling_word_says_little() -> None:
    assert likelihood("Is there a?", "en") == likelihood("Remind me to?", "en") == 0.07
    assert likelihood("Is there, ah?", "en") == likelihood("Um?", "en") == 0.07
    assert likelihood("Huh?", "en") == likelihood("Nice, eh?", "en") == 0.95
    assert likelihood("What is it for?", "en") == 0.95


def test_comma_says_little_behind_words_that_could_be_all() -> None:
    assert likelihood("Tomorrow at three,", "en") == likelihood("Yes,", "en") == 0.35
    assert likelihood("So, um,", "en") == 0.025
    assert likelihood("Demain à trois heures,", "xx") == 0.35


def test_what_the_problem_is_must_follow() -> None:
    assert likelihood("The problem is that.", "en") == likelihood("He told me that,", "en") == 0.05
    assert likelihood("What kind of bird is that?", "en") == 0.95


def test_condition_is_complete_with_its_second_clause() -> None:
    assert likelihood("If it rains tomorrow, then.", "en") == 0.05
    assert likelihood("If it rains tomorrow, then we will stay at home.", "en") == 0.85
    assert likelihood("If we go to the beach in the rain tomorrow", "en") == 0.5


def test_number_that_something_is_may_go_on() -> None:
    assert likelihood("My address is twelve.", "en") == 0.2
    assert likelihood("Meine Nummer ist zwölf", "de") == 0.2
    assert likelihood("A table for two.", "en") == 0.85


def test_case_and_punctuation_do_not_hide_a_dangling_word() -> None:
    assert likelihood("I would like to.", "en") == likelihood("i would like to", "en")


def test_words_conforms_to_the_contract_and_uses_its_default_language() -> None:
    async def main() -> list[float]:
        async with WordsTurn(WordsSettings(default_language="de")) as turn:
            await check_turn(turn)
            return [
                await turn.score("ich möchte", language=None),
                await turn.score("ich möchte", language="en"),
                await turn.score("i would like", language="en"),
            ]

    assert asyncio.run(main()) == [0.05, 0.5, 0.05]
