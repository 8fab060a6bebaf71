"""FRONT DOOR: the original's ``llava.model.utils``, and names that its first versions had there.

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
    """Changes the config.json of a v0 checkpoint to name LLaVA as its model, after asking on the terminal.

    Nothing is changed if the folder's name lacks "llava" or config.json names LLaVA already. Raises CheckpointError for
    a folder without config.json and for a model other than a Llama, SystemExit(1) if the user declines.
    """
    path = Path(config).expanduser() / "config.json"
    values = read_json(path)
    kind = str(values.get("model_type"))
    if "llava" not in config or "llava" in kind:
        return
    if kind != "llama":
        raise CheckpointError(
            f"{path} has model_type {kind}, but LLaVA's first version was a llama: it was not changed."
        )
    print("This checkpoint is LLaVA's first version: its config.json has to name LLaVA as its model.")
    if input("Change it? [Y/N] ").strip().lower() not in ("y", "yes"):
        print("It was not changed.")
        raise SystemExit(1)
    write_json({**values, "model_type": "llava", "architectures": ["LlavaLlamaForCausalLM"]}, path)
    print("It was changed.")
