"""The import never ends.

class: 74
reason: E_TIMEOUT
run: test
device: any
"""

while True:
    pass
