"""Training from scratch: how the embedded default model was made, on drawn images instead of downloaded data."""
