"""`python -m serving.engine`."""

import sys

from serving.engine.main import main

sys.exit(main())
