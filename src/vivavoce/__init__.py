"""Vivavoce: a self-hosted real-time voice server."""
