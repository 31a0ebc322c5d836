"""The command `uov-hf`, beside the package and not in it: importing `uov_hf` takes seconds, `uov-hf --help` must not.

One file per command. On top they import the standard library only; what a command needs it imports when it runs.
"""
