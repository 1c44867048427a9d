"""Attacks on a broker process while good clients use it: `make abuse` measures them, `make test` runs small ones."""
