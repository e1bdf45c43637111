"""``python -m gnnscript``."""

import sys

from gnnscript.cli import main

sys.exit(main())
