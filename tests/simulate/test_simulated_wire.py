from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from agent.i2c.muxes import MUX_KINDS
from agent.simulate.i2c import SimulatedI2C
from agent.simulate.ina260 import SimulatedINA260
from agent.simulate.mux import SimulatedMux
from agent.simulate.rails import ConstantRail

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.simulate.wire import Transaction, Wire
    from tests.simulate.simulated_clock import HandClock

CONFIG = 0x00
VOLTAGE = 0x02


def read_register(wire: Wire, address: int, register: int) -> int:
    answer = bytearray(2)
    wire.transfer([(address, False, bytes([register])), (address, True, answer)])
    return int.from_bytes(answer, "big")


def write_register(wire: Wire, address: int, register: int, word: int) -> None:
    wire.transfer([(address, False, bytes([register, word >> 8, word & 0xFF]))])


@pytest.fixture
def chip(wire: Wire, rail: ConstantRail, clock: HandClock) -> SimulatedINA260:
    chip = SimulatedINA260(0x40, rail, clock)
    wire.attach(chip)
    return chip


def test_an_empty_address_is_a_nack_of_11_bits(wire: Wire) -> None:
    with pytest.raises(OSError, match=r"\[Errno 121\]") as failure:
        wire.transfer([(0x40, False, b"\x00")])
    assert failure.value.errno == errno.EREMOTEIO
    assert (wire.transactions, wire.bits) == (1, 11)


@pytest.mark.usefixtures("chip")
def test_a_register_read_costs_48_bits_and_a_pointer_write_20(wire: Wire) -> None:
    read_register(wire, 0x40, CONFIG)
    assert (wire.transactions, wire.bits) == (1, 48)
    wire.transfer([(0x40, False, b"\x02")])
    assert (wire.transactions, wire.bits) == (2, 68)


@pytest.mark.usefixtures("chip")
def test_an_empty_write_finds_a_chip_unless_the_adapter_refuses_it(wire: Wire) -> None:
    wire.transfer([(0x40, False, b"")])
    assert wire.bits == 11
    wire.refuses_zero_length = True
    with pytest.raises(OSError, match="not supported") as failure:
        wire.transfer([(0x40, False, b"")])
    assert failure.value.errno == errno.EOPNOTSUPP
    assert (wire.transactions, wire.bits) == (1, 11)


@pytest.mark.usefixtures("chip")
def test_two_chips_at_one_address_read_as_the_wired_and(wire: Wire, clock: HandClock) -> None:
    other = SimulatedINA260(0x40, ConstantRail(12.0, 1.0, clock), clock)
    wire.attach(other)
    clock.advance(0.0022)
    assert read_register(wire, 0x40, VOLTAGE) * 0.00125 == pytest.approx(1.76)
    write_register(wire, 0x40, CONFIG, 0x0007)
    other.unplug()
    assert read_register(wire, 0x40, CONFIG) == 0x6007
    other.plug()
    assert read_register(wire, 0x40, CONFIG) == 0x6007 & 0x6127


def test_a_fault_before_the_effect_leaves_the_chip_as_it_was(wire: Wire, chip: SimulatedINA260) -> None:
    wire.faults.fail_at(0)
    with pytest.raises(OSError, match=r"\[Errno 121\]"):
        write_register(wire, 0x40, CONFIG, 0x0007)
    assert wire.bits == 11
    assert read_register(wire, 0x40, CONFIG) == 0x6127
    assert chip.read(2) == b"\x61\x27"


@pytest.mark.usefixtures("chip")
def test_a_fault_after_the_effect_is_an_error_to_the_host_only(wire: Wire) -> None:
    wire.faults.fail_at(1, errno.ETIMEDOUT, after_effect=True)
    read_register(wire, 0x40, CONFIG)
    with pytest.raises(OSError, match="timed out"):
        write_register(wire, 0x40, CONFIG, 0x0007)
    assert read_register(wire, 0x40, CONFIG) == 0x6007


@pytest.mark.usefixtures("chip")
def test_a_failed_read_leaves_the_buffer_as_it_was(wire: Wire) -> None:
    wire.faults.fail_at(0, errno.ETIMEDOUT, after_effect=True)
    buffer = bytearray(b"\xab\xcd")
    with pytest.raises(OSError, match="timed out"):
        wire.transfer([(0x40, True, buffer)])
    assert buffer == b"\xab\xcd"


