"""`python -m edadm`."""

from edadm.cli import main

main()
