"""``python -m attune``."""

import sys

from attune.command import main

sys.exit(main())
