"""Asks a person for what a scan cannot see, and writes the configuration; imported by commands/.

Nothing is written before the last question: `write_file` puts the whole file in place at once, or nothing.
"""
