"""zenoh's router as a process: a session in mode `router`. `python -m benchmarks.peers.zenoh_router JSON`."""

from __future__ import annotations

import signal
import sys

import zenoh


def main() -> None:
    with zenoh.open(zenoh.Config.from_json5(sys.argv[1])):
        print("ready", flush=True)  # the harness waits for it
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    main()
