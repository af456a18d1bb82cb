"""One measured case, what follows from many, and the measures they are made of."""
