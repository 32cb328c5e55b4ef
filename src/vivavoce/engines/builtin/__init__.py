"""What the rule-based conversation partner knows, a noun a file. Pure: no clock, no I/O."""
