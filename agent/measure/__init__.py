"""Reading every device once: the sweep, the session with each chip, the outcomes; imported by all to its right.

Sweeps go bus by bus; chips on a slow bus take turns (`pace`). `run_session` takes a chip from closed through settling
to measuring; `observer` writes nothing. A result counts only if two reads agree (`agreement`), the chip's own
arithmetic agrees (`computed_check`), and every mux on its path was as selected.
"""
