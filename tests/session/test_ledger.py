from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from vivavoce.session.facts import SpokenWord
from vivavoce.session.ledger import MAX_PIECES, Ledger, SavedLedger


def a_ledger() -> Ledger:
    """Three words of a hundred samples each, in two pieces of sound."""
    ledger = Ledger()
    ledger.add(b"\x01\x00" * 150, (SpokenWord("Good ", 0), SpokenWord("morning, ", 100)))
    ledger.add(b"\x02\x00" * 150, (SpokenWord("Ada. ", 200),))
    return ledger


def test_answer_counts_as_heard_whole_unless_it_was_cut() -> None:
    ledger = a_ledger()
    assert ledger.heard is None
    assert ledger.heard_text == ledger.text == "Good morning, Ada. "
    assert ledger.heard_audio == b"\x01\x00" * 150 + b"\x02\x00" * 150


def test_word_was_heard_when_half_of_its_audio_was() -> None:
    ledger = a_ledger()
    for heard, text in [(0, ""), (49, ""), (50, "Good"), (149, "Good"), (150, "Good morning,")]:
        ledger.cut(heard)
        assert ledger.heard_text == text


def test_last_word_lasts_to_the_end_of_the_sound() -> None:
    ledger = a_ledger()
    ledger.cut(249)
    assert ledger.heard_text == "Good morning,"
    ledger.cut(250)
    assert ledger.heard_text == "Good morning, Ada."


def test_cut_answer_shows_only_the_heard_audio() -> None:
    ledger = a_ledger()
    ledger.cut(151)
    assert ledger.heard_audio == b"\x01\x00" * 150 + b"\x02\x00"
    assert ledger.text == "Good morning, Ada. "  # what was said stays known


def test_heard_position_is_bounded_by_the_audio() -> None:
    ledger = a_ledger()
    ledger.cut(9_999)
    assert ledger.heard == 300


def test_words_that_come_after_a_cut_were_not_heard() -> None:
    ledger = a_ledger()
    ledger.cut(300)
    ledger.add(bytes(400), (SpokenWord("How are you? ", 300),))
    assert ledger.heard_text == "Good morning, Ada."
    assert ledger.samples == 500


def test_word_whose_sound_has_not_come_was_not_heard() -> None:
    ledger = Ledger()
    ledger.add(bytes(200), (SpokenWord("Wait ", 0), SpokenWord("there. ", 100)))
    ledger.cut(100)
    assert ledger.heard_text == "Wait"


def test_sound_that_was_given_up_leaves_its_length_and_its_words() -> None:
    ledger = a_ledger()
    ledger.drop_audio()
    ledger.cut(200)
    assert (ledger.samples, ledger.heard_text, ledger.heard_audio) == (300, "Good morning,", b"")


def test_all_pieces_of_a_long_answer_are_kept() -> None:
    ledger = Ledger()
    pieces = [bytes((n % 256, 0)) for n in range(2 * MAX_PIECES + 1)]
    for piece in pieces:
        ledger.add(piece, ())
    assert bytes(ledger.audio) == b"".join(pieces)


def test_audio_behind_dropped_audio_is_not_kept() -> None:
    ledger = a_ledger()
    ledger.drop_audio()
    ledger.add(bytes(200), (SpokenWord("Bye. ", 300),))
    assert (ledger.samples, ledger.heard_audio) == (400, b"")
    restored = Ledger.load(ledger.save())
    restored.add(bytes(200), ())
    assert (restored.samples, restored.heard_audio) == (500, b"")


def test_saved_ledger_has_words_and_lengths_but_no_audio() -> None:
    ledger = a_ledger()
    ledger.cut(150)
    assert ledger.save() == SavedLedger(
        words=(SpokenWord("Good ", 0), SpokenWord("morning, ", 100), SpokenWord("Ada. ", 200)),
        samples=300,
        heard=150,
    )


@st.composite
def ledgers(draw: st.DrawFn) -> Ledger:
    """What a voice may report: words in any order of time, before or after their sound."""
    ledger = Ledger()
    for samples in draw(st.lists(st.integers(0, 300), max_size=6)):
        ats = draw(st.lists(st.integers(0, 1500), max_size=4))
        words = (SpokenWord(f"{draw(st.sampled_from(['ah', 'oh', 'well,']))} ", at) for at in ats)
        ledger.add(bytes(2 * samples), tuple(words))
    return ledger


@given(ledgers(), st.lists(st.integers(0, 2000), min_size=2, max_size=5))
def test_heard_text_is_a_beginning_of_the_answer_and_grows_with_the_heard_position(
    ledger: Ledger, cuts: list[int]
) -> None:
    heard = []
    for cut in sorted(cuts):
        ledger.cut(cut)
        heard.append(ledger.heard_text)
        assert ledger.text.startswith(ledger.heard_text)
        assert len(ledger.heard_audio) == 2 * min(cut, ledger.samples)
    assert all(more.startswith(less) for less, more in pairwise(heard))


@given(ledgers(), st.none() | st.integers(0, 2000))
def test_restored_ledger_goes_on_as_the_original(ledger: Ledger, cut: int | None) -> None:
    if cut is not None:
        ledger.cut(cut)
    restored = Ledger.load(ledger.save())
    for one in (ledger, restored):
        one.add(bytes(20), (SpokenWord("more ", one.samples),))
    assert restored.save() == ledger.save()
    assert restored.heard_text == ledger.heard_text
