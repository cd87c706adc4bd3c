"""All cases, by subject."""

from __future__ import annotations

import silicon_async
import silicon_barriers
import silicon_bits
import silicon_branches
import silicon_cluster
import silicon_encode
import silicon_lanes
import silicon_order
import silicon_wgmma
from silicon_case import Case
from silicon_encode import EncodeCase

SUBJECTS = (
    silicon_lanes,
    silicon_async,
    silicon_bits,
    silicon_branches,
    silicon_order,
    silicon_barriers,
    silicon_cluster,
    silicon_encode,
    silicon_wgmma,
)


def all_cases() -> list[Case | EncodeCase]:
    found = [case for subject in SUBJECTS for case in subject.cases()]
    names = {case.name for case in found}
    assert len(names) == len(found), "two silicon cases have the same name"
    return found
