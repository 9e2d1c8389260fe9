"""Do the tests notice? Small faults put into the RTL, one at a time: :mod:`.sites`."""
