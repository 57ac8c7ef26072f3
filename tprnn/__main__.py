"""`python -m tprnn` is `tprnn`."""

import sys

from tprnn.cli import main

sys.exit(main())
