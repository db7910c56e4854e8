# From a requirements file, what is pure Python, for any Python and any processor: awk -f deploy/pure.awk requirements.txt
#
# sysv-ipc, the only compiled package, goes: Blinka declares it for pulses on GPIO pins, nothing here imports it, and on
# 32-bit Arm it would need a compiler. The markers go: what only Python 3.10 needs does no harm to a newer one.
# What is left is the whole list, to be installed with --no-deps; else pip would want sysv-ipc again.
/^[a-z]/ { wanted = !/^sysv-ipc==/; sub(/ ; .* \\$/, " \\") }
wanted
