"""The node that `--simulate` runs without a configuration file, and that `make demo` shows."""

from __future__ import annotations

BUILTIN_NODE = """\
hostname = "demo"

[[mux]]
name = "m0"
chip = "tca9548a"
bus = 1
address = 0x70

[[device]]
name = "cpu"
chip = "ina260"
mux = "m0"
channel = 0
address = 0x40

[[device]]
name = "accelerator"
chip = "ina260"
mux = "m0"
channel = 1
address = 0x40

[[device]]
name = "radio"
chip = "ina3221"
mux = "m0"
channel = 2
address = 0x41
input = 2
shunt_ohms = 0.05
"""
"""TOML without a destination: two INA260 with one address and an input of an INA3221, behind a TCA9548A."""
