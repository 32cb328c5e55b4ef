"""Scenarios as files: conversations with a Realtime server, and what must be true of them."""
