"""All instruction families; importing this module fills the registry."""

from b200sim.isa import (  # noqa: F401
    addresses,
    arithmetic,
    async_copy,
    atomics,
    barriers,
    bulk_copy,
    cluster_control,
    control,
    convert,
    floating,
    grid_control,
    logic,
    matrix,
    mbarrier,
    memory,
    moves,
    predicates,
    tcgen05,
    tensormap,
    warp_wide,
)
