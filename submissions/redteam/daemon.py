"""A daemon stays behind to edit results later.

class: 62
reason: E_SURVIVOR
run: test
device: any
"""

import subprocess

from _honest import honest


def custom_kernel(data):
    subprocess.Popen(["sleep", "300"], start_new_session=True)
    return honest(data)
