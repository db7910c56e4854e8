"""Identifies power monitors by their registers, and reads those that wattpush supports as they are configured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent import chips
from agent.chips import _signatures as signatures
from agent.errors import BusError, SensorError
from agent.i2c.failures import is_nack
from agent.i2c.transfers import Register
from agent.scan.muxes import confirm
from agent.scan.results import ASSUMED_SHUNT_OHMS, FoundChip, FoundInput, UnknownChip
from agent.settings import Device

if TYPE_CHECKING:
    from agent.chips._signatures import Signature
    from agent.i2c.bus import Bus
    from agent.i2c.place import Place

# Only the averaging depends on it, and the scan configures none.
_ANY_INTERVAL_SECONDS = 1.0


class ChipReader:
    """Reads the chip at one place as it is configured: it writes no register."""

    def __init__(self, bus: Bus, place: Place) -> None:
        self._bus = bus
        self._place = place
        self._path = place.path

    def find(self) -> FoundChip | UnknownChip:
        """Identify the chip, and read its present results.

        Raises:
            BusError: the bus is stuck, or a mux on the path does not answer.
            OSError: anything but a NACK of a register, as the adapter reports it.
        """
        signature = signatures.identify(self._word)
        if signature is None:
            return UnknownChip(self._place)
        options = chips.options().get(signature.chip)
        if options is None or options.addresses is None or self._place.address not in options.addresses:
            return FoundChip(self._place, signature)
        shunt_ohms = ASSUMED_SHUNT_OHMS if options.external_shunt else None
        inputs = tuple(
            self._input(signature, position, number, shunt_ohms)
            for position, number in enumerate(options.inputs or (None,))
        )
        return FoundChip(self._place, signature, inputs, options.external_shunt)

    def _word(self, register: int) -> int | None:
        try:
            self._bus.select(self._path)
            return self._bus.read(self._place.address, (Register(register),))[0]
        except BusError:
            raise
        except OSError as error:
            if not is_nack(error):
                raise
            confirm(self._bus, self._path)  # that the chip itself lacks this register
        return None

    def _input(self, signature: Signature, position: int, number: int | None, shunt_ohms: float | None) -> FoundInput:
        measuring = signature.measuring[position] if signature.measuring else ()
        for expected in measuring:
            word = self._word(expected.register)
            if word is None or not expected.matches(word):
                return FoundInput(number, None, "switched off, does not measure now")
        device = Device("", signature.chip, self._place, input=number, shunt_ohms=shunt_ohms)
        chip = chips.i2c_chip(signature.chip)([device], _ANY_INTERVAL_SECONDS)
        self._bus.select(self._path)
        words = self._bus.read(self._place.address, chip.results)
        try:
            (measured,) = chip.decode(words)
        except SensorError as error:
            measured = error
        if isinstance(measured, SensorError):
            return FoundInput(number, None, str(measured))
        return FoundInput(number, measured)
