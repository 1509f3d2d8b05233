"""The commands of the command line, one module each: a parser's part and what it calls."""
