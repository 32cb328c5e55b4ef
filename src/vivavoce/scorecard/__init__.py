"""`vivavoce bench`: how fast a Realtime server answers, and how many sessions it carries."""
