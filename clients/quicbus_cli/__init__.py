"""The `quicbus` command; it begins in `entry`."""
