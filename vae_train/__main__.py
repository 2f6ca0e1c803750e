"""`python -m vae_train` is `vae`."""

from vae_train.cli.main import main

main()
