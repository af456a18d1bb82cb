"""Exit codes: the verdict of a command."""

KEPT = 0  # done; every bound and checksum holds
BROKEN = 1  # a bound or checksum does not hold
USAGE = 2  # the command could not be carried out; stderr says why
INTERRUPTED = 130  # Ctrl-C
TERMINATED = 143  # SIGTERM
