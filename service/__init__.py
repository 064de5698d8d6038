"""Serving: HTTP and SQL. Importing the package makes no app and reads no environment."""

import os
import sys

if os.getpid() == 1:  # in a container
    import signal

    # The kernel ignores a signal to process 1 that has no handler: until the service has its own,
    # SIGTERM ends it at once.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
