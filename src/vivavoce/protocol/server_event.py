"""What every server event has in common."""

import msgspec


class ServerEvent(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Something the server tells."""

    event_id: str
