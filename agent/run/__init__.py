"""One running agent: its assembly, its loop, signals, systemd and the thread that pushes; imports all of the above."""
