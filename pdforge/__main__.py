"""`python -m pdforge` is the `pdforge` command."""

from pdforge.cli.app import main

if __name__ == "__main__":
    main()
