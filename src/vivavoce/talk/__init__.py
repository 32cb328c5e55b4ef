"""`vivavoce talk`, a terminal client for any Realtime server, and `vivavoce demo`."""
