"""Entry point of ``python -m bntt``."""

from bntt.commands import main

if __name__ == "__main__":
    raise SystemExit(main())
