"""One running agent: assembly, loop, signals, systemd, pushes; imported by watch/, command_energy/ and commands/."""
