"""Recognizes paths and names that are not LLaVA checkpoints: other programs' files, incomplete folders, other models.

Each kind is recognized by its contents, never by the folder's name, and comes with the next step to take. Only file
names, config.json and the first bytes of files are read. Nothing here raises, and no code is run.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from llava.config import read_spec
from llava.errors import CheckpointError
from llava.model.folder import Folder
from llava.model.gguf.gguf_file import GgufFault
from llava.model.gguf.gguf_folder import GgufFolder
from llava.model.gguf.ollama_store import PREFIX, list_manifests, name_of

_MAX_NAMES = 1_000_000  # of a folder's files that are listed, which takes a second
_SIXTEEN_BITS = "Use the 16-bit checkpoint that it was made from; --quant int8 or int4 quantizes it while loading."


@dataclass(frozen=True)
class Finding:
    """The kind of thing that a path or a name is, a sentence that says so, and a sentence with the next step."""

    kind: str
    what: str
    next_step: str

    def __str__(self) -> str:
        return f"{self.what} {self.next_step}"


def recognise(place: Folder | Path) -> Finding | None:
    """What is at the path, if ``load_model`` cannot read it; None for a LLaVA, whole or damaged."""
    path = place.path if isinstance(place, Folder) else place
    if isinstance(place, GgufFolder):
        return None
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return _recognise_folder(Folder.of(place))
        if stat.S_ISREG(mode):
            return _recognise_file(path)
        kind = "a socket" if stat.S_ISSOCK(mode) else "a pipe" if stat.S_ISFIFO(mode) else "a device"
        return Finding(kind, f"{path} is {kind}, not a checkpoint.", "Name the folder of a checkpoint.")
    except OSError as error:
        if error.errno == errno.ELOOP:
            return Finding("link", f"{path} is a symbolic link to itself.", "Name the folder that it should point to.")
        return Finding(
            "unreadable", f"{path} cannot be read: {error.strerror}.", "Correct its permissions, or copy it."
        )
    except ValueError:  # a null byte in the name
        return None


# Names


# Ollama's tags, and the short names of the same models here. Source: ollama.com/library/llava.
_OLLAMA = {
    "llava": {"7b": "llava-v1.6-mistral-7b", "13b": "llava-v1.6-vicuna-13b", "34b": "llava-v1.6-34b"},
    "bakllava": {},
    "llava-llama3": {"8b": "llama3-llava-next-8b"},
    "llava-phi3": {},
    "minicpm-v": {},
    "moondream": {},
}
_URL = re.compile(
    r"(?:https?://|hf://)?(?:www\.)?(?:huggingface\.co|hf\.co|hf-mirror\.com)/(?P<path>.*)", re.IGNORECASE
)


def read_hub_url(text: str) -> str:
    """``org/name`` or ``org/name@revision`` for a model's URL on the hub; any other text unchanged."""
    match = _URL.fullmatch(text.strip())
    path = match["path"] if match else text[5:] if text.startswith("hf://") else None
    if path is None:
        return text
    parts = re.split(r"[?#]", path)[0].strip("/").split("/")
    if parts[0] == "models" and len(parts) > 2:  # hf://models/org/name
        parts = parts[1:]
    if len(parts) < 2 or parts[0] in ("datasets", "spaces", "api", "docs", "papers", "collections"):
        return text
    repo_id = "/".join(parts[:2])
    is_at_revision = len(parts) > 3 and parts[2] in ("tree", "blob", "resolve", "raw", "commit")
    if not is_at_revision or parts[3] == "main":
        return repo_id
    revision = "/".join(parts[3:6]) if parts[3] == "refs" else parts[3]
    return f"{repo_id}@{revision}"


