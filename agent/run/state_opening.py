"""Locks and loads the state, in a thread: a stop need not wait for a disk that stalls."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVar

from agent.energy.state import State
from agent.energy.state_file import StateFile, boot_id, file_name
from agent.errors import BusyError
from agent.run.saver import Saver
from agent.run.stopping import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack

    from agent.run.agent import Agent
    from agent.run.assembly import RunOptions, Runtime
    from agent.settings import Settings

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

ONCE_LOCK_WAIT_SECONDS = 5.0
"""How long `--once` waits for the previous run. A loop does not end, so a second loop does not wait."""

_LOCK_POLL_SECONDS = 0.05


def open_state(
    settings: Settings, options: RunOptions, runtime: Runtime, stack: ExitStack, earlier: Agent | None
) -> tuple[Saver | None, State]:
    """The state to continue from, and what saves it from now on; None for a dry run. See `make_agent`."""
    if settings.state_dir is None:
        return None, State()
    state_file = StateFile(settings.state_dir, file_name(is_simulated=options.is_simulated), boot_id())
    if options.is_dry_run:
        return None, of_this_node(state_file.load(is_read_only=True), state_file, settings)
    saver = None if earlier is None else earlier.parts.saver
    if saver is not None and saver.file.path == state_file.path:
        saver.lock()  # held already: this needs no disk
    else:
        saver = Saver(state_file, runtime.wake)
        wait_seconds = ONCE_LOCK_WAIT_SECONDS if options.is_once else 0.0
        _lock(state_file, wait_seconds, runtime)
    stack.callback(saver.unlock)
    # What another folder holds after a reload is older than what runs now.
    state = _in_thread(state_file.load, state_file, runtime) if earlier is None else earlier.state()
    return saver, of_this_node(state, state_file, settings)


def of_this_node(state: State, state_file: StateFile, settings: Settings) -> State:
    """The state, or an empty one if it was counted under another hostname."""
    if state.is_of(settings.hostname):
        return state
    log.warning(
        "%s: the counters are those of %s; those of %s start from zero; if the name was not changed on purpose, "
        "set hostname",
        state_file.path,
        state.hostname,
        settings.hostname,
    )
    return State(adapters=state.adapters)


def _lock(state_file: StateFile, wait_seconds: float, runtime: Runtime) -> None:
    clock, waiting = runtime.clock, runtime.waiting
    give_up_at = clock.monotonic() + wait_seconds
    while True:
        try:
            _in_thread(state_file.lock, state_file, runtime)
        except BusyError:
            if waiting.stop_requested or clock.monotonic() >= give_up_at:
                raise
            waiting.wait(_LOCK_POLL_SECONDS)
        else:
            return


def _in_thread(job: Callable[[], _Result], state_file: StateFile, runtime: Runtime) -> _Result:
    return in_thread(job, runtime.waiting, runtime.wake, f"{state_file.path}: stopped before the disk answered")
