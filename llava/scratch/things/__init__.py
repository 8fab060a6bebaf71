"""How the default model learns to name what an image shows: cut-outs with names, views of them, and their features."""
