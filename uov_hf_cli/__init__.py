"""The command `uov-hf`, in a package of its own: importing `uov_hf` takes seconds, and `uov-hf --help` must not.

Each command has one file. It imports only the standard library at the top, and everything else when it runs.
"""
