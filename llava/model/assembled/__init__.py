"""A checkpoint that is put together from pretrained parts in installed packages and from tensors of this package.

pretrained_parts   what it is made of (parts.json), and where the parts are installed
assembly           the ordinary checkpoint folder, written once into the cache
"""
