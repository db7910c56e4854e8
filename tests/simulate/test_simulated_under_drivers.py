"""The published drivers, unchanged, on the simulated bus."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import adafruit_ina23x
import adafruit_ina219
import adafruit_ina228
import adafruit_ina260
import adafruit_ina3221
import adafruit_tca9548a
import pytest
from adafruit_bus_device.i2c_device import I2CDevice

from agent.i2c.muxes import MUX_KINDS
from agent.simulate import ina228_family
from agent.simulate.i2c import SimulatedI2C
from agent.simulate.ina219 import SimulatedINA219
from agent.simulate.ina228 import SimulatedINA228
from agent.simulate.ina237 import SimulatedINA237
from agent.simulate.ina238 import SimulatedINA238
from agent.simulate.ina260 import SimulatedINA260
from agent.simulate.ina3221 import Input, SimulatedINA3221
from agent.simulate.mux import SimulatedMux
from agent.simulate.rails import ConstantRail

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.simulate.chips import Register
    from agent.simulate.ina228_family import SimulatedINA228Family
    from agent.simulate.wire import Wire
    from tests.simulate.simulated_clock import HandClock


@pytest.fixture
def i2c(wire: Wire) -> SimulatedI2C:
    return SimulatedI2C(wire)


@pytest.fixture
def chip(wire: Wire, rail: ConstantRail, clock: HandClock) -> SimulatedINA260:
    chip = SimulatedINA260(0x40, rail, clock)
    wire.attach(chip)
    return chip


@pytest.fixture
def ina3221(wire: Wire, rail: ConstantRail, clock: HandClock) -> SimulatedINA3221:
    chip = SimulatedINA3221(0x41, {2: Input(rail, 0.05)}, clock)
    wire.attach(chip)
    return chip


@pytest.mark.usefixtures("chip")
def test_the_ina260_driver_reads_zero_until_the_first_conversion(i2c: SimulatedI2C, clock: HandClock) -> None:
    driver = adafruit_ina260.INA260(i2c, 0x40)
    assert (driver.voltage, driver.current, driver.power) == (0, 0, 0)
    clock.advance(0.0022)
    assert (driver.voltage, driver.current, driver.power) == (5.0, 1000.0, 5000)
    assert driver.revision_id == 0


def test_the_ina260_driver_refuses_another_chip_and_an_empty_address(
    i2c: SimulatedI2C, ina3221: SimulatedINA3221
) -> None:
    with pytest.raises(RuntimeError, match="INA260 ID"):
        adafruit_ina260.INA260(i2c, ina3221.address)
    with pytest.raises(ValueError, match="No I2C device"):
        adafruit_ina260.INA260(i2c, 0x4F)
    assert i2c.try_lock()


@pytest.mark.usefixtures("chip")
def test_the_drivers_probe_works_on_an_adapter_that_refuses_empty_writes(wire: Wire, i2c: SimulatedI2C) -> None:
    wire.refuses_zero_length = True
    adafruit_ina260.INA260(i2c, 0x40)
    assert wire.transactions == 3  # the probe by reading, and the two IDs


def test_a_stock_reading_behind_a_mux_costs_528_bits(
    wire: Wire, i2c: SimulatedI2C, rail: ConstantRail, clock: HandClock
) -> None:
    mux = SimulatedMux(0x70)
    mux.attach(5, SimulatedINA260(0x40, rail, clock))
    wire.attach(mux)
    driver = adafruit_ina260.INA260(adafruit_tca9548a.TCA9548A(i2c)[5], 0x40)
    clock.advance(1.0)
    before = wire.transactions, wire.bits
    assert (driver.voltage, driver.current, driver.power) == (5.0, 1000.0, 5000)
    assert (wire.transactions - before[0], wire.bits - before[1]) == (18, 528)
    assert mux.open_channels == ()


def test_channels_of_nested_muxes_reach_the_right_chip_each(wire: Wire, i2c: SimulatedI2C, clock: HandClock) -> None:
    outer, inner = SimulatedMux(0x70), SimulatedMux(0x71)
    wire.attach(outer)
    outer.attach(1, inner)
    for channel in range(8):
        inner.attach(channel, SimulatedINA260(0x40, ConstantRail(1.0 + channel, 0.5, clock), clock))
    clock.advance(1.0)
    through = adafruit_tca9548a.TCA9548A(adafruit_tca9548a.TCA9548A(i2c, 0x70)[1], 0x71)
    volts = [adafruit_ina260.INA260(through[channel], 0x40).voltage for channel in range(8)]
    assert volts == pytest.approx([1, 2, 3, 4, 5, 6, 7, 8])


def test_the_pca9546a_driver_reaches_a_chip(
    wire: Wire, i2c: SimulatedI2C, rail: ConstantRail, clock: HandClock
) -> None:
    mux = SimulatedMux(0x72, MUX_KINDS["pca9546a"])
    mux.attach(3, SimulatedINA260(0x40, rail, clock))
    wire.attach(mux)
    clock.advance(1.0)
    assert adafruit_ina260.INA260(adafruit_tca9548a.PCA9546A(i2c, 0x72)[3], 0x40).voltage == 5.0


def test_a_channel_left_open_silently_reads_a_wired_and(
    wire: Wire, i2c: SimulatedI2C, rail: ConstantRail, clock: HandClock
) -> None:
    for address, behind in ((0x70, rail), (0x71, ConstantRail(12.0, 1.0, clock))):
        mux = SimulatedMux(address)
        mux.attach(0, SimulatedINA260(0x40, behind, clock))
        wire.attach(mux)
    driver = adafruit_ina260.INA260(adafruit_tca9548a.TCA9548A(i2c, 0x70)[0], 0x40)
    clock.advance(1.0)
    assert driver.voltage == 5.0
    wire.transfer([(0x71, False, b"\x01")])
    assert driver.voltage == pytest.approx(1.76)


@pytest.mark.usefixtures("chip")
def test_the_drivers_setters_act_as_on_a_real_chip(i2c: SimulatedI2C, clock: HandClock) -> None:
    driver = adafruit_ina260.INA260(i2c, 0x40)
    driver.averaging_count = adafruit_ina260.AveragingCount.COUNT_64
    driver.alert_limit = 0x1234
    clock.advance(1.0)
    assert driver.averaging_count == adafruit_ina260.AveragingCount.COUNT_64
    assert driver.voltage == 5.0
    driver.averaging_count = 64  # not masked: lands on the reset bit
    assert driver.averaging_count == adafruit_ina260.AveragingCount.COUNT_1
    assert (driver.alert_limit, driver.voltage) == (0, 0)
    driver.averaging_count = adafruit_ina260.AveragingCount.COUNT_4
    driver.averaging_count = 16  # lands on a bit that cannot be written, and clears the field
    assert driver.averaging_count == adafruit_ina260.AveragingCount.COUNT_1


@pytest.mark.usefixtures("chip")
def test_current_flowing_back_is_negative_and_power_has_no_sign(
    i2c: SimulatedI2C, rail: ConstantRail, clock: HandClock
) -> None:
    rail.volts, rail.amperes = 12.0, -2.5
    clock.advance(0.01)
    driver = adafruit_ina260.INA260(i2c, 0x40)
    assert (driver.voltage, driver.current, driver.power) == (12.0, -2500.0, 30000)


def test_the_driver_does_not_notice_a_power_loss_and_reads_zero(
    i2c: SimulatedI2C, chip: SimulatedINA260, clock: HandClock
) -> None:
    driver = adafruit_ina260.INA260(i2c, 0x40)
    driver.averaging_count = adafruit_ina260.AveragingCount.COUNT_16
    clock.advance(1.0)
    chip.power_loss()
    assert (driver.voltage, driver.averaging_count) == (0, 0)
    clock.advance(0.0022)
    assert driver.voltage == 5.0


def test_an_unplugged_chip_is_an_error_and_later_starts_fresh(
    i2c: SimulatedI2C, chip: SimulatedINA260, clock: HandClock
) -> None:
    driver = adafruit_ina260.INA260(i2c, 0x40)
    clock.advance(1.0)
    chip.unplug()
    with pytest.raises(OSError, match=r"\[Errno 121\]"):
        _ = driver.voltage
    assert i2c.try_lock()  # the driver let go of it
    i2c.unlock()
    clock.advance(1.0)
    chip.plug()
    assert driver.voltage == 0
    clock.advance(0.0022)
    assert driver.voltage == 5.0


def test_a_silent_mux_leaves_the_stock_channel_locked(
    wire: Wire, i2c: SimulatedI2C, rail: ConstantRail, clock: HandClock
) -> None:
    mux = SimulatedMux(0x70)
    mux.attach(0, SimulatedINA260(0x40, rail, clock))
    wire.attach(mux)
    driver = adafruit_ina260.INA260(adafruit_tca9548a.TCA9548A(i2c)[0], 0x40)
    mux.unplug()
    with pytest.raises(OSError, match=r"\[Errno 121\]"):
        _ = driver.voltage
    assert not i2c.try_lock()


@pytest.mark.usefixtures("ina3221")
def test_the_ina3221_driver_reads_zero_for_3_2_seconds(i2c: SimulatedI2C, clock: HandClock) -> None:
    clock.advance(10.0)
    driver = adafruit_ina3221.INA3221(i2c, 0x41)
    assert (driver.manufacturer_id, driver.die_id) == (0x5449, 0x3220)
    clock.advance(3.165)
    assert (driver[1].bus_voltage, driver[1].current) == (0, 0)
    clock.advance(3.165696 - 3.165)
    assert (driver[1].bus_voltage, driver[1].current) == (5.0, pytest.approx(1000.0))
    assert (driver[0].bus_voltage, driver[0].current) == (0, 0)
    assert driver.flags == 0b11


@pytest.mark.usefixtures("ina3221")
def test_the_ina3221_driver_reads_negative_currents_one_step_too_small(
    i2c: SimulatedI2C, rail: ConstantRail, clock: HandClock
) -> None:
    rail.amperes = -1.0
    driver = adafruit_ina3221.INA3221(i2c, 0x41)
    clock.advance(4.0)
    assert driver[1].shunt_voltage == pytest.approx(-50.0 + 0.04)


@pytest.mark.usefixtures("chip")
def test_a_bus_device_reads_from_the_pointer_it_set(i2c: SimulatedI2C) -> None:
    device = I2CDevice(i2c, 0x40)
    answer = bytearray(2)
    with device:
        device.write(b"\xfe")
        device.readinto(answer)
    assert answer == b"\x54\x49"


# The chips with a shunt on the board: as the published drivers read them, with their calibration


def test_the_ina219_driver_calibrates_and_reads_the_chip(
    wire: Wire, i2c: SimulatedI2C, rail: ConstantRail, clock: HandClock
) -> None:
    wire.attach(SimulatedINA219(0x40, rail, 0.1, clock))
    driver = adafruit_ina219.INA219(i2c)
    assert not driver.conversion_ready
    clock.advance(0.0011)
    assert driver.conversion_ready
    assert (driver.bus_voltage, driver.shunt_voltage) == (5.0, pytest.approx(0.1))
    assert driver.current == pytest.approx(1000.0)
    assert driver.power == pytest.approx(5.0)  # reading it clears the flag
    assert not driver.conversion_ready
    rail.amperes = -2.0
    clock.advance(0.0022)
    assert driver.current == pytest.approx(-2000.0)


def test_the_ina219_stops_at_the_end_of_its_ranges(
    wire: Wire, i2c: SimulatedI2C, rail: ConstantRail, clock: HandClock
) -> None:
    wire.attach(SimulatedINA219(0x40, rail, 0.1, clock))
    driver = adafruit_ina219.INA219(i2c)
    driver.gain = adafruit_ina219.Gain.DIV_1_40MV
    driver.bus_voltage_range = adafruit_ina219.BusVoltageRange.RANGE_16V
    rail.volts = 20.0
    clock.advance(0.0022)
    assert (driver.shunt_voltage, driver.bus_voltage) == (pytest.approx(0.04), 16.0)


@pytest.mark.parametrize("narrow", [False, True])
def test_the_ina228_driver_reads_volts_watts_joules_and_coulombs(
    wire: Wire, i2c: SimulatedI2C, rail: ConstantRail, clock: HandClock, *, narrow: bool
) -> None:
    wire.attach(SimulatedINA228(0x40, rail, 0.015, clock))
    driver = adafruit_ina228.INA228(i2c)  # with a shunt of 0.015 ohm
    driver.adc_range = int(narrow)
    driver.reset_accumulators()
    clock.advance(100.0)
    assert driver.bus_voltage == pytest.approx(5.0)
    assert driver.shunt_voltage == pytest.approx(0.015, rel=1e-4)
    assert driver.power == pytest.approx(5.0, rel=0.001)
    assert driver.energy == pytest.approx(500.0, rel=0.002)
    assert driver.charge == pytest.approx(100.0, rel=0.002)
    assert driver.die_temperature == 25.0
    rail.amperes = -1.0
    clock.advance(200.0)
    assert driver.energy == pytest.approx(1500.0, rel=0.002)
    assert driver.charge == pytest.approx(-100.0, rel=0.005)


class INA237WithDeviceID(SimulatedINA237):
    """Adafruit's driver requires this ID, which is not in the datasheet."""

    REGISTERS: ClassVar[Mapping[int, Register]] = ina228_family.registers(device_id=0x2371)


@pytest.mark.parametrize("chip", [INA237WithDeviceID, SimulatedINA238])
def test_the_ina23x_driver_reads_volts_amperes_and_watts(
    wire: Wire, i2c: SimulatedI2C, rail: ConstantRail, clock: HandClock, chip: type[SimulatedINA228Family]
) -> None:
    wire.attach(chip(0x40, rail, 0.015, clock))
    driver = adafruit_ina23x.INA23X(i2c)
    clock.advance(1.0)
    assert driver.conversion_ready
    assert (driver.bus_voltage, driver.shunt_voltage) == (pytest.approx(5.0), pytest.approx(0.015))
    assert driver.current == pytest.approx(1.0, rel=0.001)
    assert driver.power == pytest.approx(5.0, rel=0.001)
    assert driver.die_temperature == 25.0
    rail.amperes = -1.0
    clock.advance(1.0)
    assert driver.current == pytest.approx(-1.0, rel=0.001)
