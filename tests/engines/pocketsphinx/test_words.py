from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from vivavoce.engines.pocketsphinx.words import StableWords
from vivavoce.engines.worker import HeardWord


def words(text: str, *, each_ms: int = 300) -> list[HeardWord]:
    return [HeardWord(word, i * each_ms, (i + 1) * each_ms) for i, word in enumerate(text.split())]


def texts(heard: tuple[HeardWord, ...]) -> str:
    return " ".join(word.text for word in heard)


def test_words_are_stable_when_old_and_repeated() -> None:
    stable = StableWords(lag_ms=1000, agreeing=3)
    promised = []
    for now_ms in (1000, 1200, 1400, 1600):
        stable.update(words("ten of clubs"), now_ms)
        promised.append(stable.stable)
    assert promised == [0, 0, 1, 2]


def test_changing_word_keeps_later_words_unstable() -> None:
    stable = StableWords(lag_ms=0, agreeing=2)
    stable.update(words("go four word"), 5000)
    stable.update(words("go for word"), 5000)
    assert stable.stable == 1


def test_stable_words_stay_when_the_last_hypothesis_differs() -> None:
    stable = StableWords(lag_ms=0, agreeing=1)
    stable.update(words("ten of"), 600)
    assert texts(stable.settle(words("can love clubs"))) == "ten of clubs"


def test_word_whose_border_moved_stays_a_later_word() -> None:
    stable = StableWords(lag_ms=0, agreeing=1)
    stable.update([HeardWord("ten", 0, 300)], 300)
    settled = stable.settle([HeardWord("then", 0, 280), HeardWord("of", 280, 500)])
    assert settled == (HeardWord("ten", 0, 300), HeardWord("of", 300, 500))


def test_settled_words_are_all_stable() -> None:
    stable = StableWords(lag_ms=1000, agreeing=3)
    stable.settle(words("hello world"))
    assert stable.stable == 2


@given(
    st.lists(st.lists(st.sampled_from(["a", "b", "c"]), max_size=6).map(" ".join), max_size=12),
    st.integers(100, 400),
)
def test_stable_words_never_change(hypotheses: list[str], each_ms: int) -> None:
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
