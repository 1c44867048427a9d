"""`python -m quicbus_cli` is `quicbus`."""

import sys

from quicbus_cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
