"""The ``pyreid`` command: one module a command, put together in :mod:`pyreid.cli.main`."""
