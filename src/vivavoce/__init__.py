"""Vivavoce: a self-hosted real-time voice server."""

__all__ = ["__version__"]

__version__ = "0.1.0"
