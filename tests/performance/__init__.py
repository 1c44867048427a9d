"""The regression guard: what a thousand messages cost in counts that no machine changes. `limits.py` is the table."""
