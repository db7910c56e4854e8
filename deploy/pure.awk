# Reduce a requirements file to pure Python, for every Python version and architecture: awk -f deploy/pure.awk requirements.txt
#
# This drops sysv-ipc, the only compiled package: Blinka declares it for pulses on GPIO pins, nothing here imports it, and
# 32-bit Arm would need a compiler for it. It also drops the markers: a package that only Python 3.10 needs does a newer one
# no harm. The result is complete; install it with --no-deps, because otherwise pip would fetch sysv-ipc again.
/^[a-z]/ { wanted = !/^sysv-ipc==/; sub(/ ; .* \\$/, " \\") }
wanted
