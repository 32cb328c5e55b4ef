from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from vivavoce.engines.pocketsphinx.words import HeardWord, StableWords


def words(text: str, *, each_ms: int = 300) -> list[HeardWord]:
    return [HeardWord(word, i * each_ms, (i + 1) * each_ms) for i, word in enumerate(text.split())]


def texts(heard: tuple[HeardWord, ...]) -> str:
    return " ".join(word.text for word in heard)


def test_words_are_promised_when_they_are_old_and_were_repeated() -> None:
    stable = StableWords(lag_ms=1000, agreeing=3)
    promised = []
    for now_ms in (1000, 1200, 1400, 1600):
        stable.update(words("ten of clubs"), now_ms)
        promised.append(stable.stable)
    assert promised == [0, 0, 1, 2]


def test_a_word_that_keeps_changing_holds_back_those_after_it() -> None:
    stable = StableWords(lag_ms=0, agreeing=2)
    stable.update(words("go four word"), 5000)
    stable.update(words("go for word"), 5000)
    assert stable.stable == 1


def test_a_promise_is_kept_when_the_last_hypothesis_says_otherwise() -> None:
    stable = StableWords(lag_ms=0, agreeing=1)
    stable.update(words("ten of"), 600)
    assert texts(stable.settle(words("can love clubs"))) == "ten of clubs"


def test_a_word_whose_border_moved_a_little_is_still_a_later_word() -> None:
    stable = StableWords(lag_ms=0, agreeing=1)
    stable.update([HeardWord("ten", 0, 300)], 300)
    settled = stable.settle([HeardWord("then", 0, 280), HeardWord("of", 280, 500)])
    assert settled == (HeardWord("ten", 0, 300), HeardWord("of", 300, 500))


def test_settling_promises_everything() -> None:
    stable = StableWords(lag_ms=1000, agreeing=3)
    stable.settle(words("hello world"))
    assert stable.stable == 2


@given(
    st.lists(st.lists(st.sampled_from(["a", "b", "c"]), max_size=6).map(" ".join), max_size=12),
    st.integers(100, 400),
)
def test_whatever_is_heard_no_promise_is_broken(hypotheses: list[str], each_ms: int) -> None:
    stable = StableWords(lag_ms=200, agreeing=2)
    promised: tuple[str, ...] = ()
    for step, hypothesis in enumerate(hypotheses):
        spoken = words(hypothesis, each_ms=each_ms)
        last = step == len(hypotheses) - 1
        heard = stable.settle(spoken) if last else stable.update(spoken, step * 300)
        said = tuple(word.text for word in heard)
        assert said[: len(promised)] == promised
        assert all(a.end_ms <= b.end_ms for a, b in pairwise(heard))
        promised = said[: stable.stable]
