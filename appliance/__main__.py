"""`python -m appliance`, and what the installed `appliance` script calls."""

import sys

from appliance.cli.root import main as run


def main() -> None:
    sys.exit(run())


if __name__ == "__main__":
    main()
