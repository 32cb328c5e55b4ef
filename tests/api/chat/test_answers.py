"""Earlier answers, known by their ids for a while."""

from vivavoce.api.chat.audio import SpokenAnswers


def test_answer_grows_and_expires() -> None:
    now = [1000.5]
    answers = SpokenAnswers(kept_s=60, wall_clock=lambda: now[0])
    answer_id, expires_at = answers.begin()
    assert expires_at == 1060
    answers.add(answer_id, "Hello ")
    answers.add(answer_id, "there.")
    now[0] = 1059.9
    assert answers.transcript(answer_id) == "Hello there."
    now[0] = 1060.0
    assert answers.transcript(answer_id) is None


def test_oldest_answers_are_dropped_when_too_many() -> None:
    answers = SpokenAnswers(max_answers=2)
    ids = [answers.begin()[0] for _ in range(3)]
    assert [answers.transcript(i) for i in ids] == [None, "", ""]


def test_oldest_answers_are_dropped_when_too_long() -> None:
    answers = SpokenAnswers(max_characters=10)
    first, second = answers.begin()[0], answers.begin()[0]
    answers.add(first, "123456")
    answers.add(second, "12345")
    answers.add(first, "of a forgotten one")
    assert [answers.transcript(i) for i in (first, second)] == [None, "12345"]
