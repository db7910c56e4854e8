"""A stand-in for `vcgencmd`: a program in a folder of its own, and answers as a Raspberry Pi 5 gives them."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

RAILS = {
    "3V7_WL_SW": (3.71, 0.0625),
    "3V3_SYS": (3.31, 0.125),
    "1V8_SYS": (1.8, 0.25),
    "DDR_VDD2": (1.1, 0.0312),
    "DDR_VDDQ": (0.6, 0.0),
    "1V1_SYS": (1.1, 0.1875),
    "0V8_SW": (0.8, 0.375),
    "VDD_CORE": (0.875, 1.234),
    "0V8_AON": (0.8, 0.0025),
    "3V3_DAC": (3.31, 0.0),
    "3V3_ADC": (3.31, 0.0002),
    "HDMI": (5.1, 0.0125),
}
"""Volts and amperes of the twelve rails that have both."""

INPUT_VOLTS = 5.125
TOTAL_WATTS = sum(volts * amperes for volts, amperes in RAILS.values())

NO_DEVICE = "Can't open device file: /dev/vcio\nTry creating a device file with: sudo mknod /dev/vcio c 100 0\n"
PI_4 = 'vc_gencmd_read_response returned -1\nerror=1 error_msg="Command not registered"\n'


def answer(layout: str = "{label:>15} {kind}({number})={value:.8f}{unit}", **changes: tuple[float, float]) -> str:
    """What the firmware answers; all currents come before the voltages, and BATT is the last."""
    rails = {**RAILS, **changes}
    lines = [("A", "current", rail, amperes) for rail, (_, amperes) in rails.items()]
    lines += [("V", "volt", rail, volts) for rail, (volts, _) in rails.items()]
    lines += [("V", "volt", "EXT5V", INPUT_VOLTS), ("V", "volt", "BATT", 0.0)]
    return "".join(
        layout.format(label=f"{rail}_{unit}", kind=kind, number=number, value=value, unit=unit) + "\n"
        for number, (unit, kind, rail, value) in enumerate(lines)
    )


class Vcgencmd:
    """The program: it notes each call and prints `says`, or runs other lines of a shell.

    Attributes:
        folder: what PATH has to hold.
    """

    def __init__(self, folder: Path, says: str | None = None, status: int = 0) -> None:
        self.folder = folder
        self._answer = folder / "answer"
        self._calls = folder / "calls"
        folder.mkdir(exist_ok=True)
        self.says(answer() if says is None else says, status)

    def says(self, text: str, status: int = 0) -> None:
        self._answer.write_text(text, encoding="ascii")
        self.runs(f"cat {shlex.quote(str(self._answer))}; exit {status}")

    def runs(self, lines: str) -> None:
        new = self.folder / "new"
        calls = shlex.quote(str(self._calls))
        new.write_text(f'#!/bin/sh\n[ ! -w {self.folder} ] || echo "$@" >>{calls}\n{lines}\n', encoding="ascii")
        new.chmod(0o755)
        new.rename(self.folder / "vcgencmd")

    @property
    def calls(self) -> list[str]:
        """The arguments of each call."""
        return self._calls.read_text(encoding="ascii").splitlines() if self._calls.exists() else []


def on_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Vcgencmd:
    """The program in a folder of its own, which is the first of PATH."""
    program = Vcgencmd(folder / "bin")
    monkeypatch.setenv("PATH", f"{program.folder}:{os.environ['PATH']}")
    return program
