"""The paper's VAEformer: patch transformer and hyperprior."""
