"""Reading every device once: the sweep, the session with each chip, the outcomes; imported by all to its right."""
