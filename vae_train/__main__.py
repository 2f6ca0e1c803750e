"""`python -m vae_train` runs `vae`."""

from vae_train.cli.main import main

main()
