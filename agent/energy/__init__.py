"""From readings to energy: meters, counters and the file that keeps them; imported by all to its right."""
