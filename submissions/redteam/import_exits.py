"""The import ends the process, successfully.

class: 74
reason: E_EXIT
run: test
device: any
"""

import sys

sys.exit(0)
