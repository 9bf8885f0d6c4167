"""`python -m vppaio`."""

import sys

from vppaio.cli import main

sys.exit(main())
