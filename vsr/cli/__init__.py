"""The command line: parses options, calls the library, prints results, sets the exit code."""
