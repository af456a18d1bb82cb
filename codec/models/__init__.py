"""Weight files, their names and ids."""
