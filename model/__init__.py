"""The networks and the terms of the method: nothing here knows a file name or a command line."""
