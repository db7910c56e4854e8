"""A run, which has no command word: sample and push until SIGTERM, or once."""

from __future__ import annotations

import logging
import os
import sys
import time
import zlib
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from agent import __version__
from agent.build_info import agent_info, hostname, machine_hash
from agent.clock import ClockSteps, SystemClock
from agent.commands import collect_garbage_as_usual, config_file, is_simulated, load_settings, parse_duration
from agent.errors import AgentError, BusyError, ConfigError, ExitCode, UsageError
from agent.log import counted
from agent.run.signals import Signals

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable

    from agent.run.agent import Agent
    from agent.run.assembly import RunOptions, Runtime
    from agent.run.loop import Loop
    from agent.run.saver import Saver
    from agent.settings import Settings
    from agent.threads import Background

log = logging.getLogger("agent")


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of a run."""
    running = parser.add_argument_group("running")
    add = running.add_argument
    add("--once", action="store_true", help="read every device once, push once, exit")
    add("--dry-run", action="store_true", help="print what would be pushed; push nothing and change nothing")
    add(
        "--trace",
        metavar="DEVICE=FILE",
        action="append",
        default=[],
        help="simulate, and play a recording (CSV: seconds,volts,amperes; also .gz) into this device; may be repeated",
    )
    add("--splay", metavar="DURATION", help="wait up to DURATION before starting; fixed for each machine")


def given(options: Namespace) -> list[str]:
    """The run options that were given. Commands refuse them: one that ignored --dry-run would change things."""
    values = {"--once": options.once, "--dry-run": options.dry_run, "--trace": options.trace, "--splay": options.splay}
    return [name for name, value in values.items() if value]


def run(options: Namespace) -> int:
    """Run; return the exit code."""
    with Signals() as signals:
        run_options = _run_options(options)
        splay_seconds = _splay_seconds(options.splay)
        try:
            settings = _read_settings(options, signals)
        except BusyError:
            return ExitCode.OK  # stopped
        runtime = _runtime(signals, run_options)
        _wait_until(time.monotonic() + splay_seconds, signals)
        if signals.stop_requested:
            return ExitCode.OK
        if run_options.is_once:
            return _run_once(settings, run_options, runtime, signals)
        try:
            return _run_loop(options, settings, run_options, runtime, signals)
        finally:
            runtime.scrapes.close()


def _run_options(options: Namespace) -> RunOptions:
    from agent.run.assembly import RunOptions

    recordings: dict[str, Path] = {}
    for trace in options.trace:
        device, equals, file = trace.partition("=")
        if not (device and equals and file):
            raise UsageError(f"--trace {trace}: expected DEVICE=FILE.csv or DEVICE=FILE.csv.gz")
        if device in recordings:
            raise UsageError(f"--trace {trace}: {device} already has a recording")
        recordings[device] = Path(file)

    output = sys.stdout  # also while the opening of a board points sys.stdout to stderr

    def write(text: str) -> None:
        # Not through sys.stdout: while a reader stalls, its lock is held, and the exit would wait for it.
        data = text.encode()
        while data:
            data = data[os.write(output.fileno(), data) :]

    return RunOptions(options.once, options.dry_run, is_simulated(options), recordings, write)


def _splay_seconds(splay: str | None) -> float:
    """A share of the splay that is fixed for each machine, so that its pushes stay evenly spaced."""
    if splay is None:
        return 0.0
    try:
        longest_seconds = parse_duration(splay)
    except ValueError as error:
        raise UsageError(f"--splay {splay}: {error}") from error
    share: float = zlib.crc32((machine_hash() + hostname()).encode()) / 2**32
    return longest_seconds * share


def _runtime(signals: Signals, run_options: RunOptions) -> Runtime:
    from agent.run.assembly import Runtime
    from agent.run.publisher import Publisher

    clock = SystemClock()
    return Runtime(
        clock=clock,
        waiting=signals,
        environ=os.environ,
        publisher=Publisher(clock, signals.wake),
        wake=signals.wake,
        info=agent_info(
            is_simulated=run_options.is_simulated, start_time_seconds=clock.time(), clock_steps=ClockSteps()
        ),
    )


def _wait_until(seconds: float, signals: Signals) -> None:
    while not signals.stop_requested and time.monotonic() < seconds:
        signals.wait(seconds - time.monotonic())


def _run_once(settings: Settings, run_options: RunOptions, runtime: Runtime, signals: Signals) -> int:
    from agent.run.assembly import destination_name, make_agent
    from agent.run.once import run_once

    _log_warnings(settings, run_options)
    with ExitStack() as stack:
        try:
            agent = make_agent(settings, run_options, runtime, stack)
        except BusyError:
            if signals.stop_requested:  # while it waited for the previous run
                return ExitCode.OK
            raise
        code = run_once(agent, runtime.clock, signals)
    # A timer's or cron's run is silent if all is well: cron would mail every line.
    if code is ExitCode.OK and sys.stderr.isatty() and not run_options.is_dry_run and not signals.stop_requested:
        devices = counted(len(settings.devices), "device")
        log.info("%s read, pushed to %s as %s", devices, destination_name(settings), settings.hostname)
    return code


def _run_loop(
    options: Namespace,
    settings: Settings,
    run_options: RunOptions,
    runtime: Runtime,
    signals: Signals,
) -> int:
    from agent.run.assembly import destination_name, make_agent
    from agent.run.loop import Loop
    from agent.run.systemd import Notifier

    _log_warnings(settings, run_options)
    _log_start(settings, run_options, destination_name(settings))
    collect_garbage_as_usual()
    notifier = Notifier(os.environ)
    earlier: Agent | None = None
    loop: Loop | None = None
    held: Saver | None = None
    read = partial(load_settings, options, needs_file=settings.has_destination)
    while True:
        with ExitStack() as stack:
            try:
                agent = make_agent(settings, run_options, runtime, stack, earlier)
            except AgentError as error:
                if signals.stop_requested:  # while it waited for the disk, or for a name server
                    return _finish_earlier(loop, earlier)
                if earlier is None or settings is earlier.settings:
                    raise
                _log_not_reloaded(error)
                settings = earlier.settings
                continue
            if earlier is not None:
                _take_over(agent, earlier, run_options)
            if held is not None:
                _leave(held, agent, runtime)
            loop = Loop(agent, runtime.clock, signals, notifier)
            new_settings: Settings | None = None
            while new_settings is None:
                loop.run()
                new_settings = _reloaded(read, signals, loop)
                if signals.stop_requested:
                    log.info("stopping")
                    loop.finish()
                    return ExitCode.OK
            loop.hand_over(ends_series=_history_server(new_settings) != _history_server(settings))
            # The lock is held throughout: a waiting `--once` would take it, and this run would have to end.
            held = agent.parts.saver
            if held is not None:
                held.lock()
        read = partial(load_settings, options, needs_file=new_settings.has_destination)
        earlier, settings = agent, new_settings


def _take_over(agent: Agent, earlier: Agent, run_options: RunOptions) -> None:
    agent.take_over_from(earlier)
    if agent.settings is not earlier.settings:
        log.info("configuration reloaded")
        if not earlier.settings.has_destination:
            from agent.run.assembly import destination_name

            _log_start(agent.settings, run_options, destination_name(agent.settings))


def _finish_earlier(loop: Loop | None, earlier: Agent | None) -> int:
    """Stop while a configuration is being taken into use: end the run of the one before it, if there was one."""
    if loop is not None and earlier is not None:
        log.info("stopping")
        loop.finish()
        if earlier.parts.destination is not None:
            earlier.parts.destination.close()  # the last push has opened it again
    return ExitCode.OK


def _leave(held: Saver, agent: Agent, runtime: Runtime) -> None:
    """Give up the state file of the configuration before; one in another folder is emptied.

    Its counters continue in the new folder. If it kept them, a later run there would go back to them.
    """
    from agent.energy.state import State
    from agent.run.stopping import STOP_SECONDS, await_save

    if held is not agent.parts.saver:
        agent.save(ended_well=False)
        held.save(State(), ended_well=True)
        # A short wait: the next reload finds the folder locked only if its disk stalls.
        await_save(held, runtime.clock, runtime.waiting, runtime.clock.monotonic() + STOP_SECONDS)
    held.unlock()


def _read_settings(options: Namespace, signals: Signals) -> Settings:
    """The present configuration. Its disk may stall; raises BusyError if a stop was requested meanwhile."""
    from agent.run.stopping import in_thread

    stopped = f"{config_file(options)}: stopped before the disk answered"
    return in_thread(lambda: load_settings(options), signals, signals.wake, stopped)


def _reloaded(read: Callable[[], Settings], signals: Signals, loop: Loop) -> Settings | None:
    """The present configuration, if a reload is requested; None if it is bad, so that the old one stays in force.

    The loop goes on meanwhile: the disk may stall, and a chip's package may take long to import.
    """
    from agent.threads import Background

    reading: Background[Settings] = Background("reload", signals.wake)
    settings = None
    while signals.reload_requested and not signals.stop_requested:  # again, if the file may have changed since
        signals.reload_requested = False
        reading.start(read)
        loop.run_while(lambda: not reading.has_ended)
        try:
            settings = _take_settings(reading, read)
        except AgentError as error:
            _log_not_reloaded(error)
            settings = None
    if settings is None or signals.stop_requested:
        return None
    for warning in settings.warnings:
        log.warning("%s", warning)
    return settings


def _take_settings(reading: Background[Settings], read: Callable[[], Settings]) -> Settings | None:
    """What was read in the background; None if it is not over. Raises as `load_settings`."""
    from agent.threads import NoThreadError

    try:
        return reading.take_result()
    except NoThreadError:
        return read()


def _log_not_reloaded(error: AgentError) -> None:
    for problem in error.problems if isinstance(error, ConfigError) else (str(error),):
        log.error("%s", problem)
    log.error("the configuration is not reloaded; the old one stays in force")


def _log_warnings(settings: Settings, run_options: RunOptions) -> None:
    for warning in settings.warnings:
        log.warning("%s", warning)
    if not settings.has_destination:
        ways = "wattpush watch --simulate shows its readings, --simulate --dry-run what would be pushed"
        log.warning(
            "no configuration: simulating the built-in node, and pushing nothing%s",
            "" if run_options.is_dry_run else f"; {ways}",
        )
    elif run_options.is_simulated:
        log.warning("simulated chips: their numbers are not measured")


def _history_server(settings: Settings) -> str | None:
    return None if settings.remote_write is None else settings.remote_write.url


def _log_start(settings: Settings, run_options: RunOptions, destination: str) -> None:
    devices, name = counted(len(settings.devices), "device"), settings.hostname
    read = f"wattpush {__version__}: {devices} read every {settings.sample_interval_seconds:g} s"
    if run_options.is_dry_run:
        what = "printed"
    elif destination:
        what = f"pushed to {destination}"
    elif settings.serve is not None:
        what = "published for scrapes"
    else:
        log.info("%s as %s; nothing is pushed", read, name)
        return
    log.info("%s, %s every %g s as %s", read, what, settings.interval_seconds, name)
