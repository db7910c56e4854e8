"""One running agent: assembly, loop, signals, systemd, pushes; imported by watch/, command_energy/ and commands/.

The main thread only reads chips: one thread saves the state (`saver`), another pushes once the counters are saved
(`push_job`). After a reboot, a push first compares the counters with those at the gateway (`carried`). A command that
pushes nothing reads the chips in a thread instead (`sweeper`).
"""
