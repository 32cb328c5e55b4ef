"""Measurements of the server as its users meet it. `python -m bench` runs them all."""
