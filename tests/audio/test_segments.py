import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.audio.segments import Segment, Segmenter, SegmentSettings

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
