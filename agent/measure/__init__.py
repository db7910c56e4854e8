"""Reading every device once: the sweep, the session with each chip, and what they return; imports i2c and chips."""
