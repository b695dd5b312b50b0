"""`python -m safehold` is the `safehold` command."""

from safehold.cli import main

main()
