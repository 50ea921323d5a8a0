"""`python -m ndactors.cli`, the same as `nextdeploy`."""

import sys

from .main import main

sys.exit(main())
