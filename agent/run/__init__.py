"""One running agent: assembly, loop, signals, systemd and the thread that pushes; imports all of the above."""
