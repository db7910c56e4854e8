"""From readings to energy: each device's energy meter, and its counters on disk; imports measure and chips."""
