"""`python -m opengrit` is the `opengrit` command."""

from opengrit.cli.app import main

if __name__ == "__main__":
    main()
