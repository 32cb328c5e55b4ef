"""Which item ids a client may not use."""

from vivavoce.session.reserve import OwnIds


def test_ids_that_the_session_makes_are_its_own_before_and_after() -> None:
    reserve = OwnIds("7f")
    assert reserve.holds("item_7f00001")
    assert reserve.holds("item_7f1abcde")


def test_any_other_id_is_free() -> None:
    reserve = OwnIds("7f.")
    for item_id in ("", "item_1", "item_7f.0001", "item_7fx00001", "msg_7f.00001", "item_7f.0000z"):
        assert not reserve.holds(item_id), item_id


def test_the_id_of_an_item_that_was_deleted_may_be_used_again() -> None:
    reserve = OwnIds("7f")
    reserve.release("item_7f00001")
    reserve.release("mine")
    assert not reserve.holds("item_7f00001")
    assert reserve.holds("item_7f00002")
