"""`python -m milon_cli` is the `milon` command."""

import sys

from .app import main

sys.exit(main())
