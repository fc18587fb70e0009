"""Energy as the machine itself counts it: never an estimate."""

from collections.abc import Callable, Sequence
from functools import partial
from math import inf, isfinite, nan
from pathlib import Path

import torch

POWERCAP = Path("/sys/class/powercap")
"""Where Linux shows the counters of processors (RAPL)."""


class Counter:
    """Adds up what a counter has counted; it may begin again at zero.

    Args:
        read: Its value now, in joules.
        span: The value at which it begins again. Update it more often than that.

    Example:
        >>> values = iter([90.0, 98.0, 3.0])
        >>> counter = Counter(lambda: next(values), span=100)
        >>> counter.update(), counter.update(), counter.joules
        (None, None, 13.0)
    """

    def __init__(self, read: Callable[[], float], span: float = inf) -> None:
        self.read, self.span = read, span
        self.joules = 0.0
        """The sum; not finite once the counter has failed."""
        self._last = read()

    def update(self) -> None:
        """Add what has been counted since."""
        try:
            now = self.read()
        except Exception:  # of a driver, too
            now = nan
        self.joules += (now - self._last) % self.span
        self._last = now


class Energy:
    """The energy of this machine's processors, and of the GPUs that are used, from now on.

    It is that of the whole hardware, whatever else runs on it. Linux counts processors, and memory on some machines,
    by RAPL, whose counters often only an administrator may read. GPUs are counted by NVIDIA's driver, if the package
    nvidia-ml-py is installed.

    Args:
        gpus: Their numbers.
        powercap: The folder of Linux's counters.

    Example:
        >>> Energy(powercap=Path("missing")).joules()
        {'processors': None}
    """

    def __init__(self, gpus: Sequence[int] = (), powercap: Path = POWERCAP) -> None:
        self._counters = {"processors": _processors(powercap)} | ({"gpus": _gpus(gpus)} if gpus else {})

    def joules(self) -> dict[str, float | None]:
        """What was counted up to now, in joules; ``None`` if it is not measured. Call it once a minute or more."""
        sums = dict[str, float]()
        for name, counters in self._counters.items():
            for counter in counters:
                counter.update()
            sums[name] = sum(counter.joules for counter in counters) if counters else nan
        return {name: round(joules, 3) if isfinite(joules) else None for name, joules in sums.items()}


def _processors(powercap: Path) -> list[Counter]:
    """Counters of all processors and their memory; none if one cannot be read, for a part would pass for the whole."""
    try:
        names = {zone: (zone / "name").read_text().strip() for zone in sorted(powercap.glob("intel-rapl:*"))}
        # cores lie within a package, and a platform (psys) contains it
        zones = [zone for zone, name in names.items() if name.startswith("package") or name == "dram"]
        return [
            Counter(partial(_micro, zone / "energy_uj"), span=_micro(zone / "max_energy_range_uj")) for zone in zones
        ]
    except (OSError, ValueError):
        return []


def _micro(file: Path) -> float:
    return int(file.read_text()) / 1e6


def _gpus(numbers: Sequence[int]) -> list[Counter]:
    """Counters of GPUs; none if one cannot be read."""
    try:
        import pynvml  # here, because only this needs it

        pynvml.nvmlInit()
        # torch numbers those that it sees, the driver all
        ids = [f"GPU-{torch.cuda.get_device_properties(number).uuid}" for number in numbers]
        handles = [pynvml.nvmlDeviceGetHandleByUUID(each) for each in ids]

        def joules(handle: object) -> float:
            return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3

        return [Counter(partial(joules, each)) for each in handles]
    except Exception:  # not installed, no driver, no such counter
        return []
