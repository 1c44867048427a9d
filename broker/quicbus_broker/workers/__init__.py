"""Several broker processes on one UDP port: see docs/design/workers.md."""
