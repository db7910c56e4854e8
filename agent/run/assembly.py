"""Assembly: makes a running agent from a configuration, and hands each part what it needs."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from agent import chips
from agent.chips import hwmon
from agent.energy.state import State
from agent.errors import ConfigError, UsageError
from agent.http.endpoint import authority
from agent.i2c.adapters import BusNames, open_bus, prepare_blinka
from agent.i2c.bus import Bus
from agent.i2c.transfers import OpenBus
from agent.measure.sweep import Sweep
from agent.run.agent import Agent, Parts
from agent.run.scrapes import Scrapes
from agent.run.state_opening import open_state
from agent.run.stopping import in_thread, is_sweep_overdue
from agent.settings import PushgatewaySettings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import ExitStack

    from agent.build_info import AgentInfo
    from agent.chips import KernelChip, Measurement
    from agent.clock import Clock
    from agent.i2c.place import BusName
    from agent.run.destination import Destination
    from agent.run.history import History
    from agent.run.publisher import Publisher
    from agent.run.stopping import Waiting
    from agent.settings import Device, Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of a run, from the command line. A dry run does not affect a service that runs beside it.

    Attributes:
        recordings: by simulated device, the recording that is played into it.
        write: prints what `--dry-run` shows.
    """

    is_once: bool = False
    is_dry_run: bool = False
    is_simulated: bool = False
    recordings: Mapping[str, Path] = field(default_factory=dict)
    write: Callable[[str], None] = print


@dataclass(frozen=True, slots=True)
class Runtime:
    """The objects that live as long as the process and outlast a reload; `wake` ends a wait of `waiting`."""

    clock: Clock
    waiting: Waiting
    environ: Mapping[str, str]
    publisher: Publisher
    info: AgentInfo
    wake: Callable[[], None]
    scrapes: Scrapes = field(default_factory=Scrapes)


class Hardware:
    """Opens buses and the chips that the kernel reads: the real ones, or simulated ones below the same drivers."""

    def __init__(self, settings: Settings, options: RunOptions, clock: Clock, stack: ExitStack) -> None:
        buses: set[BusName] = {device.place.bus for device in settings.devices if device.place is not None}
        self.bus_names = tuple(sorted(buses, key=str))
        self.open_bus: Callable[[BusName], OpenBus] = open_bus
        self.open_kernel_chip: Callable[[Sequence[Device]], KernelChip] = chips.kernel_chip
        self.sysfs = Path("/sys")
        self.hwmon_folder = hwmon.CLASS_FOLDER
        self.find_rails: Callable[[], Mapping[str, Measurement]] | None = None
        if options.is_simulated:
            self._simulate(settings, options, clock, stack)
        else:
            prepare_blinka(self.bus_names)

    def _simulate(self, settings: Settings, options: RunOptions, clock: Clock, stack: ExitStack) -> None:
        from agent.chips import rpi_pmic
        from agent.simulate.recordings import read_recording
        from agent.simulate.rpi_pmic import SimulatedFirmware
        from agent.simulate.world import build_world, refuse_unknown_devices

        prepare_blinka(())
        refuse_unknown_devices(settings, options.recordings)
        recordings = {device: read_recording(file) for device, file in options.recordings.items()}
        world = build_world(settings, clock.monotonic, recordings)
        self.open_bus = lambda bus: OpenBus(world.open(bus), None, lambda: None)
        kernel_owned = [device for device in settings.devices if device.sensor is not None]
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wattpush-"))) if kernel_owned else Path()
        # An empty folder: no driver of the real kernel owns a simulated address.
        self.sysfs = root / "sys"
        self.hwmon_folder = root / "hwmon"
        if kernel_owned:
            from agent.simulate.hwmon import SimulatedHwmon

            tree = SimulatedHwmon(kernel_owned, world.rails, root / "hwmon", clock.monotonic)

        def open_kernel_chip(devices: Sequence[Device]) -> KernelChip:
            if devices[0].rail is not None:
                return rpi_pmic.Chip(devices, SimulatedFirmware(devices, world.rails, clock.monotonic).answer)
            (device,) = devices
            sensor = str(tree.folders[device.sensor or ""])
            return _Refreshed(hwmon.Chip((replace(device, sensor=sensor),)), tree.refresh)

        self.open_kernel_chip = open_kernel_chip
        for devices in settings.kernel_chips():
            chip = open_kernel_chip(devices)
            if isinstance(chip, rpi_pmic.Chip):
                self.find_rails = chip.find


