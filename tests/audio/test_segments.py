import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.audio.segments import (
    Segment,
    Segmenter,
    SegmentSettings,
    SpeechRules,
    speech_segments,
)

PROBABILITIES = {".": 0.0, ",": 0.4, "-": 0.6, "#": 1.0}

# A window is 100 ms; at most ten in a segment; four quiet ones end it, one is left on either side.
SETTINGS = SegmentSettings(max_seconds=1.0, pause_seconds=0.4, padding_seconds=0.1)


def segmenter() -> Segmenter:
    return Segmenter(100, 1_000, SETTINGS)


def drawn(heard: str) -> str:
    """Each segment between [ and ], its windows as they were heard."""
    cutting = segmenter()
    found = cutting.feed(PROBABILITIES[each] for each in heard) + cutting.flush()
    for segment in reversed(found):
        start, end = segment.start // 100, segment.end // 100
        heard = f"{heard[:start]}[{heard[start:end]}]{heard[end:]}"
    return heard


@pytest.mark.parametrize(
    ("heard", "cut"),
    [
        ("", ""),
        ("........", "........"),
        ("...##......", "..[.##.]....."),
        ("##", "[##]"),
        ("#.", "[#.]"),
        ("...#", "..[.#]"),
        ("..#...##......", ".[.#...##.]....."),  # three quiet windows do not end it
        ("..##....##...", ".[.##.]..[.##.].."),  # four do
        ("#.#.#", "[#.#.#]"),
    ],
)
def test_pauses_end_segments(heard: str, cut: str) -> None:
    assert drawn(heard) == cut


@pytest.mark.parametrize(
    ("heard", "cut"),
    [
        ("##########", "[##########]"),
        ("###########", "[##########][#]"),
        ("#######-####", "[#######][-####]"),  # before what is least like speech
        ("#######-##-####", "[#######-##][-####]"),
        ("#######.####", "[#######.][####]"),  # a pause at least
        ("#####.#..####", "[#####.#.][.####]"),  # the longest
        ("#####.##.####", "[#####.##.][####]"),  # the latest of the longest
        ("#..######.####", "[#..######.][####]"),  # in the second half
        ("####...######", "[####.].[.######]"),  # it may reach back into the first
        ("########..####", "[########.][.####]"),
        ("#########..##", "[#########.][.##]"),
        ("##########.##", "[##########][.##]"),
        ("#########,####", "[#########,][####]"),
    ],
)
def test_endless_speech_is_cut_in_its_longest_pause(heard: str, cut: str) -> None:
    assert drawn(heard) == cut


def test_bounds_are_counted_in_samples() -> None:
    cutting = Segmenter()  # windows of 32 ms at 16 kHz
    assert cutting.feed([0.1] * 100 + [0.9] * 50) == []
    assert cutting.feed([0.1] * 31) == [Segment((100 - 6) * 512, (150 + 6) * 512)]
    assert cutting.flush() == []


def test_long_speech_is_cut_into_half_minutes() -> None:
    cutting = Segmenter()
    lecture = ([0.9] * 100 + [0.1] * 15) * 100  # 3.2 s, a pause of half a second, ...
    found = cutting.feed(lecture) + cutting.flush()
    lengths = [(segment.end - segment.start) / 16_000 for segment in found]
    assert all(20 < length <= 30 for length in lengths[:-1])
    assert len(found) == 13


def test_needed_from_says_what_can_be_dropped() -> None:
    cutting = segmenter()
    assert cutting.needed_from == 0
    cutting.feed([0.0] * 5)
    assert cutting.needed_from == 400
    cutting.feed([1.0, 1.0])
    assert cutting.needed_from == 400
    assert cutting.feed([0.0] * 4) == [Segment(400, 800)]
    assert cutting.needed_from == 1_000


