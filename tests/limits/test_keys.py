import pytest

from vivavoce.errors import SettingsError
from vivavoce.limits.keys import KeyRing, hash_of, key_of

ADA = key_of(bytes(32))
BOB = key_of(bytes(range(32)))


def test_key_is_found_by_its_hash_and_not_shown() -> None:
    ring = KeyRing({"ada": hash_of(ADA), "bob": hash_of(BOB)})
    assert ring.name_of(ADA.reveal()) == "ada"
    assert ring.name_of(BOB) == "bob"
    assert ring.name_of("vv-00") is None
    assert len(ring) == 2
    assert ADA.reveal() not in f"{ADA} {ADA!r} {hash_of(ADA)} {vars(ring)}"


def test_empty_key_ring_knows_no_key() -> None:
    assert KeyRing({}).name_of("") is None


def test_key_in_place_of_a_hash_is_refused_without_repeating_it() -> None:
    with pytest.raises(SettingsError) as caught:
        KeyRing({"ada": ADA.reveal()})
    assert str(caught.value) == (
        "[keys] ada is not the hash of a key; make one with: vivavoce keys new ada"
    )


@pytest.mark.parametrize("key", ["", "\udcff", "clé", "vv-" + "0" * 100_000])
def test_text_that_is_not_a_key_has_no_name(key: str) -> None:
    assert KeyRing({"ada": hash_of(ADA)}).name_of(key) is None
