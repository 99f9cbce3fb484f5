"""`python -m edadm`."""

from edadm.warm.client import served

if not served():
    from edadm.cli import main

    main()
