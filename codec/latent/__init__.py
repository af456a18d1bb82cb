"""Multi-scale latents: wavelet, integer contexts and transformer synthesis, for a ratio or an RMSE."""
