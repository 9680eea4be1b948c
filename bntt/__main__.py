"""Entry point of ``python -m bntt``."""

import signal

from bntt.commands import main

if __name__ == "__main__":
    status = main()
    # What is finished stays finished: Snakemake would remove the output of a job that a signal ends from here on.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    raise SystemExit(status)
