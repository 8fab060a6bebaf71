"""Checkpoints of llama.cpp and Ollama: a language model and its mmproj as GGUF files, read and written.

gguf_file        one file: metadata and tensors, every length checked
gguf_parts       a model in several files
block_formats    the types of tensors that are read without the ``gguf`` package
tensor_names     llama.cpp's names of tensors and the original's; the order of rows in its q and k matrices
gguf_config      config.json, generation_config.json and preprocessor_config.json from the metadata
gguf_tokenizer   the tokenizer's files from the metadata
gguf_folder      the pair of files as a ``Folder``, which the loader reads like any other
ollama_store     Ollama's own store, by a model's name
gguf_vocabulary  a tokenizer as metadata
gguf_export      a checkpoint as a pair of files: ``llava convert --to gguf``
"""
