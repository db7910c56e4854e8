"""The errors of adapters on an I2C bus: what they mean, and what to say about them."""

from __future__ import annotations

import errno

# How adapters report a NACK: Raspberry Pi 121, others 5 or 6, USB adapters an OSError without a number.
_NACK = frozenset({errno.EREMOTEIO, errno.ENXIO, errno.EIO, None})
_TIME_OUT = frozenset({errno.ETIMEDOUT, errno.EAGAIN})
# The device file has lost its adapter: the USB adapter was unplugged, or its module unloaded.
_GONE = frozenset({errno.ENODEV, errno.EBADF, errno.ESHUTDOWN})


def describe(error: OSError) -> str:
    """The meaning of an adapter's error on an I2C bus, in a few words."""
    if error.errno is None:
        return str(error) or "NACK"
    if is_nack(error):
        return "NACK"
    if is_time_out(error):
        return "time-out"
    if is_gone(error):
        return f"{error.strerror}, the adapter is gone"
    if error.errno == errno.EBUSY:
        return "a kernel driver owns the address"
    return error.strerror or type(error).__name__


def is_nack(error: OSError) -> bool:
    """Whether nothing answered."""
    return error.errno in _NACK


def is_time_out(error: OSError) -> bool:
    """Whether SDA or SCL stayed low for longer than the adapter waits."""
    return error.errno in _TIME_OUT


def is_gone(error: OSError) -> bool:
    """Whether the adapter itself is gone."""
    return error.errno in _GONE
