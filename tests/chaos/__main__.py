"""`python -m tests.chaos`: plays histories, see `director`; `lane` is what that starts.

Both under this name, because a trainer imports its parent's main module unless it is a
`__main__`.
"""

import sys

from tests.chaos import director, lane

if sys.argv[1:2] == ["lane"]:
    lane.main(sys.argv[2])
else:
    director.main()