@pytest.mark.usefixtures("chip")
def test_faults_can_choose_by_content_and_end_when_cleared(wire: Wire) -> None:
    def writes_configuration(transaction: Transaction) -> int | None:
        return errno.EIO if any(len(message.data) == 3 for message in transaction.messages) else None

    wire.faults.fail_when(writes_configuration)
    assert read_register(wire, 0x40, CONFIG) == 0x6127
    with pytest.raises(OSError, match=r"\[Errno 5\]"):
        write_register(wire, 0x40, CONFIG, 0x0007)
    wire.faults.clear()
    write_register(wire, 0x40, CONFIG, 0x0007)
    assert read_register(wire, 0x40, CONFIG) == 0x6007


@pytest.mark.usefixtures("chip")
def test_every_single_transaction_of_a_sequence_can_be_made_to_fail(wire: Wire) -> None:
    for position in range(3):
        wire.faults.clear()
        first = wire.transactions
        wire.faults.fail_at(first + position)
        failed = []
        for step in range(3):
            try:
                read_register(wire, 0x40, CONFIG)
            except OSError:
                failed.append(step)
        assert failed == [position]


@pytest.mark.usefixtures("chip")
def test_the_log_holds_writes_answers_and_errors(wire: Wire, clock: HandClock) -> None:
    wire.log = []
    clock.advance(1.5)
    read_register(wire, 0x40, CONFIG)
    with pytest.raises(OSError, match=r"\[Errno 121\]"):
        read_register(wire, 0x41, CONFIG)
    good, bad = wire.log
    assert (good.index, good.seconds, good.error) == (0, 1.5, None)
    assert [(m.address, m.is_read, m.data) for m in good.messages] == [(0x40, False, b"\0"), (0x40, True, b"\x61\x27")]
    assert (bad.index, bad.error) == (1, errno.EREMOTEIO)
    assert [m.data for m in bad.messages] == [b"\0", b"\0\0"]


@pytest.mark.parametrize(
    "access",
    [
        lambda i2c: i2c.writeto(0x40, b"\0"),
        lambda i2c: i2c.readfrom_into(0x40, bytearray(1)),
        lambda i2c: i2c.writeto_then_readfrom(0x40, b"\0", bytearray(2)),
        lambda i2c: i2c.scan(),
    ],
)
@pytest.mark.usefixtures("chip")
def test_nothing_goes_over_the_bus_without_the_lock(wire: Wire, access: Callable[[SimulatedI2C], object]) -> None:
    i2c = SimulatedI2C(wire)
    with pytest.raises(RuntimeError, match="lock"):
        access(i2c)
    assert wire.transactions == 0
    assert i2c.try_lock()
    access(i2c)
    i2c.unlock()
    with pytest.raises(RuntimeError, match="lock"):
        access(i2c)


def test_the_lock_is_one_plain_flag_of_each_bus_object(wire: Wire) -> None:
    i2c = SimulatedI2C(wire)
    assert i2c.try_lock()
    assert not i2c.try_lock()
    assert SimulatedI2C(wire).try_lock()
    i2c.unlock()
    i2c.unlock()
    assert i2c.try_lock()


@pytest.mark.usefixtures("chip")
def test_slices_of_one_shared_buffer_are_honoured(wire: Wire) -> None:
    i2c = SimulatedI2C(wire)
    assert i2c.try_lock()
    buffer = bytearray(b"\xfe\xaa\xaa\x55")
    i2c.writeto_then_readfrom(0x40, buffer, buffer, out_end=1, in_start=1, in_end=3)
    assert buffer == b"\xfe\x54\x49\x55"
    assert wire.transactions == 1
    i2c.writeto_then_readfrom(0x40, buffer, buffer, out_end=1, in_start=1, in_end=3, stop=True)
    assert wire.transactions == 3
    i2c.writeto(0x40, b"\x99\xff", start=1)
    i2c.readfrom_into(0x40, buffer, start=2)
    assert buffer == b"\xfe\x54\x22\x70"


