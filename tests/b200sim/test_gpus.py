"""What a simulated GPU says of itself, and that it is the one that was asked for."""

from __future__ import annotations

import pytest
import torch

from b200sim.device import SimulatedDevice
from b200sim.gpus import B200, GPUS, H200


def test_clusters_that_an_h200_holds_at_a_time():
    """As cuOccupancyMaxActiveClusters said on one, for a kernel that takes a whole SM."""
    assert {size: H200.max_active_clusters(size) for size in (1, 2, 4)} == {1: 132, 2: 66, 4: 30}


@pytest.mark.parametrize("gpu", GPUS.values(), ids=list(GPUS))
def test_the_map_of_sms_is_complete(gpu):
    assert sum(gpu.gpc_sms) == gpu.sm_count


@pytest.mark.parametrize("count", [0, -1, 149])
def test_no_more_sms_than_there_are(count):
    with pytest.raises(ValueError, match=f"{count} SMs; a simulated B200 has 1 to 148"):
        B200.with_sms(count)


def test_an_h200_to_the_process_that_has_it():
    import cutlass
    from cuda.bindings import driver

    with SimulatedDevice(gpu=H200.with_sms(6)):
        properties = torch.cuda.get_device_properties(0)
        assert (properties.name, properties.major, properties.minor) == ("NVIDIA H200", 9, 0)
        assert properties.multi_processor_count == 6
        assert properties.shared_memory_per_block_optin == 227 * 1024
        assert torch.cuda.get_device_capability() == (9, 0)
        assert torch.cuda.get_device_name() == "NVIDIA H200"
        assert cutlass.utils.HardwareInfo(0).get_max_active_clusters(2) == 3
        major = driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
        assert driver.cuDeviceGetAttribute(major, driver.cuDeviceGet(0)[1])[1] == 9
