"""Fuzzing of every parser that reads a peer's bytes: targets, the corpus, and what runs them (`make fuzz`)."""
