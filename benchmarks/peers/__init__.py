"""The other codecs: under an error bound (`bounded`), and at a size (`sized`)."""
