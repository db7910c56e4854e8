"""Remote write and its backlog: keeps every sample until a server has answered for it; imported by run/ and check/.

Two threads: the keeper makes frames of samples and adds them to the backlog, in memory with a mirror in the runtime
folder, in an outage on disk; the sender sends a frame as one request. `answers` says what an answer means, `search`
finds what a server refuses of a frame, `dating` knows when the clock is right. How far the backlog was sent is one
value, with the counters: produced = accepted + refused + dropped + undated + backlog.
"""
