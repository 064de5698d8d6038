"""`python -m tests.chaos`: plays histories, see `director`, which starts `lane`.

Both run under this name, because a trainer imports the main module of its parent unless its name
is `__main__`.
"""

import sys

from tests.chaos import director, lane

if sys.argv[1:2] == ["lane"]:
    lane.main(sys.argv[2])
else:
    director.main()
