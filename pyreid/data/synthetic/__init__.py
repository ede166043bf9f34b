"""A generator of synthetic re-identification data sets; see :func:`pyreid.data.synthesize`."""
