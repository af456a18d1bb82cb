"""The refinement pyramid: fields and blocks coded so that every value keeps its bound."""