def recognise_name(text: str) -> Finding | None:
    """What a name is that is neither a path nor a model on the hub: a name of Ollama's, or some other URL."""
    if text.startswith(PREFIX):
        return None
    address = re.match(r"(?i)(https?|hf|s3|gs|file|ftp)://", text)
    name = re.sub(r"(?i)^(https?://(www\.)?ollama\.com/|registry\.ollama\.ai/)", "", text)
    ollama = re.fullmatch(r"(?:library/)?(?P<model>[\w.-]+)(?::(?P<tag>[\w.-]+))?", name)
    if ollama and (ollama["tag"] or (name != text) or ollama["model"] in _OLLAMA) and ollama["model"][1:]:
        size = (re.search(r"\d+b", ollama["tag"] or "7b") or ["7b"])[0]
        same = _OLLAMA.get(ollama["model"], {}).get(size)
        hint = f"If Ollama has it on this machine, name it {PREFIX}{name}."
        hint += f" The 16-bit checkpoint of the same model is called {same} here." if same else ""
        return Finding("Ollama", f"'{text}' is a name of Ollama, whose models are quantized GGUF files.", hint)
    if re.search(r"(?i)gguf", text.rpartition("/")[2]) and not address and "/" in text:
        return Finding(
            "GGUF",
            f"'{text}' is named as a repository of GGUF files for llama.cpp.",
            "Download one of its models and the mmproj, and name the model's file.",
        )
    if address:
        kind = "a data set or a page" if _URL.match(text) else "a URL"
        return Finding(
            "URL",
            f"'{text}' is {kind}, not a model on the hub.",
            "Name a model as https://huggingface.co/ORG/NAME or ORG/NAME, or download it and name the folder.",
        )
    return None


# Files

_ARCHIVES = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!\x1a\x07", "rar"),
)
_IMAGES = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
)
# By file extension: what the file is, and which program reads it.
_ENDINGS = {
    ".onnx": ("an ONNX model", "ONNX Runtime"),
    ".h5": ("a Keras or TensorFlow model", "TensorFlow"),
    ".keras": ("a Keras model", "Keras"),
    ".pb": ("a TensorFlow model", "TensorFlow"),
    ".tflite": ("a TensorFlow Lite model", "TensorFlow Lite"),
    ".msgpack": ("a Flax checkpoint", "Flax"),
    ".ot": ("a checkpoint of rust-bert", "rust-bert"),
    ".mlmodel": ("a Core ML model", "Core ML"),
    ".mlpackage": ("a Core ML model", "Core ML"),
    ".engine": ("a TensorRT engine", "TensorRT"),
    ".plan": ("a TensorRT engine", "TensorRT"),
    ".nemo": ("a NeMo checkpoint", "NeMo"),
    ".pte": ("an ExecuTorch program", "ExecuTorch"),
    ".task": ("a MediaPipe bundle", "MediaPipe"),
    ".npz": ("a file of NumPy arrays, as older MLX checkpoints are", "MLX"),
    ".distcp": ("a piece of a distributed torch checkpoint", "accelerate merge-weights FOLDER OUTPUT"),
}


def _recognise_file(path: Path) -> Finding | None:
    with path.open("rb") as file:
        head = file.read(4096)
    ending = path.suffix.lower()
    if not head:
        return Finding("empty file", f"{path} is an empty file.", "Copy or download it again.")
    if head.startswith((b"GGUF", b"lmgg", b"tjgg", b"fmgg")):
        return _say_gguf(path)
    if ending == ".llamafile" or (head[:2] in (b"MZ", b"\x7fE") and b"llamafile" in head):
        return Finding(
            "llamafile",
            f"{path} is a llamafile: llama.cpp and a quantized GGUF model in one program.",
            f"Run it by itself. To load the model here: {_SIXTEEN_BITS}",
        )
    if head.startswith(b"version https://git-lfs"):
        return Finding(
            "Git LFS pointer",
            f"{path} is a Git LFS pointer, not the file itself.",
            f"Run `git lfs pull` in {path.parent}, or download the file from the hub.",
        )
    image = next((kind for start, kind in _IMAGES if head.startswith(start)), None)
    if image or (head[:4] == b"RIFF" and head[8:12] == b"WEBP") or head[4:8] == b"ftyp":
        kind = "a video or an image" if head[4:8] == b"ftyp" else f"an image ({image or 'WebP'})"
        return Finding(
            "image",
            f"{path} is {kind}, not a checkpoint.",
            f'Ask about it: llava ask {path.name} "What is in it?". See its tiles: llava info --image {path.name}.',
        )
    archive = next((kind for start, kind in _ARCHIVES if head.startswith(start)), None)
    archive = archive or ("tar" if head[257:262] == b"ustar" else None)
    archive = archive or ("zip" if head.startswith(b"PK") and not _is_torch(path, head) else None)
    if ending in _ENDINGS:
        what, reader = _ENDINGS[ending]
        return Finding(what, f"{path} is {what}, for {reader}.", f"It is not read here. {_SIXTEEN_BITS}")
    if archive:
        return Finding("archive", f"{path} is an archive ({archive}).", "Unpack it, and name the folder that is in it.")
    if ending == ".safetensors" or _is_torch(path, head):
        return Finding(
            "file of tensors",
            f"{path} is a file of tensors alone, which do not say what model they belong to.",
            "Name the folder that has it beside a config.json, as model.safetensors, pytorch_model.bin, "
            "adapter_model.safetensors or mm_projector.bin.",
        )
    if ending == ".gguf":
        return Finding("file", f"{path} does not begin with GGUF: it is another kind of file.", "Download it again.")
    return Finding("file", f"{path} is a file, but not one of a checkpoint.", "Name the folder of a checkpoint.")


