"""A source and its store, side by side: figures of merit, maps, spectra, one page."""
