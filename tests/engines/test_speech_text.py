# ruff: noqa: RUF001  signs are the subject here
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.engines.speech_text import (
    named_signs,
    says_something,
    script_language,
    spoken_language,
    spoken_text,
)

MARKED = st.text("ab1 \n*_#`~<>|-[](){}!\\@/.:😀é你\ud800=+")


def squeezed(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("Two is 5 * 4 here.", "Two is 5 × 4 here."),
        ("2*3 = 6, 2*3*4", "2×3 = 6, 2×3×4"),
        ("a * b and a*b and f(x)*g(y)", "a × b and a×b and f(x)×g(y)"),
        ("2**8", "2^ 8"),
        ("I write C# and F#.", "I write C# and F#."),
        ("We are #1, see #topic.", "We are #1, see #topic."),
        ("About ~5 minutes, ~$20, ~ 3", "About ≈5 minutes, ≈$20, ≈ 3"),
        ("1~5", "1–5"),
        ("a < b, a<c, c > b", "a < b, a<c, c > b"),
        ("x <= y >= z != w -> v", "x ≤ y ≥ z ≠ w → v"),
        ("50% of 3 × 4 + 1 & 2", "50% of 3 × 4 + 1 & 2"),
        ("dial *123#", "dial *123#"),
        ("> 5 apples", "> 5 apples"),
        ("List<int> in ~/dir", "List<int> in ~/dir"),
        ("well-known -- and 5-3 or -5", "well-known -- and 5-3 or -5"),
        ("john_doe@x.com, https://a.b/c_d~e#f", "john_doe@x.com, https://a.b/c_d~e#f"),
    ],
)
def test_sign_with_a_meaning_is_kept(text: str, spoken: str) -> None:
    assert squeezed(spoken_text(text)) == spoken


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("**bold**, *soft* and `code`_", "bold , soft and code"),
        ("I have 5 *very* good", "I have 5 very good"),
        ("cut **in", "cut in"),
        ("two* halves", "two halves"),
        ("这是*重点*内容 你好~", "这是 重点 内容 你好"),
        ("# Title\n---\ntext", "Title text"),
        ("* one\n- two\n+ three\n- [x] four\n1. five", "one two three four 1. five"),
        ("> quoted\n>> twice", "quoted twice"),
        ("[a link](https://x.y/z_a) ![a picture](x.png)", "a link a picture"),
        ("<https://x.y> <b>now</b><br/>", "https://x.y now"),
        ("| Name | Age |\n|------|:---:|\n| Bob | 5 |", "Name , Age Bob , 5"),
        ("```python\nx = 1\n```", "x = 1"),
        ("~~gone~~ my_var __init__", "gone my var init"),
        ("5 \\* 4 and 1\\. no list", "5 × 4 and 1 . no list"),
        ("fine 🙂👍🏽 1️⃣!", "fine 1 !"),
        ("half \ud800 a pair, a\x00b\x01c", "half a pair, a b c"),
        ("dash --- dash", "dash dash"),
    ],
)
def test_markdown_emoji_and_control_characters_are_left_out(text: str, spoken: str) -> None:
    assert squeezed(spoken_text(text)) == spoken


@given(MARKED | st.text())
def test_length_and_line_feeds_never_change(text: str) -> None:
    spoken = spoken_text(text)
    assert len(spoken) == len(text)
    assert [i for i, c in enumerate(spoken) if c == "\n"] == [
        i for i, c in enumerate(text) if c == "\n"
    ]


@given(MARKED)
def test_letters_outside_of_links_and_tags_are_all_kept(text: str) -> None:
    plain = text.replace("[", "").replace("<", "").replace("`", "").replace("~", "")
    kept = [c for c in spoken_text(plain) if c.isalnum()]
    assert kept == [c for c in plain if c.isalnum()]


@pytest.mark.parametrize("unit", ["*", "- ", "\n", "a", "*a ", "[](", "<a ", "| ", "> ", "~", "_@"])
def test_long_runs_of_marks_take_linear_steps(unit: str) -> None:
    # The time-out of the suite ends a quadratic one: 400,000 characters.
    assert len(spoken_text(unit * (400_000 // len(unit)))) == 400_000 // len(unit) * len(unit)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a", True),
        ("5", True),
        ("%", True),
        ("你", True),
        ("...", False),
        ("—", False),
        (" ", False),
    ],
)
def test_letters_digits_and_named_signs_say_something(text: str, says: bool) -> None:
    assert says_something(text) is says


@pytest.mark.parametrize(
    ("text", "language", "named"),
    [
        ("5 × 4", "en-us", "5 times 4"),
        ("5 × 4", "de", "5 mal 4"),
        ("5 × 4", "ru", "5 × 4"),
        ("a < b > c", "en_GB", "a less than b greater than c"),
        ("C# is #1", "en", "C sharp is number 1"),
        ("≈5 or 1–3", "fr", "environ 5 or 1 à 3"),
        ("2^8", "es", "2 elevado a 8"),
        ("plain", "en", "plain"),
    ],
)
def test_named_signs_has_words_for_signs(text: str, language: str, named: str) -> None:
    assert squeezed(named_signs(text, language).text) == named


@given(st.text("ab1 ×≈<>≤≥≠→–^#♯C"))
def test_named_signs_maps_positions_back_in_order(text: str) -> None:
    named = named_signs(text, "en")
    spans = [named.original(i, i + 1) for i in range(len(named.text))]
    assert spans == sorted(spans)
    assert {start for start, _ in spans} == set(range(len(text)))
    assert all(
        named.text[i] == text[start] or text[start] in "×≈<>≤≥≠→–^#♯"
        for i, (start, _) in enumerate(spans)
    )


SCRIPTS = [
    ("مرحبا بالعالم", "ar"),
    ("سلام چطوری", "fa"),
    ("你好，世界。今天天气很好。", "zh"),
    ("こんにちは世界", "ja"),
    ("OpenAIを使う", "ja"),
    ("안녕하세요", "ko"),
    ("שלום עולם", "he"),
    ("สวัสดีชาวโลก", "th"),
    ("Γειά σου Κόσμε", "el"),
    ("Привет мир", "ru"),
    ("Привіт, як їхати", "uk"),
    ("नमस्ते दुनिया", "hi"),
    ("Hello 世", None),
    ("Das Wort Привет heißt Hallo", None),
    ("größer", None),
    ("12 + 3", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "language"), SCRIPTS)
def test_script_tells_the_language(text: str, language: str | None) -> None:
    assert script_language(text) == language


@pytest.mark.parametrize(
    ("text", "language", "spoken"),
    [
        ("Привет", "en", "ru"),
        ("Привет", None, "ru"),
        ("Здравей", "bg", "bg"),
        ("日本語", "ja-JP", "ja-JP"),
        ("日本語", "en", "zh"),
        ("こんにちは", "zh", "ja"),
        ("hello", "ja", "ja"),
        ("hello", None, None),
    ],
)
def test_language_gives_way_only_to_another_script(
    text: str, language: str | None, spoken: str | None
) -> None:
    assert spoken_language(text, language) == spoken


@given(st.text())
def test_any_text_has_a_script_or_none(text: str) -> None:
    assert spoken_language(text, None) == script_language(text)


@given(st.text(alphabet="AZaz09 ,.;:?!'\"()"))
def test_text_without_marks_is_spoken_as_it_is(text: str) -> None:
    assert spoken_text(text) == text
