"""The evaluator's files are overwritten at import. It passes if it can write beside them.

class: 59
reason: E_IMPORT
run: test
device: any
"""

import importlib.util
import pathlib

from _honest import honest

beside = pathlib.Path(importlib.util.find_spec("reference").origin).with_name("redteam-was-here")
beside.write_text("reference.py could have been overwritten")  # refused, or this file would pass
beside.unlink()


def custom_kernel(data):
    return honest(data)
