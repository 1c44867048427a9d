"""`quicbus doctor`: what goes wrong in practice, looked at one by one. It changes nothing and begins in `command`."""
