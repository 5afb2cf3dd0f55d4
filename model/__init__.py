"""Networks, loss terms and methods. Nothing here knows a file name or a command line."""
