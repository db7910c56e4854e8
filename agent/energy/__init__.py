"""From readings to energy: the meter of each device and its counters, kept on disk; imports measure and chips."""
