"""Every pass of every graph compiled in the tests is verified, and run before and after (level 2)."""

import os

os.environ.setdefault("TRACEGRAD_CHECK", "2")
