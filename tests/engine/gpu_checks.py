"""What only a GPU can show of the engine, on tiny models with random weights: it says what ``generate`` says there.

Prints one line of JSON: what was measured, and ``passed``.

    python -m tests.engine.gpu_checks CHECK [--device cpu]

``--device cpu`` runs the check itself on a CPU, to see that it works.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import torch

from llava.engine.engine import Engine
from llava.engine.settings import EngineSettings
from llava.image.geometry import plan_tiles
from llava.image.pixels import make_pixels
from llava.model.quantized_linear import quantize_linears
from tests.engine.test_engine import load, mixed_questions, tokens
from tests.tiny import FAMILIES
from tests.tiny_tokenizers import words_and_letters

WORDS = "the cat sat on a red mat and saw me"


def load_on(device: str, family: str) -> Any:
    """A tiny model of that family in float32, the Mistral with a window."""
    loaded = load(words_and_letters(WORDS), family, **({"sliding_window": 24} if family == "mistral" else {}))
    loaded.model.to(device)
    return loaded


@torch.inference_mode()
def generate(loaded: Any, asked: Any) -> list[int]:
    """The reference: greedy ``generate`` on the model's device."""
    model = loaded.model
    pixels = [
        make_pixels(image.image, plan_tiles(image.size, loaded.spec.tiling), loaded.image_processor)
        for image in asked.images
    ]
    ids = torch.tensor([asked.prompt.input_ids], device=model.device)
    return model.generate(
        ids,
        images=[each.to(model.device, model.dtype) for each in pixels] or None,
        image_sizes=[tuple(image.size) for image in asked.images] or None,
        max_new_tokens=asked.sampling.max_new_tokens,
        do_sample=False,
        eos_token_id=119,
        pad_token_id=0,
    )[0].tolist()


def compare(loaded: Any, seed: int, count: int = 12, **settings: Any) -> dict[str, Any]:
    """The share of questions, asked at once and then again one by one, with the tokens of ``generate``."""
    questions = mixed_questions(loaded, seed=seed, count=count)
    with Engine(loaded, memory_bytes=2**22, **settings) as engine:
        said = [tokens(stream) for stream in [engine.submit(asked) for asked in questions]]
        again = [tokens(engine.submit(asked)) for asked in questions]
    expected = [generate(loaded, asked) for asked in questions]
    equal = sum(one == other for one, other in zip(said + again, expected * 2, strict=True))
    share = equal / (2 * count)
    return {"share": share, "equal": share == 1, "passed": share == 1}


def check_generate(device: str) -> dict[str, Any]:
    """Every family in float32."""
    shares = [compare(load_on(device, family), seed)["share"] for seed, family in enumerate(FAMILIES)]
    return {"share": min(shares), "equal": min(shares) == 1, "passed": min(shares) == 1}


def check_graphs(device: str) -> dict[str, Any]:
    """Without recording CUDA graphs; ``check_generate`` has them."""
    if "record_s" not in {one.name for one in fields(EngineSettings)}:
        return {"skipped": "graphs have no setting", "passed": None}
    return compare(load_on(device, "llama"), 7, record_s=0.0)


def check_bfloat16(device: str) -> dict[str, Any]:
    """In 16 bits rounding may decide between two tokens, so most answers have to be equal, not all."""
    loaded = load_on(device, "llama")
    loaded.model.to(torch.bfloat16)
    found = compare(loaded, 5)
    return {**found, "passed": found["share"] >= 0.75}


def check_lora(device: str) -> dict[str, Any]:
    """LoRA layers beside the matrices, which are no longer plain ones."""
    from peft import LoraConfig, inject_adapter_in_model

    loaded = load_on(device, "llama")
    config = LoraConfig(r=4, target_modules=r".*layers\..*\.(q_proj|v_proj|down_proj)", init_lora_weights=False)
    torch.manual_seed(0)
    plain = [generate(loaded, asked) for asked in mixed_questions(loaded, seed=6, count=6)]
    inject_adapter_in_model(config, loaded.model.get_model())
    loaded.model.to(device).eval()
    adapted = [generate(loaded, asked) for asked in mixed_questions(loaded, seed=6, count=6)]
    if plain == adapted:
        return {"failure": "the adapter changes no answer, so this shows nothing", "passed": False}
    return compare(loaded, 6)


def check_quantized(device: str) -> dict[str, Any]:
    """Matrices in this package's 8 and 4 bits, on the device."""
    shares = []
    for bits in (8, 4):
        loaded = load(words_and_letters(WORDS))
        quantize_linears(loaded.model, bits)
        loaded.model.to(device)
        shares.append(compare(loaded, bits)["share"])
    return {"share": min(shares), "passed": min(shares) >= 0.75}


CHECKS: dict[str, Callable[[str], dict[str, Any]]] = {
    "generate": check_generate,
    "graphs": check_graphs,
    "bfloat16": check_bfloat16,
    "lora": check_lora,
    "quantized": check_quantized,
}


def main(arguments: list[str] | None = None) -> int:
    """0 if the check passed or has nothing to check here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("check", choices=CHECKS)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    options = parser.parse_args(arguments)
    found = CHECKS[options.check](options.device)
    print(json.dumps(found), flush=True)
    return 1 if found["passed"] is False else 0


if __name__ == "__main__":
    sys.exit(main())
