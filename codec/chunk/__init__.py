"""The way of a chunk into the codec and out of it: arrays <-> sections, by whichever coding is smallest."""
