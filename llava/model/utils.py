"""FRONT DOOR: the original's ``llava.model.utils``, and what its first versions had there.

Source: haotian-liu/LLaVA@c121f04 llava/model/utils.py.
"""

from __future__ import annotations

from pathlib import Path

from llava.config import read_json
from llava.errors import CheckpointError
from llava.mm_utils import KeywordsStoppingCriteria
from llava.model.companions import write_json

__all__ = ["KeywordsStoppingCriteria", "auto_upgrade"]


def auto_upgrade(config: str) -> None:
    """Makes the folder of a v0 checkpoint say in its config.json that it is LLaVA's, once somebody confirms.

    Of a name without "llava", or a checkpoint that says it already, nothing is changed. Raises CheckpointError for a
    folder without config.json and for another model than a Llama, SystemExit(1) if it is not confirmed.
    """
    path = Path(config).expanduser() / "config.json"
    values = read_json(path)
    kind = str(values.get("model_type"))
    if "llava" not in config or "llava" in kind:
        return
    if kind != "llama":
        raise CheckpointError(f"{path} has model_type {kind}, but the LLaVA of old was a llama: it was not changed.")
    print("This checkpoint is LLaVA's first version: its config.json has to name LLaVA as its model.")
    if input("Shall it be changed? [Y/N] ").strip().lower() not in ("y", "yes"):
        print("It was not changed.")
        raise SystemExit(1)
    write_json({**values, "model_type": "llava", "architectures": ["LlavaLlamaForCausalLM"]}, path)
    print("It was changed.")
