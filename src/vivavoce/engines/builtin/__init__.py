"""`llm:builtin`: answers by fixed rules, for a first run without a model."""
