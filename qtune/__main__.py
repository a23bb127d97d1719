"""`python -m qtune`."""

from qtune.cli.app import main

main()
