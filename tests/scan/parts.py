"""Parts that only a scan meets: chips that just answer, and what a write would do to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.simulate.part import Part

if TYPE_CHECKING:
    from collections.abc import Mapping


class IdChip(Part):
    """Registers of two bytes behind a pointer, as in TI's power monitors; missing ones read zero."""

    def __init__(self, address: int, words: Mapping[int, int]) -> None:
        super().__init__(address)
        self.words = dict(words)
        self.pointers: list[int] = []

    def write(self, data: bytes) -> None:
        assert len(data) == 1, f"a register was written: {data.hex()}"
        self.pointers.append(data[0])

    def read(self, length: int) -> bytes:
        word = self.words.get(self.pointers[-1], 0) if self.pointers else 0
        return word.to_bytes(2, "big")[:length].ljust(length, b"\0")

    def power_loss(self) -> None:
        self.pointers.clear()


INA3221 = {0xFE: 0x5449, 0xFF: 0x3220}
INA226 = {0x00: 0x4127, 0xFE: 0x5449, 0xFF: 0x2260}
INA228 = {0x3E: 0x5449, 0x3F: 0x2281, 0x01: 0xFB68}
INA237 = {0x3E: 0x5449, 0x3F: 0x2371}
INA237_WITHOUT_DEVICE_ID = {0x00: 0x0000, 0x3E: 0x5449}
INA232 = {0x00: 0x4127, 0x3E: 0x5449}
INA234 = {0x00: 0x4127, 0x3E: 0x5449, 0x3F: 0xA480}
INA236 = {0x00: 0x4127, 0x3E: 0x5449, 0x3F: 0xA080}
INA238 = {0x3E: 0x5449, 0x3F: 0x2381}
INA219 = {0x00: 0x399F}
INA231 = {0x00: 0x4127}
HDC1080 = {0x02: 0x1000, 0xFE: 0x5449, 0xFF: 0x1050}


class Foreign(Part):
    """A chip of another type, which every write would affect. It gives `answers`, byte by byte."""

    def __init__(self, address: int, answers: bytes = b"\x00") -> None:
        super().__init__(address)
        self.answers = answers
        self.written: list[bytes] = []
        self._given = 0

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def read(self, length: int) -> bytes:
        given = bytes(self.answers[(self._given + n) % len(self.answers)] for n in range(length))
        self._given += length
        return given

    def power_loss(self) -> None:
        self.written.clear()


class HT16K33(Foreign):
    """A display: a byte below 0x10 sets the pointer into its memory, any other is a command (Holtek HT16K33)."""

    def __init__(self, address: int, memory: bytes = bytes(16)) -> None:
        super().__init__(address)
        self.memory = memory
        self._pointer = 0

    def write(self, data: bytes) -> None:
        super().write(data)
        assert len(data) == 1
        assert data[0] < 0x10, f"a command: {data.hex()}"
        self._pointer = data[0]

    def read(self, length: int) -> bytes:
        return bytes(self.memory[(self._pointer + n) % 16] for n in range(length))


class PointedRegisters(Foreign):
    """A sensor with registers of a byte behind a pointer, such as a BME280."""

    def __init__(self, address: int, registers: Mapping[int, int]) -> None:
        super().__init__(address)
        self._registers = registers
        self._pointer = 0

    def write(self, data: bytes) -> None:
        super().write(data)
        self._pointer = data[0]

    def read(self, length: int) -> bytes:
        return bytes(self._registers.get(self._pointer + n, 0) for n in range(length))


class PCA9685(PointedRegisters):
    """A LED driver at its all-call address, which reads too while bit 0 of MODE1 is set (NXP PCA9685, 7.1.2, 7.3.1)."""

    def __init__(self, mode1: int, leds: Mapping[int, int]) -> None:
        numbers = {0x00: mode1 | 0x01, 0x01: 0x04, 0x02: 0xE2, 0x03: 0xE4, 0x04: 0xE8, 0x05: 0xE0}
        super().__init__(0x70, {**leds, **numbers})


class SHTC3(Foreign):
    """A sensor whose commands have 16 bits: half of one is ignored, and without a command it reads nothing."""

    def read(self, length: int) -> bytes:
        return b"\xff" * length


class PMBusRegulator(Foreign):
    """A regulator that runs a command without data at once (PMBus 1.3, part II, appendix I)."""

    AT_ONCE = frozenset({0x03, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18})

    def write(self, data: bytes) -> None:
        super().write(data)
        assert data[0] not in self.AT_ONCE, f"a command without data: {data.hex()}"