@given(
    heard=st.lists(st.floats(0, 1), max_size=300),
    cuts=st.lists(st.integers(0, 300), max_size=5),
    most=st.floats(0.0, 5.0),
    pause=st.floats(0.0, 3.0),
    padding=st.floats(0.0, 3.0),
)
def test_all_speech_is_in_ordered_bounded_segments(
    heard: list[float], cuts: list[int], most: float, pause: float, padding: float
) -> None:
    settings = SegmentSettings(max_seconds=most, pause_seconds=pause, padding_seconds=padding)
    cutting = Segmenter(100, 1_000, settings)
    found: list[Segment] = []
    needed = 0
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(heard)], strict=True):
        new = cutting.feed(heard[start:end])
        assert all(segment.start >= needed for segment in new)
        found += new
        assert needed <= cutting.needed_from <= 100 * len(heard)
        needed = cutting.needed_from
    found += cutting.flush()

    bounds = [bound for segment in found for bound in (segment.start, segment.end)]
    assert bounds == sorted(bounds)
    assert all(0 <= bound <= 100 * len(heard) for bound in bounds)
    assert all(100 <= segment.end - segment.start <= max(400, 1_000 * most) for segment in found)
    inside = [range(segment.start // 100, segment.end // 100) for segment in found]
    speech = {at for at, probability in enumerate(heard) if probability >= 0.5}
    assert speech <= {at for windows in inside for at in windows}
    assert all(speech & set(windows) for windows in inside)

    whole = Segmenter(100, 1_000, settings)
    assert whole.feed(heard) + whole.flush() == found


def marked(heard: str, **rules: float) -> str:
    """Each window of 100 ms: s where it is in a segment."""
    given = SpeechRules(threshold=0.5, **{"min_silence_seconds": 0.3, **rules})
    found = speech_segments(
        [PROBABILITIES[each] for each in heard],
        given,
        samples=len(heard) * 100,
        window_samples=100,
        sample_rate=1_000,
    )
    marks = ["."] * len(heard)
    for segment in found:
        assert segment.start < segment.end
        for at in range(segment.start // 100, segment.end // 100):
            assert marks[at] == ".", "segments overlap"
            marks[at] = "s"
    return "".join(marks)


@pytest.mark.parametrize(
    ("heard", "rules", "found"),
    [
        ("", {}, ""),
        ("....", {}, "...."),
        (".##..#...", {}, ".sssss..."),  # two quiet windows do not end it
        (".##...#..", {}, ".ss...s.."),  # three do
        (",##,,,..", {}, ".sssss.."),  # between the two thresholds nothing changes
        (",##,,,..", {"silence_threshold": 0.45}, ".ss....."),
        (",##,,,..", {"silence_threshold": 0.9}, ".ss....."),  # it is the lower of the two
        (".#...##..", {"min_speech_seconds": 0.2}, ".....ss.."),
        (".##......#.", {"padding_seconds": 0.2}, "sssss..ssss"),
        (".##...#..", {"padding_seconds": 0.2}, "sssssssss"),  # half of the silence each
        ("#####", {"max_speech_seconds": 2.0}, "sssss"),
    ],
)
def test_speech_segments_follow_the_rules(heard: str, rules: dict[str, float], found: str) -> None:
    assert marked(heard, **rules) == found


def test_speech_longer_than_the_limit_is_cut_in_its_last_pause_or_at_the_limit() -> None:
    def parts(heard: str) -> list[tuple[int, int]]:
        rules = SpeechRules(0.5, min_silence_seconds=0.3, max_speech_seconds=0.5)
        found = speech_segments(
            [PROBABILITIES[each] for each in heard],
            rules,
            samples=len(heard) * 100,
            window_samples=100,
            sample_rate=1_000,
        )
        return [(segment.start // 100, segment.end // 100) for segment in found]

    assert parts("##.#.###") == [(0, 4), (5, 8)]
    assert parts("########") == [(0, 5), (5, 8)]
    assert parts("####..##") == [(0, 4), (6, 8)]


@given(
    st.text("".join(PROBABILITIES), max_size=60),
    st.floats(0, 0.5),
    st.one_of(st.none(), st.floats(0.1, 1.0)),
)
def test_speech_segments_are_ordered_and_within_the_recording(
    heard: str, padding: float, most: float | None
) -> None:
    rules = SpeechRules(0.5, padding_seconds=padding, max_speech_seconds=most)
    samples = max(0, len(heard) * 100 - 30)
    found = speech_segments(
        [PROBABILITIES[each] for each in heard],
        rules,
        samples=samples,
        window_samples=100,
        sample_rate=1_000,
    )
    bounds = [bound for segment in found for bound in (segment.start, segment.end)]
    assert bounds == sorted(bounds)
    assert all(0 <= bound <= samples for bound in bounds)
