from vivavoce.protocol.server import ErrorBody, ErrorEvent, InputAudioCleared
from vivavoce.session.effects import Close, EffectBuffer, Ids, Send


def test_ids_are_of_their_kind_and_never_repeat() -> None:
    ids = Ids("k9")
    made = [ids.next(kind) for kind in ("item", "event", "item")]
    assert made == ["item_k900001", "event_k900002", "item_k900003"]


def test_effects_come_out_once_in_the_order_in_which_they_were_put() -> None:
    buffer = EffectBuffer(Ids("x"))
    cleared = InputAudioCleared(event_id=buffer.event_id())
    buffer.send(cleared)
    buffer.add(Close(1000, "bye"))
    assert buffer.drain() == [Send(cleared), Close(1000, "bye")]
    assert buffer.drain() == []


def test_error_names_the_event_at_fault() -> None:
    buffer = EffectBuffer(Ids("x"))
    buffer.error("No.", code="invalid_value", param="audio", cause="event_of_the_client")
    assert buffer.drain() == [
        Send(
            ErrorEvent(
                event_id="event_x00001",
                error=ErrorBody(
                    type="invalid_request_error",
                    code="invalid_value",
                    message="No.",
                    param="audio",
                    event_id="event_of_the_client",
                ),
            )
        )
    ]


def test_error_of_the_server_names_no_event() -> None:
    buffer = EffectBuffer(Ids("x"))
    buffer.error("The voice broke.", kind="server_error", code="tts_failed")
    body = ErrorBody(
        type="server_error",
        code="tts_failed",
        message="The voice broke.",
        param=None,
        event_id=None,
    )
    assert buffer.drain() == [Send(ErrorEvent(event_id="event_x00001", error=body))]
