"""Tools for tests of applications and of quicbus itself."""
