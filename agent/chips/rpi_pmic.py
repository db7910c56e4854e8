"""The rails that a Raspberry Pi 5 measures itself: its power management chip (PMIC), asked through `vcgencmd`.

The firmware answers `vcgencmd pmic_read_adc` with a line for each current and for each voltage::

       VDD_CORE_A current(7)=1.20000000A
       VDD_CORE_V volt(15)=0.87500000V
          EXT5V_V volt(24)=5.09000000V

Twelve rails have both; EXT5V, the 5 V input, and BATT, the cell of the clock, have volts only. The numbers in brackets,
the spacing and the number of digits differ between firmware versions. `vcgencmd` cuts an answer off after 1 KiB.

No datasheet of this chip is public, so its accuracy is unknown. Sources: raspberrypi/utils, vcgencmd/vcgencmd.c (length
of an answer, error messages, exit status); raspberrypi/linux, drivers/char/broadcom/vcio.c (device files); answers that
owners of a Pi 5 have published.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from agent import access
from agent.chips import Measurement
from agent.errors import PermissionDeniedError, SensorError, one_line
from agent.i2c import hints
from agent.settings import ALL_RAILS, ChipOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agent.chips._program import Output, Program
    from agent.settings import Device

INPUT = "EXT5V"
"""The 5 V input, of which only the volts are measured."""

OPTIONS = ChipOptions(chip="rpi-pmic", addresses=None, rails_without_current=(INPUT, "BATT"))

PROGRAM = "vcgencmd"
DEVICE_FILES = (Path("/dev/vcio_gencmd"), Path("/dev/vcio"))
"""One of them leads to the firmware; kernels since 2026 have the first, which takes no other commands."""

_COMMAND = f"{PROGRAM} pmic_read_adc"

_TIMEOUT_SECONDS = 0.5
"""An answer takes some milliseconds. A stop waits for the sweep under way, and has 2 s."""

_HIGHEST_VOLTS = 30.0
_LOWEST_AMPERES, _HIGHEST_AMPERES = -1.0, 50.0
_LOWEST_INPUT_VOLTS = 3.0
"""No rail of the board has more volts than its input, which takes 5 V. It does not run at less than 4 V."""

_LABEL = re.compile(r"\s*(\w+)_([AV])(?!\w)")
_VALUE = re.compile(r"\s*\w+\s+(current|volt)\s*\(\s*\d+\s*\)\s*=\s*(-?\d{1,9}(?:\.\d{1,12})?)\s*([AV])\s*", re.ASCII)
_OTHER = re.compile(r"\s*\w+\s+\w+\s*\(\s*\d+\s*\)\s*=\s*-?[\d.]+\s*\S*\s*", re.ASCII)
_KINDS = {"A": "current", "V": "volt"}


@dataclass(slots=True)
class Answer:
    """What the firmware says.

    Attributes:
        volts: by rail.
        amperes: by rail.
        problems: by rail, why its lines are no measurement.
        unclear: a line that is of no known form, so that nothing shows which rail it is of.
    """

    volts: dict[str, float] = field(default_factory=dict)
    amperes: dict[str, float] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    unclear: str | None = None

    @property
    def rails(self) -> tuple[str, ...]:
        """Those with volts and amperes, in the order of the answer."""
        return tuple(rail for rail in self.amperes if rail in self.volts and rail not in self.problems)


class Chip:
    """All configured rails of this Raspberry Pi, read by one call of `vcgencmd`."""

    def __init__(
        self,
        devices: Sequence[Device],
        ask: Callable[[], str] | None = None,
    ) -> None:
        """Prepare; nothing is read yet. `ask` returns the answer of the firmware; it raises as `read`."""
        self._wanted = tuple(device.rail or "" for device in devices)
        self._ask = ask or Firmware().ask
        self._summed: tuple[str, ...] = ()

    def read(self) -> tuple[Measurement | SensorError, ...]:
        """Read the rails: a measurement for each device, or the error of that device alone.

        Raises:
            SensorError: there is no answer; this is no Raspberry Pi 5, or `vcgencmd` is not installed.
            PermissionDeniedError: this user may not ask the firmware.
        """
        answer = parse(self._ask())
        if not answer.volts and not answer.amperes:
            raise SensorError(f"{_COMMAND}: no rail in its answer; only a Raspberry Pi 5 measures itself")
        measurements: list[Measurement | SensorError] = []
        for rail in self._wanted:
            try:
                measurements.append(self._sum(answer) if rail == ALL_RAILS else _measurement(answer, rail))
            except SensorError as error:
                measurements.append(error)
        return tuple(measurements)

    def where(self) -> tuple[str, ...]:
        """For each device the rail, or the rails of the last sum."""
        return tuple(f"{_COMMAND}: {self._sum_of() if rail == ALL_RAILS else rail}" for rail in self._wanted)

    def find(self) -> dict[str, Measurement]:
        """What can be configured now: each rail with its measurement, and their sum. Raises as `read`, for the sum."""
        answer = parse(self._ask())
        total = self._sum(answer)
        return {**{rail: _measurement(answer, rail) for rail in answer.rails}, ALL_RAILS: total}

    def _sum_of(self) -> str:
        return f"sum of {len(self._summed)} rails ({', '.join(self._summed)})" if self._summed else "sum of all rails"

    def _sum(self, answer: Answer) -> Measurement:
        """The volts of the 5 V input, and the amperes that would carry the power of all rails there.

        Raises:
            SensorError: the answer is not whole, so the sum would be too small.
        """
        if answer.unclear is not None:
            raise SensorError(f"{_COMMAND}: {answer.unclear!r} is no line of a rail, so the sum is not known")
        for rail, problem in answer.problems.items():
            raise SensorError(f"{_COMMAND}: {rail}: {problem}, so the sum is not known")
        halves = (set(answer.volts) ^ set(answer.amperes)) - set(OPTIONS.rails_without_current or ())
        if halves:
            raise SensorError(
                f"{_COMMAND}: no volts or no amperes of {', '.join(sorted(halves))}; is the answer whole?"
            )
        volts = answer.volts.get(INPUT)
        if volts is None or not answer.rails:
            raise SensorError(f"{_COMMAND}: no {INPUT}, or no rail, in its answer; is it whole?")
        if volts < _LOWEST_INPUT_VOLTS:
            raise SensorError(f"{_COMMAND}: {INPUT}: {volts:g} V is not the input of a running board")
        lost = [rail for rail in self._summed if rail not in answer.rails]
        if lost:  # the firmware changes only at a boot
            raise SensorError(f"{_COMMAND}: no {', '.join(lost)}, which it had before; is the answer whole?")
        self._summed = answer.rails
        watts = sum(answer.volts[rail] * answer.amperes[rail] for rail in answer.rails)
        return Measurement(volts, watts / volts)


class Firmware:
    """Asks the firmware through `vcgencmd`."""

    def __init__(self, device_files: Sequence[Path] = DEVICE_FILES) -> None:
        self._device_files = device_files
        self._path: str | None = None
        self._program: Program | None = None

    def ask(self) -> str:
        """The answer to `pmic_read_adc`. Raises SensorError, PermissionDeniedError."""
        path = find_program()
        if path is None:
            raise SensorError(
                f"there is no {PROGRAM}; on a Raspberry Pi: sudo apt install raspi-utils; "
                "no other board measures itself in this way"
            )
        if self._program is None or path != self._path:
            from agent.chips._program import Program

            self._path, self._program = path, Program((path, "pmic_read_adc"), _TIMEOUT_SECONDS)
        try:
            output = self._program.run()
        except OSError as error:
            raise SensorError(f"{path} cannot be started: {error.strerror or error}") from error
        if output.status or "error=" in output.text:
            raise self._failure(output)
        return output.text

    def _failure(self, output: Output) -> SensorError | PermissionDeniedError:
        said = one_line(f"{output.text} {output.errors}")
        if "not registered" in said:
            return SensorError(f"{_COMMAND}: only a Raspberry Pi 5 measures itself; this firmware says: {said}")
        if "device file" in said or "VCHI" in said:
            return self._closed_device()
        ended = f"exit status {output.status}" if output.status >= 0 else f"killed by signal {-output.status}"
        return SensorError(f"{_COMMAND}: failed ({ended}): {said or 'without a word'}")

    def _closed_device(self) -> SensorError | PermissionDeniedError:
        """Why the program could not open its device file: this user opens it in the same way."""
        denied: tuple[Path, int] | None = None
        for file in self._device_files:
            try:
                os.close(os.open(file, os.O_RDONLY | os.O_CLOEXEC))
            except PermissionError as error:
                denied = denied or (file, error.errno or errno.EACCES)
            except OSError:  # absent
                continue
            else:
                return SensorError(f"{_COMMAND}: could not open its device file, but {file} opens; upgrade raspi-utils")
        if denied is not None:
            file, code = denied
            return PermissionDeniedError(f"{file}: permission denied; {_hint_for(file, code)}")
        files = " nor ".join(map(str, self._device_files))
        if hints.is_container():
            return SensorError(f"there is neither {files}: start the container with --device {self._device_files[-1]}")
        return SensorError(f"there is neither {files}: the kernel of Raspberry Pi OS has them, Debian's has not")


def find_program() -> str | None:
    """The path of `vcgencmd`, or None."""
    return shutil.which(PROGRAM)


def parse(text: str) -> Answer:
    """Read the lines of an answer; what is not certain becomes a problem of its rail, or `unclear`."""
    answer = Answer()
    for line in text.splitlines():
        label, value = _LABEL.match(line), _VALUE.fullmatch(line)
        if not line.strip():
            continue
        if label is None:
            if _OTHER.fullmatch(line) is None:  # a temperature, say
                answer.unclear = answer.unclear or line.strip()[:80]
            continue
        rail, unit = label[1], label[2]
        problem = None
        if value is None or (value[1], value[3]) != (_KINDS[unit], unit):
            problem = f"{line.strip()[:80]!r} is no measurement"
        else:
            problem = _add(answer, rail, unit, float(value[2]))
        if problem is not None:
            answer.problems.setdefault(rail, problem)
    return answer


def _add(answer: Answer, rail: str, unit: str, number: float) -> str | None:
    """Take a value; the reason if it is no measurement."""
    values: Mapping[str, float]
    values, lowest, highest = (
        (answer.volts, 0.0, _HIGHEST_VOLTS) if unit == "V" else (answer.amperes, _LOWEST_AMPERES, _HIGHEST_AMPERES)
    )
    if rail in values:
        return f"it has two lines for {unit}"
    values[rail] = number
    if not lowest <= number <= highest:
        return f"{number:g} {unit} is not in {lowest:g}..{highest:g}"
    return None


def _measurement(answer: Answer, rail: str) -> Measurement:
    """The volts and amperes of one rail. Raises SensorError."""
    if rail in answer.problems:
        raise SensorError(f"{_COMMAND}: {rail}: {answer.problems[rail]}")
    volts, amperes = answer.volts.get(rail), answer.amperes.get(rail)
    if volts is not None and amperes is not None:
        return Measurement(volts, amperes)
    offered = f"rails with both: {', '.join(answer.rails) or 'none'}; or {ALL_RAILS}"
    if volts is not None:
        raise SensorError(f"{_COMMAND}: {rail} has volts but no amperes, so it has no power; {offered}")
    if amperes is not None:
        raise SensorError(f"{_COMMAND}: {rail} has amperes but no volts; is the answer cut off? {offered}")
    raise SensorError(f"{_COMMAND}: no rail {rail}; {offered}")


def _hint_for(file: Path, code: int) -> str:
    """How to let this user open the device file; `code` as in `hints.of_denied_permission`."""
    if hints.is_container():
        return f"start the container with --device {file} and --group-add $(stat -c %g {file})"
    if code == errno.EPERM:
        return f"the service may not open it: its unit needs DeviceAllow={file} rw, and the newest unit has it"
    if _is_of_root(file):
        return (
            f'only root may open it: write the line KERNEL=="{file.name}", GROUP="video", MODE="0660" into '
            "/etc/udev/rules.d/61-wattpush-vcio.rules, then sudo udevadm control --reload && sudo udevadm trigger"
        )
    return (
        f"only the group video may open it: sudo usermod -aG video {access.this_user()}, "
        "then log in again, or restart the service"
    )


def _is_of_root(file: Path) -> bool:
    """Whether no other group may open the file, as on Ubuntu."""
    try:
        return file.stat().st_gid == 0
    except OSError:
        return False
