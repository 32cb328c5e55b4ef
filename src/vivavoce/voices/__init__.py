"""Choosing a voice: blind ratings by people, and automatic measures beside them."""
