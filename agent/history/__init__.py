"""Remote write and its backlog: keeps every sample until a server has answered for it; imported by run/ and check/."""
