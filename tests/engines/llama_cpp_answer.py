"""A greedy answer of real llama.cpp about one image, as JSON: run by check_llama_cpp.py in llama.cpp's environment.

    python llama_cpp_answer.py MODEL.gguf MMPROJ.gguf IMAGE PROMPT NUM_TOKENS

In PROMPT ``<__media__>`` stands for the image. It knows nothing of this package.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path

import llama_cpp
import numpy as np
from llama_cpp import mtmd_cpp


def main(model: str, mmproj: str, image: str, prompt: str, num_tokens: str) -> None:
    """Print {"prompt": ids, an image as [number of positions], "answer": ids, "logits": of its first token}."""
    precise = {"type_k": llama_cpp.GGML_TYPE_F32, "type_v": llama_cpp.GGML_TYPE_F32}  # the cache, else in float16
    llama = llama_cpp.Llama(model, n_ctx=2048, n_batch=1024, n_threads=1, n_gpu_layers=0, verbose=False, **precise)
    settings = mtmd_cpp.mtmd_context_params_default()
    settings.use_gpu, settings.n_threads, settings.print_timings = False, 1, False
    settings.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    eyes = mtmd_cpp.mtmd_init_from_file(mmproj.encode(), llama.model, settings)
    assert eyes, f"{mmproj} was not loaded"
    content = Path(image).read_bytes()
    buffer = (ctypes.c_uint8 * len(content)).from_buffer(bytearray(content))
    bitmap = mtmd_cpp.mtmd_helper_bitmap_init_from_buf(eyes, buffer, len(content), False)
    text = mtmd_cpp.mtmd_input_text()
    text.text, text.text_len, text.add_special, text.parse_special = prompt.encode(), len(prompt.encode()), True, True
    chunks = mtmd_cpp.mtmd_input_chunks_init()
    images = (mtmd_cpp.mtmd_bitmap_p_ctypes * 1)(bitmap)
    assert mtmd_cpp.mtmd_tokenize(eyes, chunks, ctypes.byref(text), images, 1) == 0
    context = llama.ctx
    position = llama_cpp.llama_pos(0)
    failed = mtmd_cpp.mtmd_helper_eval_chunks(eyes, context, chunks, position, 0, 1024, True, ctypes.byref(position))
    assert not failed, failed
    answer: list[int] = []
    first: list[float] = []
    for _ in range(int(num_tokens)):
        logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, -1), shape=(llama.n_vocab(),))
        answer.append(int(logits.argmax()))
        first = first or logits.tolist()
        batch = llama_cpp.llama_batch_get_one((llama_cpp.llama_token * 1)(answer[-1]), 1)
        assert llama_cpp.llama_decode(context, batch) == 0
    print(json.dumps({"prompt": list_prompt(chunks), "answer": answer, "logits": first}))


def list_prompt(chunks: object) -> list[int | list[int]]:
    found: list[int | list[int]] = []
    for i in range(mtmd_cpp.mtmd_input_chunks_size(chunks)):
        chunk = mtmd_cpp.mtmd_input_chunks_get(chunks, i)
        if mtmd_cpp.mtmd_input_chunk_get_type(chunk) == mtmd_cpp.MTMD_INPUT_CHUNK_TYPE_TEXT:
            count = ctypes.c_size_t()
            ids = mtmd_cpp.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(count))
            found += [ids[j] for j in range(count.value)]
        else:
            found.append([mtmd_cpp.mtmd_input_chunk_get_n_tokens(chunk)])
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
