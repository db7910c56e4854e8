"""Remote write and its backlog: every sample is kept until a server has answered; imported by run/ and check/."""
