"""Numbers in units of a step, and back: special values, lattices, log transform, quantiser, lossless streams."""
