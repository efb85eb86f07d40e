"""``python -m tdcompress``: the command line, also from a checkout that is not installed."""

import sys

from tdcompress.cli import main

sys.exit(main())
