"""I2C buses, the muxes on them and the paths to chips; imported by all to its right.

Buses are opened through Blinka and locked against other processes. `attempts` repeats a transfer that ends with a NACK
and bounds the time lost to failures; `switches` opens and closes the channels on the path to a chip, and reads every
mux back after the chip was read.
"""
