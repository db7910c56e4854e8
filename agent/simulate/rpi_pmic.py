"""A simulated Raspberry Pi 5 that measures itself: the answer of its firmware."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.simulate.rails import values_at

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agent.settings import Device
    from agent.simulate.rails import Rail

_SHARES = {
    "3V7_WL_SW": (3.7, 0.03),
    "3V3_SYS": (3.3, 0.12),
    "1V8_SYS": (1.8, 0.13),
    "DDR_VDD2": (1.1, 0.05),
    "DDR_VDDQ": (0.6, 0.01),
    "1V1_SYS": (1.1, 0.1),
    "0V8_SW": (0.8, 0.1),
    "VDD_CORE": (0.88, 0.41),
    "3V3_DAC": (3.3, 0.0),
    "3V3_ADC": (3.3, 0.0),
    "0V8_AON": (0.8, 0.01),
    "HDMI": (5.1, 0.04),
}
"""Every rail with volts and amperes: its volts, and its share of the power of the board."""

_OTHERS_WATTS = 2.0
"""The power of the rails that no device names, if none is the sum."""

_INPUT_VOLTS = 5.1


class SimulatedFirmware:
    """The text that `vcgencmd pmic_read_adc` prints.

    A device with a rail of its own sets the volts and amperes of that rail. The device with `rail = "all"` sets the
    volts of the input, and its power flows through the rails that no other device names; so the sum is at least the
    power of each rail, as on a board.
    """

    def __init__(self, devices: Sequence[Device], rails: Mapping[str, Rail], now: Callable[[], float]) -> None:
        """Prepare.

        Args:
            devices: those on this chip.
            rails: by device name.
            now: the clock of the rails, in seconds.
        """
        self._rails = {device.rail: rails[device.name] for device in devices if device.rail is not None}
        self._now = now

    def answer(self) -> str:
        """The present values, as the firmware aligns them."""
        seconds = self._now()
        measured = {rail: values_at(self._rails[rail], seconds) for rail in self._rails}
        input_volts, input_amperes = measured.pop("all", (_INPUT_VOLTS, _OTHERS_WATTS / _INPUT_VOLTS))
        rest = {rail: share for rail, (_, share) in _SHARES.items() if rail not in measured}
        whole = sum(rest.values())
        values: dict[str, tuple[float, float]] = {}
        for rail, (volts, _) in _SHARES.items():
            share = rest.get(rail, 0.0) / whole if whole else 0.0
            values[rail] = measured.get(rail, (volts, input_volts * input_amperes * share / volts))
        values.update(measured)  # rails of firmware that this file does not know
        lines = [
            (f"{rail}_A", f"current({number})", amperes, "A")
            for number, (rail, (_, amperes)) in enumerate(values.items())
        ]
        lines += [
            (f"{rail}_V", f"volt({number})", volts, "V")
            for number, (rail, (volts, _)) in enumerate(values.items(), len(values))
        ]
        lines += [("EXT5V_V", f"volt({len(lines)})", input_volts, "V"), ("BATT_V", f"volt({len(lines) + 1})", 0.0, "V")]
        return "".join(f"{label:>12} {place}={value:.8f}{unit}\n" for label, place, value, unit in lines)
