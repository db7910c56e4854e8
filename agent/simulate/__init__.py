"""Muxes and monitor chips at register level, below the real drivers; imported by run/.

From the outside in: `i2c` is the bus object that programs hold, `wire` is the bus itself with its faults, `mux` and the
chips (`ina260`, ..., on the shared bases in `chips` and `shunt`) are the parts on it, the chips measure `rails` and
`recordings`, and `world` builds all of it from a configuration. Nothing here imports a driver.
"""