class _Refreshed:
    """A kernel-owned chip whose files are updated before each reading."""

    def __init__(self, chip: hwmon.Chip, refresh: Callable[[], None]) -> None:
        self._chip = chip
        self._refresh = refresh

    def read(self) -> tuple[Measurement]:
        self._refresh()
        return self._chip.read()

    def where(self) -> tuple[str]:
        return self._chip.where()


def make_buses(
    settings: Settings, hardware: Hardware, clock: Clock, adapters: Mapping[str, str] | None = None
) -> list[Bus]:
    """The buses that the devices are on, with their muxes; nothing is opened yet. `adapters`: see `State`."""
    adapters = adapters or {}
    names = BusNames()
    return [
        Bus(
            name,
            [mux for mux in settings.muxes if mux.bus == name],
            hardware.open_bus,
            clock,
            hardware.sysfs,
            expected_adapter=adapters.get(str(name)),
            names=names,
        )
        for name in hardware.bus_names
    ]


def make_sweep(settings: Settings, options: RunOptions, clock: Clock, stack: ExitStack, state: State) -> Sweep:
    """The sweep of a configuration; closing `stack` closes its device files. That of a dry run is an observer."""
    hardware = Hardware(settings, options, clock, stack)
    buses = make_buses(settings, hardware, clock, None if options.is_simulated else state.adapters)
    # A chip that was read before and is no longer configured has lost power; a simulated one is new each time.
    read_before = frozenset[str]() if options.is_simulated else state.devices_read_in_this_boot()
    sweep = Sweep(
        settings,
        buses,
        clock,
        hardware.open_kernel_chip,
        read_before=read_before,
        # No run stands beside a simulated chip, which is this process's own.
        is_observer=options.is_dry_run and not options.is_simulated,
    )
    stack.callback(sweep.close)
    return sweep


def make_watched_sweep(settings: Settings, options: RunOptions, clock: Clock, stack: ExitStack) -> Sweep:
    """A sweep for an observer, beside a run or without one: no state is read, locked or written.

    The energy shown starts at zero, so a power loss before the start cannot distort it.
    """
    return make_sweep(settings, replace(options, is_dry_run=True), clock, stack, State())


def destination_name(settings: Settings) -> str:
    """Where a run of this configuration pushes, for the log; empty if it pushes nowhere."""
    gateway = [] if settings.pushgateway is None else [settings.pushgateway.url]
    remote = [] if settings.remote_write is None else [f"{authority(settings.remote_write.url)} by remote write"]
    return " and to ".join([*gateway, *remote])


def make_destination(
    settings: Settings, options: RunOptions, runtime: Runtime, history: History | None = None
) -> Destination | None:
    """Where a run pushes; None if nowhere. Another kind of destination is a folder and a line here.

    Raises:
        UsageError: the command line asks for a push, and there is nowhere to push to.
    """
    gateway = settings.pushgateway
    if not settings.has_destination and options.is_dry_run:
        gateway = PushgatewaySettings("")  # shows what a configured run would push, and sends nothing
    if gateway is not None:
        return _make_pushgateway(gateway, options, runtime, history)
    if not settings.has_destination and options.is_once:
        raise UsageError("--once pushes, but without a configuration nothing says where to; print it with --dry-run")
    if history is None and (options.is_once or options.is_dry_run):
        raise UsageError(
            "--once and --dry-run push, but the configuration has neither a [pushgateway] url nor a [remote_write] url"
        )
    return None


