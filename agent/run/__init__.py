"""One running agent: assembly, loop, signals, systemd, the thread that pushes; imported by watch/ and commands/."""
