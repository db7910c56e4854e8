"""From readings to energy: meters, counters and the file that keeps them; imported by all to its right.

Readings become means, extremes, joules and coulombs. Counters are saved before they are published.
"""
