"""The public test sets, and the releases they are taken from."""
