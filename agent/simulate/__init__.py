"""Muxes and monitor chips at register level, below the real drivers; imported by run/.

From the outside in: `i2c` is the bus object that programs hold, `wire` the bus itself with its faults, `mux` and the
chips (`ina260`, `ina3221`, on the shared machine in `chips`) are the parts on it, `rails` and `recordings` are what
the chips measure, and `world` builds all of it from a configuration. Nothing here imports a driver.
"""
