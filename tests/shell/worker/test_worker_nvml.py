"""NVML's answers -> device states. The library is a stand-in that speaks pynvml's interface."""

from types import SimpleNamespace

import pynvml
import pytest

from tidegate_worker.adapters.nvml import Nvml
from tidegate_worker.adapters.simulated import SimulatedDevices


class Library:
    """Answers as pynvml would; a name that pynvml lacks, or an unset answer, is an error."""

    def __init__(self, **answers):
        self.answers = {
            "nvmlInit": None,
            "nvmlShutdown": None,
            "nvmlDeviceGetCount": 1,
            "nvmlDeviceGetHandleByIndex": "handle",
            "nvmlDeviceGetUUID": b"GPU-1",
            "nvmlDeviceGetName": "NVIDIA H200",
            "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=30, total=100),
            "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=40, memory=7),
            "nvmlDeviceGetTemperature": 61,
            "nvmlDeviceGetPowerUsage": 250_500,
            "nvmlDeviceGetCurrentClocksThrottleReasons": 0x1 | 0x4 | 0x40,
            "nvmlDeviceGetTotalEccErrors": 2,
            "nvmlEventSetCreate": "events",
            "nvmlDeviceRegisterEvents": None,
            "nvmlEventSetWait_v2": pynvml.NVMLError(pynvml.NVML_ERROR_TIMEOUT),
            **answers,
        }
        self.called = []

    def __getattr__(self, name):
        real = getattr(pynvml, name)
        if name not in self.answers:
            assert not callable(real) or isinstance(real, type), f"no answer for {name}"
            return real

        def ask(*_arguments):
            self.called.append(name)
            answer = self.answers[name]
            if isinstance(answer, list):
                answer = answer.pop(0) if len(answer) > 1 else answer[0]
            if isinstance(answer, pynvml.NVMLError):
                raise answer
            return answer

        return ask


def error(code):
    return pynvml.NVMLError(code)


def test_a_device_is_told_whole_in_the_states_units():
    (device,) = Nvml(Library()).read()
    assert device.to_wire() == {
        "uuid": "GPU-1",
        "name": "NVIDIA H200",
        "simulated": False,
        "memoryUsedBytes": 30,
        "memoryTotalBytes": 100,
        "utilizationRatio": 0.4,
        "temperatureCelsius": 61.0,
        "powerWatts": 250.5,
        "throttleReasons": ["SwPowerCap", "HwThermalSlowdown"],
        "eccErrors": 2,
    }


UNSUPPORTED = [
    ("nvmlDeviceGetMemoryInfo", {"memory_used_bytes", "memory_total_bytes"}),
    ("nvmlDeviceGetUtilizationRates", {"utilization_ratio"}),
    ("nvmlDeviceGetTemperature", {"temperature_celsius"}),
    ("nvmlDeviceGetPowerUsage", {"power_watts"}),
    ("nvmlDeviceGetTotalEccErrors", {"ecc_errors"}),
]


@pytest.mark.parametrize(("question", "absent"), UNSUPPORTED, ids=[u[0] for u in UNSUPPORTED])
def test_what_a_device_does_not_support_is_absent_never_zero(question, absent):
    library = Library(**{question: error(pynvml.NVML_ERROR_NOT_SUPPORTED)})
    (device,) = Nvml(library).read()
    told = {"memory_used_bytes", "memory_total_bytes", "utilization_ratio", "temperature_celsius",
            "power_watts", "ecc_errors"}  # fmt: skip
    assert {name for name in told if getattr(device, name) is None} == absent


def test_no_driver_means_no_devices():
    library = Library(nvmlInit=error(pynvml.NVML_ERROR_DRIVER_NOT_LOADED))
    assert Nvml(library).read() == []


def test_this_machines_own_library_is_asked_without_harm():
    assert isinstance(Nvml().read(), list)


def test_a_lost_device_drops_out_and_nvml_is_asked_anew():
    lost = error(pynvml.NVML_ERROR_GPU_IS_LOST)
    library = Library(nvmlDeviceGetUUID=[b"GPU-1", lost, b"GPU-1"])
    source = Nvml(library)
    assert len(source.read()) == 1
    assert source.read() == []
    assert "nvmlShutdown" in library.called
    assert len(source.read()) == 1
    assert library.called.count("nvmlInit") == 2


def test_an_xid_is_remembered_with_its_device():
    event = SimpleNamespace(device="handle", eventData=79)
    library = Library(nvmlEventSetWait_v2=[event, error(pynvml.NVML_ERROR_TIMEOUT)])
    source = Nvml(library)
    assert [device.xid for device in source.read()] == [79]
    assert [device.xid for device in source.read()] == [79]


def test_a_driver_without_events_still_tells_the_rest():
    library = Library(nvmlEventSetCreate=error(pynvml.NVML_ERROR_NOT_SUPPORTED))
    (device,) = Nvml(library).read()
    assert (device.xid, device.temperature_celsius) == (None, 61.0)


def test_simulated_devices_share_the_declared_memory_and_follow_the_load():
    load = {"now": (0, 8 * 2**30)}
    source = SimulatedDevices(2, 16 * 2**30, lambda: load["now"])
    idle = source.read()
    assert [device.memory_used_bytes for device in idle] == [4 * 2**30] * 2
    load["now"] = (8, 8 * 2**30)
    busy = source.read()
    assert all(device.simulated for device in busy)
    assert busy[0].utilization_ratio > idle[0].utilization_ratio
    assert busy[0].memory_used_bytes > idle[0].memory_used_bytes
