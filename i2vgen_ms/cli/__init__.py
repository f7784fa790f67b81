"""The command line, one file a command. Knows the other packages' public functions and computes nothing itself."""
