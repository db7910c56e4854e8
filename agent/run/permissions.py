"""Permissions that a run lacks: at its start, or once it has run for a while."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.errors import PermissionDeniedError
from agent.measure.readings import Failure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.measure.readings import Outcome

# How long every device must be denied, once the run has started, before it ends.
_DENIED_SWEEPS = 3
_DENIED_SECONDS = 5.0


class Denials:
    """Notices that every device has been denied for a while.

    systemd resolves DeviceAllow= when it starts a service: one that was started before the module i2c-dev was loaded
    may never open a bus, until it is restarted.
    """

    def __init__(self) -> None:
        self._sweeps = 0
        self._since_seconds = 0.0

    def lasting(self, outcomes: Sequence[Outcome], now: float) -> PermissionDeniedError | None:
        """The reason to end the run after one more sweep; None to go on."""
        denial = permission_denial(outcomes)
        if denial is None:
            self._sweeps = 0
            return None
        if self._sweeps == 0:
            self._since_seconds = now
        self._sweeps += 1
        # Not at once: a device file that has just appeared gets its group a moment later, from udev.
        is_lasting = self._sweeps >= _DENIED_SWEEPS and now - self._since_seconds >= _DENIED_SECONDS
        was_tried = any(isinstance(outcome, Failure) and outcome.tried for outcome in outcomes)
        return denial if is_lasting and was_tried else None


def refuse_to_run_without_permission(outcomes: Sequence[Outcome]) -> None:
    """Raise the PermissionDeniedError of a first sweep if it is why every single device failed."""
    denial = permission_denial(outcomes)
    if denial is not None:
        raise denial


def permission_denial(outcomes: Sequence[Outcome]) -> PermissionDeniedError | None:
    """The first error of a sweep in which every single device was denied."""
    denials = [
        outcome.error
        for outcome in outcomes
        if isinstance(outcome, Failure) and isinstance(outcome.error, PermissionDeniedError)
    ]
    return denials[0] if denials and len(denials) == len(outcomes) else None
