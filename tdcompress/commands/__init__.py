"""The verbs of the command line, one file each: add a parser, call the library, print."""
