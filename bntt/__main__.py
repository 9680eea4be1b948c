"""Entry point of ``python -m bntt``."""

import gc
import signal

from bntt.commands import main

if __name__ == "__main__":
    # Imports make some 200,000 objects that stay. To search them all for cycles whenever there are a quarter more took
    # a fifth of the time until a command's work begins. Young objects are searched as often as ever.
    gc.set_threshold(*gc.get_threshold()[:2], 1000)
    status = main()
    # What is finished stays finished: Snakemake would remove the output of a job that a signal ends from here on.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    raise SystemExit(status)