def _is_torch(path: Path, head: bytes) -> bool:
    if path.suffix.lower() in (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"):
        return True
    return head.startswith(b"PK") and b"data.pkl" in head[:200]


def _say_gguf(path: Path) -> Finding | None:
    try:
        GgufFolder(path).check()
    except GgufFault as fault:
        return Finding("GGUF", fault.what, fault.next_step)
    except CheckpointError as error:  # the gguf package is not installed
        return Finding("GGUF", str(error), "")
    return None


# Folders

# Vision towers by model_type, and vision-language models other than LLaVA.
_TOWERS = frozenset(
    "clip clip_vision_model siglip siglip_vision_model siglip2 siglip2_vision_model chinese_clip".split()
)
_TOWERS_OF = {"vit": "ViT", "dinov2": "DINOv2", "eva_clip": "EVA-CLIP", "intern_vit_6b": "InternViT"}
_OTHER_VLMS = frozenset(
    "llava_onevision llava_next_video video_llava vipllava qwen2_vl qwen2_5_vl qwen3_vl internvl internvl_chat mllama "
    "paligemma idefics idefics2 idefics3 smolvlm blip blip-2 instructblip kosmos-2 fuyu pixtral gemma3 gemma3n phi3_v "
    "minicpmv deepseek_vl deepseek_vl_v2 cogvlm cogvlm2 glm4v molmo aria mobilevlm bunny-llama bunny-phi git florence2 "
    "janus mistral3 llama4 ovis moondream1 kimi_vl".split()
)
_LLAVA_KEYS = ("mm_vision_tower", "mm_vision_config", "vision_tower", "mm_projector_type", "mm_hidden_size")


def _recognise_folder(folder: Folder) -> Finding | None:
    with os.scandir(folder.path) as entries:
        names = sorted(entry.name for entry in islice(entries, _MAX_NAMES))
    found = _recognise_config(folder, names)
    if found is not None:
        return found
    if any(_OURS.fullmatch(name) for name in names):
        return None
    return _recognise_leftovers(folder.path, names) or _recognise_names(folder.path, names)


# A folder with one of these files is a checkpoint that is read here, or a part of one, whatever else it contains.
_OURS = re.compile(
    r"(model|pytorch_model)(\.\w+)?(-\d+-of-\d+)?\.(safetensors|bin)(\.index(\.\w+)?\.json)?"
    r"|adapter_config\.json|adapter_model\.(safetensors|bin)|mm_projector\.bin|non_lora_trainables\.bin"
)


def _recognise_config(folder: Folder, names: list[str]) -> Finding | None:
    """What the folder is according to config.json and the files that describe a quantization."""
    config = folder.raw_config
    if "model_index.json" in names:
        return Finding(
            "diffusers pipeline",
            f"{folder} is a diffusers pipeline, which generates images.",
            "This package answers questions about them: name a LLaVA checkpoint.",
        )
    method = _find_quantization(names, config)
    if method is not None:
        return Finding(
            "quantized checkpoint",
            f"{folder} holds quantized weights ({method}), which cannot be loaded.",
            _SIXTEEN_BITS,
        )
    kind = config.get("model_type")
    is_llava = any(config.get(key) is not None for key in _LLAVA_KEYS)
    if not isinstance(kind, str) or (is_llava and kind not in _OTHER_VLMS) or kind in ("llava", "llava_next"):
        return None
    if kind in _TOWERS or kind in _TOWERS_OF:
        name = _TOWERS_OF.get(kind, "SigLIP" if "siglip" in kind else "CLIP")
        return Finding(
            "vision tower",
            f"{folder} is a vision tower alone ({name}), without a language model.",
            "Name a LLaVA checkpoint; where one needs this tower, add --vision-tower with this folder.",
        )
    if (kind in _OTHER_VLMS or isinstance(config.get("vision_config"), dict)) and not _is_llava(folder):
        return Finding(
            "another vision-language model",
            f"{folder} is a vision-language model of another kind ({kind}).",
            "This package reads LLaVA-1.5 and LLaVA-NeXT. Transformers loads others: AutoModelForImageTextToText.",
        )
    classes = config.get("architectures")
    if isinstance(classes, list) and any(str(name).endswith(("ForCausalLM", "LMHeadModel")) for name in classes):
        return Finding(
            "language model",
            f"{folder} is a language model alone ({kind}): its config.json names no vision tower, so it cannot see.",
            "Name the LLaVA that was made from it. For a projector or LoRA layers trained on it, name their folder "
            "and give this one as the base (--model-base).",
        )
    return None


def _is_llava(folder: Folder) -> bool:
    try:
        read_spec(folder.path, config=folder.config)
    except CheckpointError:
        return False
    return True


def _find_quantization(names: list[str], config: Mapping[str, Any]) -> str | None:
    """The method that the weights are quantized with; None if they are not."""
    said = config.get("quantization_config", config.get("compression_config"))
    if said is not None:
        method = said.get("quant_method") if isinstance(said, dict) else None
        names_of = {"exl2": "EXL2", "awq": "AWQ", "gptq": "GPTQ", "bitsandbytes": "bitsandbytes"}
        return names_of.get(str(method), str(method or "unknown method"))
    own = config.get("quantization")
    if isinstance(own, dict) and "bits" in own:
        return f"MLX, {own['bits']} bits"
    for name, method in (("quantize_config.json", "GPTQ"), ("quant_config.json", "AWQ"), ("qmodel.pt", "HQQ")):
        if name in names:
            return method
    return None


def _recognise_leftovers(folder: Path, names: list[str]) -> Finding | None:
    """The output folder of a training run, whose weights are in pieces or in a folder inside it."""
    steps = [name for name in names if re.fullmatch(r"global_step\d+", name)]
    pieces = [name for name in names if re.search(r"mp_rank_\d+_(model|optim)_states\.pt$", name)]
    if steps or pieces or "zero_to_fp32.py" in names:
        place = folder.parent if pieces and not steps else folder
        return Finding(
            "DeepSpeed checkpoint",
            f"{folder} is a training checkpoint of DeepSpeed: its weights are split into one piece per GPU.",
            f"Merge them: cd {place} && python zero_to_fp32.py . . (for older DeepSpeed, with pytorch_model.bin "
            f"as the second argument), then name {place}.",
        )
    checkpoints = sorted(
        (name for name in names if re.fullmatch(r"checkpoint-\d+", name) and os.path.isdir(folder / name)),
        key=lambda name: int(name.removeprefix("checkpoint-")),
    )
    if checkpoints:
        return Finding(
            "training output",
            f"{folder} is the output folder of a training run: it has no weights of its own, but {_some(checkpoints)}.",
            f"Name one of them: {folder / checkpoints[-1]} is the latest.",
        )
    sharded = next((name for name in names if re.fullmatch(r"pytorch_model_fsdp_\d+", name)), None)
    if sharded or any(name.endswith(".distcp") for name in names):
        source = folder / sharded if sharded else folder
        target = folder if sharded else folder.parent
        return Finding(
            "FSDP checkpoint",
            f"{folder} is a training checkpoint of FSDP: its weights are split into pieces.",
            f"Merge them: accelerate merge-weights {source} {target}, then name {target}.",
        )
    if "pytorch_model_fsdp.bin" in names:
        return Finding(
            "FSDP checkpoint",
            f"{folder} has its weights in pytorch_model_fsdp.bin, as accelerate saves them under FSDP.",
            "Rename the file to pytorch_model.bin.",
        )
    return None


def _recognise_names(folder: Path, names: list[str]) -> Finding | None:
    """What the folder is according to the names of its files."""
    for ending, say in ((".gguf", _say_gguf_folder), (".llamafile", None)):
        found = [name for name in names if name.lower().endswith(ending)]
        if found:
            return say(folder, found) if say else _recognise_file(folder / found[0])
    if ("manifests" in names and "blobs" in names) or _count(names, r"sha256-[0-9a-f]{64}") > 0:
        return Finding(
            "Ollama's store",
            f"{folder} is the folder in which Ollama keeps its models, which are quantized GGUF files.",
            f"Name a model as {PREFIX}NAME, such as {PREFIX}{_find_ollama_name(folder)}, with OLLAMA_MODELS where its "
            "folder is not the usual one.",
        )
    for name in names:
        ending = Path(name).suffix.lower()
        if ending in _ENDINGS:
            what, reader = _ENDINGS[ending]
            return Finding(
                what, f"{folder} holds {what} ({name}), for {reader}.", f"It is not read here. {_SIXTEEN_BITS}"
            )
    if _count(names, r"openvino_.*\.(xml|bin)"):
        return Finding("OpenVINO model", f"{folder} holds an OpenVINO model.", f"It is not read here. {_SIXTEEN_BITS}")
    if "onnx" in names or _count(names, r"(model|variables|saved_model|.*\.ckpt)(\.index|\.data-\d+-of-\d+)"):
        kind = "ONNX" if "onnx" in names else "TensorFlow"
        return Finding(f"{kind} model", f"{folder} holds a model for {kind}.", f"It is not read here. {_SIXTEEN_BITS}")
    if _count(names, r"weights(\.\d+)?\.safetensors"):
        return Finding("MLX model", f"{folder} holds an MLX model.", f"It is not read here. {_SIXTEEN_BITS}")
    if _count(names, r"consolidated.*\.(pth|safetensors)"):
        return Finding(
            "consolidated weights",
            f"{folder} holds weights in the format of the model's own code (consolidated.*), not in Transformers'.",
            "Use the same model in Transformers' format, with model.safetensors or pytorch_model.bin.",
        )
    unfinished = [
        name for name in names if re.search(r"\.(incomplete|part|partial|crdownload|aria2|download|tmp)$", name)
    ]
    if unfinished:
        return Finding(
            "unfinished download", f"{folder} holds an unfinished download ({unfinished[0]}).", "Start it again."
        )
    return _recognise_place(folder, names)


def _recognise_place(folder: Path, names: list[str]) -> Finding | None:
    """A folder that is not a checkpoint but may contain some: the hub's cache, an archive, an empty folder ..."""
    repositories = [name for name in names if name.startswith("models--")]
    if repositories:
        return Finding(
            "hub cache",
            f"{folder} is the hub's cache, with {_some([_id_of(name) for name in repositories])}.",
            f"Name one of them, such as {_id_of(repositories[0])} or {folder / repositories[0]}.",
        )
    if folder.name.startswith("models--") and "snapshots" not in names:
        return Finding(
            "unfinished download",
            f"{folder} in the hub's cache has no snapshot of {_id_of(folder.name)}: the download did not finish.",
            f"Start it again: hf download {_id_of(folder.name)}.",
        )
    if "config.json" in names:
        return None  # the error about config.json or the weights says what is missing
    below = [name for name in islice(names, 1000) if os.path.isfile(folder / name / "config.json")]
    below += [name for name in islice(names, 1000) if os.path.isfile(folder / name / "adapter_config.json")]
    if below:
        return Finding(
            "folder of checkpoints",
            f"{folder} is not a checkpoint itself, but {_some(below)} in it may be.",
            f"Name one of them, such as {folder / below[0]}.",
        )
    archives = [name for name in names if re.search(r"\.(zip|tar|tgz|gz|bz2|xz|zst|7z|rar)$", name.lower())]
    if archives:
        return Finding(
            "archive",
            f"{folder} holds {_some(archives)}.",
            f"Unpack {archives[0]}, and name the folder inside.",
        )
    if not names:
        return Finding("empty folder", f"{folder} is an empty folder.", "Copy or download a checkpoint into it.")
    return Finding(
        "folder",
        f"{folder} has no config.json: it is not a checkpoint. It holds {_some(names)}.",
        "A checkpoint is a folder with config.json, a tokenizer and weights (model.safetensors or pytorch_model.bin).",
    )


def _find_ollama_name(folder: Path) -> str:
    store = folder if (folder / "manifests").is_dir() else folder.parent
    return next((name_of(path) for path in list_manifests(store)), "llava")


def _say_gguf_folder(folder: Path, found: list[str]) -> Finding:
    return Finding(
        "GGUF",
        f"{folder} holds {_some(found)}: files of llama.cpp and Ollama, but is no checkpoint itself.",
        "Name the language model's file, with its mmproj beside it.",
    )


def _some(names: list[str], limit: int = 3) -> str:
    shown = ", ".join(name.encode("utf-8", "replace").decode() for name in names[:limit])
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _count(names: list[str], pattern: str) -> int:
    return sum(1 for name in names if re.fullmatch(pattern, name))


def _id_of(name: str) -> str:
    return name.removeprefix("models--").replace("--", "/")
