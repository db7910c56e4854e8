"""I2C buses, the muxes on them and the paths to chips; everything that touches a chip may import it."""
