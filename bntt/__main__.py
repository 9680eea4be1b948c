"""``python -m bntt``."""

from bntt.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
