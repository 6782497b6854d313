"""The command line: parse, call one command, hand the result to the console; imports no torch by itself."""