@pytest.mark.usefixtures("chip")
def test_a_bus_object_cannot_be_used_after_deinit(wire: Wire) -> None:
    i2c = SimulatedI2C(wire)
    assert i2c.try_lock()
    i2c.deinit()
    with pytest.raises(ValueError, match="deinit"):
        i2c.scan()


@pytest.mark.parametrize("refuses_zero_length", [False, True])
@pytest.mark.usefixtures("chip")
def test_a_scan_finds_the_trunk_and_what_is_behind_open_channels(
    wire: Wire, clock: HandClock, rail: ConstantRail, *, refuses_zero_length: bool
) -> None:
    wire.refuses_zero_length = refuses_zero_length
    mux = SimulatedMux(0x70)
    mux.attach(2, SimulatedINA260(0x44, rail, clock))
    wire.attach(mux)
    i2c = SimulatedI2C(wire)
    assert i2c.try_lock()
    assert i2c.scan() == [0x40, 0x70]
    i2c.writeto(0x70, b"\x04")
    assert i2c.scan() == [0x40, 0x44, 0x70]


def test_a_mux_channel_opens_only_after_the_stop(wire: Wire, clock: HandClock, rail: ConstantRail) -> None:
    mux = SimulatedMux(0x70)
    mux.attach(0, SimulatedINA260(0x40, rail, clock))
    wire.attach(mux)
    with pytest.raises(OSError, match=r"\[Errno 121\]"):
        wire.transfer([(0x70, False, b"\x01"), (0x40, False, b"\x00")])
    assert mux.open_channels == (0,)  # the STOP of the failed transaction
    wire.transfer([(0x70, False, b"\x00"), (0x40, False, b"\x00")])
    with pytest.raises(OSError, match=r"\[Errno 121\]"):
        wire.transfer([(0x40, False, b"\x00")])


def test_a_mux_keeps_the_last_byte_written_and_gives_it_back(wire: Wire) -> None:
    mux = SimulatedMux(0x71)
    wire.attach(mux)
    wire.transfer([(0x71, False, b"\x01\xa5")])
    wire.transfer([(0x71, False, b"")])
    answer = bytearray(2)
    wire.transfer([(0x71, True, answer)])
    assert answer == b"\xa5\xa5"
    assert mux.open_channels == (0, 2, 5, 7)


def test_a_pca9546a_has_four_bits(wire: Wire) -> None:
    mux = SimulatedMux(0x70, MUX_KINDS["pca9546a"])
    wire.attach(mux)
    answer = bytearray(1)
    wire.transfer([(0x70, False, b"\xff"), (0x70, True, answer)])
    assert answer == b"\x0f"
    assert mux.open_channels == (0, 1, 2, 3)


def test_a_mux_that_loses_its_power_closes_all_channels(wire: Wire, clock: HandClock, rail: ConstantRail) -> None:
    mux = SimulatedMux(0x70)
    mux.attach(3, SimulatedINA260(0x40, rail, clock))
    wire.attach(mux)
    wire.transfer([(0x70, False, b"\x08")])
    assert read_register(wire, 0x40, CONFIG) == 0x6127
    mux.power_loss()
    with pytest.raises(OSError, match=r"\[Errno 121\]"):
        read_register(wire, 0x40, CONFIG)
    answer = bytearray(b"\xff")
    wire.transfer([(0x70, True, answer)])
    assert answer == b"\x00"


def test_an_unplugged_mux_disconnects_everything_behind_it(wire: Wire, clock: HandClock, rail: ConstantRail) -> None:
    outer, inner = SimulatedMux(0x70), SimulatedMux(0x71)
    wire.attach(outer)
    outer.attach(7, inner)
    inner.attach(1, SimulatedINA260(0x40, rail, clock))
    wire.transfer([(0x70, False, b"\x80")])
    wire.transfer([(0x71, False, b"\x02")])
    assert read_register(wire, 0x40, CONFIG) == 0x6127
    outer.unplug()
    for address in (0x70, 0x71, 0x40):
        with pytest.raises(OSError, match=r"\[Errno 121\]"):
            wire.transfer([(address, False, b"")])
    outer.plug()
    wire.transfer([(0x70, False, b"\x80")])
    assert read_register(wire, 0x40, CONFIG) == 0x6127  # the inner mux kept its supply and its channel
