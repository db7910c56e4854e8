"""An emulated bus of 64 INA260 on /dev/i2c-1 for processes that are measured.

The emulation runs in the measured process and counts its own CPU time, so that the benchmarks can subtract it.
"""

from __future__ import annotations

import errno
import mmap
import os
import sys
from ctypes import c_uint64
from dataclasses import dataclass
from pathlib import Path
from time import process_time_ns, thread_time_ns
from typing import TYPE_CHECKING, Any

from tests.emulated_i2c_dev import EmulatedI2CDev

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.simulate.wire import Message

_MUXES = range(0x70, 0x78)
_INA260 = 0x40

_CONFIGURATION, _ALERT_LIMIT = 0x00, 0x07
_POWER_ON_CONFIGURATION = 0x6127

NO_BOARD = {
    "BLINKA_FORCEBOARD": "GENERIC_LINUX_PC",
    "BLINKA_FORCECHIP": "GENERIC_X86",
    "BLINKA_SKIP_DEPENDENCY_CHECK": "1",
}
"""The environment in which Blinka does not look for a board or a GPIO library."""


def _registers(number: int) -> dict[int, int]:
    """The registers of an INA260 after power-on (SBOS656, section 7.6); each chip has different results."""
    current, voltage = 800 + 10 * number, 4000 + number  # in 1.25 mA and 1.25 mV
    return {
        _CONFIGURATION: _POWER_ON_CONFIGURATION,
        0x01: current,
        0x02: voltage,
        0x03: current * voltage // 6400,  # in 10 mW
        0x06: 1 << 3,  # conversion ready
        _ALERT_LIMIT: 0,
        0xFE: 0x5449,
        0xFF: 0x2270,
    }


class ConstantWire:
    """Eight TCA9548A (0x70-0x77), and an INA260 at 0x40 behind each channel, whose values never change."""

    def __init__(self) -> None:
        """Power on."""
        self._open_channels = [0] * len(_MUXES)
        self._chips = [_registers(number) for number in range(8 * len(_MUXES))]
        self._pointers = [0] * len(self._chips)

    def transfer(self, messages: Sequence[Message]) -> None:
        """Carry out one transaction.

        Raises:
            OSError: EREMOTEIO unless just one chip would answer.
        """
        for address, is_read, buffer in messages:
            if address in _MUXES:
                self._transfer_to_mux(address - _MUXES.start, buffer, is_read=is_read)
                continue
            chip = self._connected_chip()
            if address != _INA260 or chip is None:
                raise OSError(errno.EREMOTEIO, os.strerror(errno.EREMOTEIO))
            if is_read:
                word = self._chips[chip].get(self._pointers[chip], 0).to_bytes(2, "big")
                memoryview(buffer)[:] = word.ljust(len(buffer), b"\xff")[: len(buffer)]
            elif buffer:
                self._pointers[chip] = buffer[0]
                if len(buffer) >= 3:
                    self._write(chip, buffer[0], int.from_bytes(bytes(buffer[1:3]), "big"))

    def _transfer_to_mux(self, mux: int, buffer: Any, *, is_read: bool) -> None:
        if is_read:
            memoryview(buffer)[:] = bytes([self._open_channels[mux]] * len(buffer))
        elif buffer:
            self._open_channels[mux] = buffer[-1]

    def _connected_chip(self) -> int | None:
        """The chip behind the only open channel; None if no channel is open, or several."""
        all_channels = int.from_bytes(bytes(self._open_channels), "little")
        return all_channels.bit_length() - 1 if all_channels and not all_channels & (all_channels - 1) else None

    def _write(self, chip: int, register: int, word: int) -> None:
        if register == _CONFIGURATION:
            is_reset = bool(word & 0x8000)
            self._chips[chip][register] = _POWER_ON_CONFIGURATION if is_reset else 0x6000 | (word & 0x0FFF)
        elif register == _ALERT_LIMIT:
            self._chips[chip][register] = word


class MeteredI2CDev(EmulatedI2CDev):
    """A bus of constant values on /dev/i2c-1 that knows how much CPU time its emulation takes.

    Reading the clock crosses into the kernel, as the system call that is emulated does.
    """

    def __init__(self, folder: Path) -> None:
        """Count in a file in `folder`, which `EmulatedBus.cpu_seconds` reads."""
        super().__init__({1: ConstantWire()}, folder)
        with _counter_file(folder).open("w+b") as file:
            file.truncate(8)
            self._counter = c_uint64.from_buffer(mmap.mmap(file.fileno(), 8))

    @property
    def cpu_seconds(self) -> float:
        """The CPU time of the emulation so far."""
        return self._counter.value / 1e9

    def count_since(self, begun_nanoseconds: int) -> None:
        """Count what the process has used since then, such as for importing the emulation."""
        self._counter.value += process_time_ns() - begun_nanoseconds

    def ioctl(self, *arguments: Any) -> int:
        """See `EmulatedI2CDev`."""
        begun = thread_time_ns()
        try:
            return super().ioctl(*arguments)
        finally:
            self._counter.value += thread_time_ns() - begun

    def read(self, *arguments: Any) -> bytes:
        """See `EmulatedI2CDev`."""
        begun = thread_time_ns()
        try:
            return super().read(*arguments)
        finally:
            self._counter.value += thread_time_ns() - begun

    def write(self, *arguments: Any) -> int:
        """See `EmulatedI2CDev`."""
        begun = thread_time_ns()
        try:
            return super().write(*arguments)
        finally:
            self._counter.value += thread_time_ns() - begun


@dataclass(frozen=True, slots=True)
class EmulatedBus:
    """The bus that other processes find on /dev/i2c-1 when they are started with this environment."""

    folder: Path
    environment: dict[str, str]

    def cpu_seconds(self) -> float:
        """The CPU time that the process started last has spent on the emulation so far."""
        return int.from_bytes(_counter_file(self.folder).read_bytes(), sys.byteorder) / 1e9


# Python runs a module of this name at its start. What the program imports in any case does not count as emulation.
_SITECUSTOMIZE = """
import pathlib, time
from Adafruit_PureIO import smbus
begun_nanoseconds = time.process_time_ns()
from bench.bus import MeteredI2CDev
dev = MeteredI2CDev(pathlib.Path({folder!r}))
dev.install()
dev.count_since(begun_nanoseconds)
"""


def emulated_bus(folder: Path) -> EmulatedBus:
    """The bus for one process after the other, with its files in `folder`."""
    (folder / "sitecustomize.py").write_text(_SITECUSTOMIZE.format(folder=str(folder)), encoding="utf-8")
    environment = {
        "PYTHONPATH": f"{folder}:{Path(__file__).resolve().parents[1]}",
        **NO_BOARD,
    }
    return EmulatedBus(folder, environment)


def _counter_file(folder: Path) -> Path:
    return folder / "emulation-nanoseconds"
