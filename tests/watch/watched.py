"""A history of sweeps of simulated chips, and the table that shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.watch.glyphs import UNICODE
from agent.watch.history import History
from agent.watch.layout import lines
from tests.bench import Bench, constant, ina260, mux

if TYPE_CHECKING:
    from collections.abc import Container

    from agent.watch.glyphs import Glyphs

TWO = mux("m0", 0x70) + ina260("cpu", 'mux = "m0", channel = 0') + ina260("radio", 'mux = "m0", channel = 1')


class Watched:
    """A bench and the history of its sweeps."""

    def __init__(
        self,
        text: str = TWO,
        every: str = "1s",
        *,
        unknown_shunts: Container[str] = (),
        unsure_kinds: Container[str] = (),
    ) -> None:
        self.bench = Bench.of(text, f'sample_interval = "{every}"\n')
        self.history = History(
            self.bench.settings,
            self.bench.clock,
            is_simulated=False,
            unknown_shunts=unknown_shunts,
            unsure_kinds=unsure_kinds,
        )

    def sweeps(self, count: int) -> None:
        for _ in range(count):
            self.bench.clock.sleep(self.bench.settings.sample_interval_seconds)
            self.history.add(self.bench.sweep.run())

    def load(self, device: str, volts: float, amperes: float) -> None:
        rail = constant(self.bench.rails[device])
        rail.volts, rail.amperes = volts, amperes

    def text(self, width: int = 80, height: int = 24, glyphs: Glyphs = UNICODE) -> str:
        return "\n".join(
            "".join(text for text, _ in line).rstrip() for line in lines(self.history.view(), width, height, glyphs)
        )

    def line(self, device: str, width: int = 80) -> str:
        (found,) = [line for line in self.text(width).splitlines() if line.startswith(device)]
        return found
