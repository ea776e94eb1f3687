"""`python -m tfpasses`."""

from tfpasses.cli import main

main()
