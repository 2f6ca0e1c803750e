"""`python -m vae_train` is `vae`."""

from vae_train.cli import main

main()
