"""Models from nothing: how the embedded default model was made, with drawn images in the place of downloads."""
