"""`python -m lightune`."""

import sys

from lightune.cli import main

sys.exit(main())
