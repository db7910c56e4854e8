"""The stock variant: what a user writes with Adafruit's drivers and prometheus_client after reading their examples.

Stock driver properties through the stock mux channel, a gauge for each quantity, a push for each device, a plain loop.
As a program, it is such an exporter: python -m bench.stock GATEWAY SAMPLE_SECONDS SAMPLES_A_PUSH
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import adafruit_ina260
import adafruit_tca9548a
import busio
from adafruit_blinka.microcontroller.generic_linux.i2c import I2C as LinuxI2C  # noqa: N811 - Blinka's own name
from prometheus_client import CollectorRegistry, Gauge, push_to_gateway

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adafruit_ina260 import INA260


class NumberedI2C(busio.I2C):  # type: ignore[misc] # Blinka publishes no types
    """`busio.I2C` on /dev/i2c-N, as Adafruit's extended bus library does it: this machine has no I2C pins."""

    def __init__(self, number: int) -> None:
        self._i2c = LinuxI2C(number, mode=LinuxI2C.MASTER)

    def deinit(self) -> None:
        """Leave the bus open, as that library does."""


def open_sensors(i2c: Any, count: int = 8) -> list[INA260]:
    """INA260 at 0x40, eight behind each mux."""
    muxes = [adafruit_tca9548a.TCA9548A(i2c, 0x70 + mux) for mux in range((count + 7) // 8)]
    return [adafruit_ina260.INA260(muxes[number // 8][number % 8], 0x40) for number in range(count)]


def sweep(sensors: Sequence[INA260]) -> list[tuple[float, float, float]]:
    """Volts, amperes and watts of each sensor; the properties are in volts, milliamperes and milliwatts."""
    return [(sensor.voltage, sensor.current / 1000, sensor.power / 1000) for sensor in sensors]


def main() -> None:
    """Sample and push forever."""
    gateway, sample_seconds, samples_a_push = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    sensors = open_sensors(NumberedI2C(1))
    registries = []
    gauges = []
    for _ in sensors:
        registry = CollectorRegistry()
        registries.append(registry)
        gauges.append(
            (
                Gauge("ina260_voltage_volts", "Voltage", registry=registry),
                Gauge("ina260_current_amperes", "Current", registry=registry),
                Gauge("ina260_power_watts", "Power", registry=registry),
            )
        )
    samples = 0
    while True:
        for (volts, amperes, watts), (voltage, current, power) in zip(sweep(sensors), gauges, strict=True):
            voltage.set(volts)
            current.set(amperes)
            power.set(watts)
        samples += 1
        if samples % samples_a_push == 0:
            for number, registry in enumerate(registries):
                push_to_gateway(
                    gateway,
                    job="stock",
                    registry=registry,
                    grouping_key={"hostname": "node-0", "device": f"rail-{number}"},
                )
        time.sleep(sample_seconds)


if __name__ == "__main__":
    main()
