from edadm.cli import main

main()
