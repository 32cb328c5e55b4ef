import pytest

from vivavoce.errors import SettingsError
from vivavoce.limits.keys import KeyRing, hash_of, key_of

ADA = key_of(bytes(32))
BOB = key_of(bytes(range(32)))


def test_a_key_is_known_by_its_hash_and_does_not_show_itself() -> None:
    ring = KeyRing({"ada": hash_of(ADA), "bob": hash_of(BOB)})
    assert ring.name_of(ADA.reveal()) == "ada"
    assert ring.name_of(BOB) == "bob"
    assert ring.name_of("vv-00") is None
    assert len(ring) == 2
    assert ADA.reveal() not in f"{ADA} {ADA!r} {hash_of(ADA)} {vars(ring)}"


def test_an_empty_ring_knows_nobody() -> None:
    assert KeyRing({}).name_of("") is None


def test_a_key_in_place_of_its_hash_is_refused_without_being_repeated() -> None:
    with pytest.raises(SettingsError) as caught:
        KeyRing({"ada": ADA.reveal()})
    assert str(caught.value) == (
        "[keys] ada is not the hash of a key; make one with: vivavoce keys new ada"
    )
