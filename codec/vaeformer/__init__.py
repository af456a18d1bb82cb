"""The base layer: latents of fields, their entropy models, and the transformers around them."""