def make_history(
    settings: Settings, options: RunOptions, runtime: Runtime, state: State, earlier: Agent | None = None
) -> History | None:
    """What keeps every interval of a run; None if nothing does. See `make_agent`."""
    remote = settings.remote_write
    if remote is None:
        return None
    if options.is_dry_run:
        from agent.history.dry_run import PrintedHistory

        return PrintedHistory(settings, remote, options.write, waits_for_push=settings.pushgateway is not None)
    from agent.history.remote_write import open_remote_write

    before = None if earlier is None else earlier.parts.history
    return open_remote_write(
        settings,
        remote,
        saved=state.remote,
        environ=runtime.environ,
        clock=runtime.clock,
        wake=runtime.wake,
        is_simulated=options.is_simulated,
        is_once=options.is_once,
        live=None if before is None else before.live,
    )


def _make_pushgateway(
    gateway: PushgatewaySettings, options: RunOptions, runtime: Runtime, history: History | None
) -> Destination:
    if options.is_dry_run:
        from agent.history.dry_run import PrintedHistory
        from agent.push.dry_run import DryRun

        if isinstance(history, PrintedHistory):
            return DryRun(gateway, options.write, history.print_waiting)
        return DryRun(gateway, options.write)
    from agent.push.gateway import Pushgateway

    clock = runtime.clock
    return Pushgateway(gateway, clock=clock, sleep=clock.sleep, environ=runtime.environ)


def make_agent(
    settings: Settings, options: RunOptions, runtime: Runtime, stack: ExitStack, earlier: Agent | None = None
) -> Agent:
    """Assemble an agent; closing `stack` closes everything that it opens.

    Args:
        settings: the configuration.
        options: from the command line.
        runtime: outlasts a reload.
        stack: closes everything that is opened.
        earlier: the agent of the configuration before, whose state file is still locked; the new one continues from it.

    Raises:
        AgentError: another instance has the state, something may not be opened, a recording is bad, ...
    """
    if earlier is not None and not options.is_simulated:
        _refuse_other_blinka(settings, earlier.settings)
    clock = runtime.clock
    saver, state = open_state(settings, options, runtime, stack, earlier)
    state = state.with_sources({device.name: device.source for device in settings.devices})
    # Its disk may stall.
    stopped = f"{settings.state_dir}: stopped before the disk answered"
    open_history = partial(make_history, settings, options, runtime, state, earlier)
    history = in_thread(open_history, runtime.waiting, runtime.wake, stopped) if settings.remote_write else None
    if history is not None:
        stack.callback(history.close)
    destination = make_destination(settings, options, runtime, history)
    if destination is not None:
        stack.callback(destination.close)
    sweep = make_sweep(settings, options, clock, stack, state)
    sweep.end_if(partial(is_sweep_overdue, clock, runtime.waiting))
    parts = Parts(settings, runtime.info, clock, sweep, destination, runtime.publisher, saver, history)
    agent = Agent(parts, state)
    if state.is_unconfirmed and earlier is None:  # a reload may still be refused: it writes to no other folder
        agent.save(ended_well=False)  # a file that ended well in another boot is not carried on a second time
    if settings.serve is None or options.is_once or options.is_dry_run:
        runtime.scrapes.close()
    else:
        # A renewal of the certificate that a power cut interrupted must not stop the pushes, and a start has no earlier
        # server to keep. Whoever only serves would see nothing: then the start fails.
        awaits_files = earlier is None and (settings.pushgateway is not None or settings.remote_write is not None)
        serve = partial(
            runtime.scrapes.serve, settings.serve, agent, environ=runtime.environ, awaits_files=awaits_files
        )
        # The address may be a name, and its lookup takes long without a name server.
        stopped = f"serve: listen: {settings.serve.host}: stopped before the name was looked up"
        in_thread(serve, runtime.waiting, runtime.wake, stopped)
    if history is not None:
        history.start()
    return agent


def _refuse_other_blinka(settings: Settings, earlier: Settings) -> None:
    """Raise ConfigError if a reload adds the bus "board": Blinka looks for its board once, when it is imported."""
    had_board, has_board = (
        any(device.place is not None and device.place.bus == "board" for device in each.devices)
        for each in (earlier, settings)
    )
    if has_board and not had_board:
        raise ConfigError(('bus = "board" cannot be added by a reload; restart: sudo systemctl restart wattpush',))
