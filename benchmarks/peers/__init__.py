"""The same work through quicbus and through other brokers, side by side: `python -m benchmarks.peers`."""
