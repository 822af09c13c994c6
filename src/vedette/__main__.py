"""Runs the command line as `python -m vedette`, where the console script is not on the path.
Counterpart: vedette.cli, which holds every command."""

from vedette.cli import main

if __name__ == "__main__":
    main()
