"""I2C buses, the muxes on them and the paths to chips; imported by all to its right."""
