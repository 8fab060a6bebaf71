"""What people point at that is no LLaVA checkpoint is called by its name, with the next step, by load and by info."""

from __future__ import annotations

import os
import random
import socket
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import save_file

from llava.cli import main
from llava.errors import CheckpointError
from llava.inspection import describe_checkpoint
from llava.model.checkpoint import load_model
from llava.model.conversion import convert
from llava.model.recognition import read_hub_url, recognise
from llava.model.sources import find_checkpoint
from tests.tiny_checkpoints import decoder_shapes, random_tensors, write_companions, write_llava_1_6, write_tower
from tests.tiny_configs import CONFIG, TOWER, write_json

GGUF = b"GGUF\x03\0\0\0" + bytes(8) + b"\x01" + bytes(7)  # no tensor, one value: general.architecture, a string
GGUF += (20).to_bytes(8, "little") + b"general.architecture" + b"\x08\0\0\0"
LANGUAGE_MODEL = {**CONFIG, "model_type": "llama", "architectures": ["LlamaForCausalLM"]}
for _key in [key for key in LANGUAGE_MODEL if key.startswith("mm_")]:
    del LANGUAGE_MODEL[_key]


def gguf(architecture: bytes) -> bytes:
    return GGUF + len(architecture).to_bytes(8, "little") + architecture + bytes(100)


def touch(*names: str) -> Callable[[Path], Path]:
    """What makes a folder with these files, or folders where the name ends in a slash."""

    def make(folder: Path) -> Path:
        for name in names:
            path = folder / name
            (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
            if not name.endswith("/"):
                path.write_bytes(b"x")
        return folder

    return make


def content(name: str, data: bytes) -> Callable[[Path], Path]:
    """What makes one file."""

    def make(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return make


def configured(config: dict[str, Any], *names: str) -> Callable[[Path], Path]:
    """What makes a folder with that config.json, a file of weights and further files."""

    def make(folder: Path) -> Path:
        write_json(folder / "config.json", config)
        save_file({"model.norm.weight": torch.ones(2)}, folder / "model.safetensors")
        return touch(*names)(folder)

    return make


def language_model(folder: Path) -> Path:
    write_companions(folder, LANGUAGE_MODEL)
    save_file(random_tensors(decoder_shapes(LANGUAGE_MODEL)), folder / "model.safetensors", {"format": "pt"})
    return folder


def tower(folder: Path) -> Path:
    write_tower(folder)
    return folder


def zipped(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "llava.zip", "w") as archive:
        archive.writestr("llava/config.json", "{}")
    return folder / "llava.zip"


def tarred(folder: Path) -> Path:
    with tarfile.open(folder / "llava.tar", "w") as archive:
        archive.add(__file__, "config.json")
    return folder / "llava.tar"


def image(folder: Path) -> Path:
    Image.new("RGB", (8, 8)).save(folder / "photo.png")
    return folder / "photo.png"


def weights_alone(folder: Path) -> Path:
    save_file({"x": torch.ones(2)}, folder / "llava-7b.safetensors")
    return folder / "llava-7b.safetensors"


def quantized(method: str, **more: Any) -> dict[str, Any]:
    return {**CONFIG, "quantization_config": {"quant_method": method, "bits": 4, **more}}


FOREIGN: dict[str, tuple[Callable[[Path], Path], list[str]]] = {
    "gguf": (
        content("model.gguf", gguf(b"llama")),
        ["language model alone (llama)", "no mmproj beside"],
    ),
    "mmproj": (content("mmproj-f16.gguf", gguf(b"clip")), ["vision half (mmproj)", "Name the language model's file"]),
    "gguf without its ending": (content("sha256-0", gguf(b"llama")), ["language model alone (llama)"]),
    "cut gguf": (content("x.gguf", b"GGUF"), ["is cut short or damaged", "download it again"]),
    "gguf by its ending alone": (content("x.gguf", b"<html>"), ["does not begin with GGUF", "Download it again"]),
    "gguf folder": (
        touch("llava-q4.gguf", "mmproj.gguf"),
        ["llava-q4.gguf, mmproj.gguf", "Name the language"],
    ),
    "gguf beside a config": (
        lambda folder: touch("q4.gguf")(write_json(folder / "config.json", CONFIG) or folder),
        ["q4.gguf", "Name the language model's file"],
    ),
    "ollama store": (touch("manifests/", "blobs/"), ["folder in which Ollama keeps its models"]),
    "ollama blobs": (touch("sha256-" + "a" * 64), ["folder in which Ollama keeps its models"]),
    "llamafile": (content("llava.llamafile", b"MZqFpD"), ["llamafile", "Run it by itself"]),
    "onnx": (content("model.onnx", b"\x08\x07"), ["ONNX model", "ONNX Runtime"]),
    "onnx folder": (touch("onnx/model.onnx"), ["a model for ONNX"]),
    "tensorflow": (touch("tf_model.h5"), ["Keras or TensorFlow"]),
    "saved model": (touch("saved_model.pb", "variables/"), ["TensorFlow"]),
    "tensorflow checkpoint": (touch("model.ckpt.index", "model.ckpt.data-00000-of-00001"), ["TensorFlow"]),
    "flax": (touch("flax_model.msgpack"), ["Flax"]),
    "mlx": (configured({**CONFIG, "quantization": {"bits": 4, "group_size": 64}}), ["MLX, 4 bits", "--quant int8"]),
    "mlx arrays": (touch("weights.00.safetensors"), ["MLX"]),
    "awq": (configured(quantized("awq")), ["quantized weights (AWQ)", "16-bit checkpoint", "--quant int8"]),
    "gptq": (configured(quantized("gptq")), ["quantized weights (GPTQ)"]),
    "exl2": (configured(quantized("exl2")), ["quantized weights (EXL2)"]),
    "bitsandbytes": (configured(quantized("bitsandbytes")), ["quantized weights (bitsandbytes)"]),
    "old gptq": (configured(CONFIG, "quantize_config.json"), ["quantized weights (GPTQ)"]),
    "deepspeed": (touch("global_step100/", "zero_to_fp32.py", "latest"), ["DeepSpeed", "python zero_to_fp32.py . ."]),
    "deepspeed beside a config": (
        lambda folder: touch("global_step9/")(write_json(folder / "config.json", CONFIG) or folder),
        ["DeepSpeed"],
    ),
    "inside global_step": (touch("zero_pp_rank_0_mp_rank_00_model_states.pt"), ["DeepSpeed", "zero_to_fp32.py"]),
    "fsdp": (touch("pytorch_model_fsdp_0/__0_0.distcp"), ["FSDP", "accelerate merge-weights"]),
    "trainer": (
        touch("checkpoint-500/config.json", "checkpoint-1000/config.json", "trainer_state.json"),
        ["output folder of a training run", "checkpoint-1000 is the latest"],
    ),
    "vision tower": (tower, ["vision tower alone (CLIP)", "--vision-tower"]),
    "siglip": (configured({"model_type": "siglip_vision_model"}), ["vision tower alone (SigLIP)"]),
    "language model": (language_model, ["language model alone (llama)", "cannot see", "--model-base"]),
    "phi": (configured({"model_type": "phi3", "architectures": ["Phi3ForCausalLM"]}), ["language model alone (phi3)"]),
    "another vlm": (
        configured({"model_type": "qwen2_vl", "architectures": ["Qwen2VLForConditionalGeneration"]}),
        ["vision-language model of another kind (qwen2_vl)", "AutoModelForImageTextToText"],
    ),
    "diffusers": (touch("model_index.json", "unet/", "vae/"), ["diffusers pipeline"]),
    "zip": (zipped, ["archive (zip)", "Unpack it"]),
    "tar": (tarred, ["archive (tar)", "Unpack it"]),
    "tgz": (content("llava.tar.gz", b"\x1f\x8b\x08"), ["archive (gzip)"]),
    "archive in a folder": (touch("llava.tar.gz"), ["Unpack llava.tar.gz"]),
    "consolidated": (touch("consolidated.00.pth", "params.json"), ["the model's own code"]),
    "unfinished": (touch("model.safetensors.incomplete"), ["unfinished download"]),
    "image": (image, ["an image (PNG)", "llava ask photo.png"]),
    "weights alone": (weights_alone, ["file of tensors alone", "config.json"]),
    "text": (content("notes.txt", b"hello"), ["Name the folder"]),
    "empty file": (content("x.bin", b""), ["empty file"]),
    "empty folder": (touch(), ["empty folder", "download"]),
    "images": (touch("a.jpg", "b.jpg"), ["no config.json", "a.jpg, b.jpg", "A checkpoint is a folder with"]),
    "folder of folders": (touch("a/config.json", "b/config.json"), ["a, b in it", "Name one of them"]),
    "hub cache": (touch("models--org--name/refs/", "version.txt"), ["the hub's cache", "org/name"]),
}


@pytest.mark.parametrize("what", list(FOREIGN))
def test_what_is_no_checkpoint_is_called_by_its_name_with_the_next_step(
    tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make, words = FOREIGN[what]
    path = make(tmp_path)
    for deed in (lambda: load_model(path, device="cpu"), lambda: convert(path, tmp_path / "made" / "x", "hf")):
        with pytest.raises(CheckpointError) as caught:
            deed()
        assert [word for word in words if word not in str(caught.value)] == []
    assert main(["info", str(path)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert [word for word in words if word not in out] == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("llava:7b", ["name of Ollama", "llava-v1.6-mistral-7b"]),
        ("llava:34b-v1.6-q4_0", ["name of Ollama", "llava-v1.6-34b"]),
        ("llava:latest", ["name of Ollama", "llava-v1.6-mistral-7b"]),
        ("bakllava", ["name of Ollama"]),
        ("library/llava:13b", ["name of Ollama", "llava-v1.6-vicuna-13b"]),
        ("https://ollama.com/library/llava:7b", ["name of Ollama"]),
        ("https://huggingface.co/datasets/liuhaotian/LLaVA-Instruct-150K", ["data set or a page"]),
        ("https://example.com/llava.zip", ["a URL", "not a model on the hub"]),
        ("s3://bucket/llava", ["a URL"]),
    ],
)
def test_names_of_elsewhere_are_recognised(name: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CheckpointError) as caught:
        load_model(name)
    assert [word for word in words if word not in str(caught.value)] == []
    assert main(["info", name]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert [word for word in words if word not in out] == []


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://huggingface.co/liuhaotian/llava-v1.5-7b", "liuhaotian/llava-v1.5-7b"),
        ("https://huggingface.co/liuhaotian/llava-v1.5-7b/", "liuhaotian/llava-v1.5-7b"),
        ("huggingface.co/liuhaotian/llava-v1.5-7b", "liuhaotian/llava-v1.5-7b"),
        ("http://hf.co/liuhaotian/llava-v1.5-7b/tree/main", "liuhaotian/llava-v1.5-7b"),
        ("https://huggingface.co/liuhaotian/llava-v1.5-7b/tree/v2?x=1#files", "liuhaotian/llava-v1.5-7b@v2"),
        ("https://huggingface.co/org/name/blob/main/config.json", "org/name"),
        ("https://huggingface.co/org/name/resolve/0123abc/model.safetensors", "org/name@0123abc"),
        ("https://huggingface.co/org/name/tree/refs/pr/3", "org/name@refs/pr/3"),
        ("hf://org/name", "org/name"),
        ("https://example.com/org/name", "https://example.com/org/name"),
        ("liuhaotian/llava-v1.5-7b", "liuhaotian/llava-v1.5-7b"),
    ],
)
def test_an_address_of_the_hub_is_the_id_of_its_repository(url: str, name: str) -> None:
    assert read_hub_url(url) == name


def test_an_address_of_the_hub_loads_from_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = write_cached(tmp_path / "models--org--llava-tiny", main="0" * 40)
    assert find_checkpoint("https://huggingface.co/org/llava-tiny/blob/main/config.json") == snapshot


def write_cached(repository: Path, main: str | None, *revisions: str) -> Path:
    """A repository's folder as the hub's client lays it out; returns the snapshot of ``main``, or of the last."""
    if main is not None:
        (repository / "refs").mkdir(parents=True)
        (repository / "refs/main").write_text(main)
    for revision in [*revisions, *([main] if main else [])]:
        (repository / "snapshots" / revision).mkdir(parents=True, exist_ok=True)
        write_llava_1_6(repository / "snapshots" / revision)
    (repository / "blobs").mkdir()
    return repository / "snapshots" / (main or revisions[-1])


@pytest.mark.parametrize("below", ["", "snapshots", "blobs", "refs"])
def test_a_repository_of_the_hubs_cache_is_its_main_snapshot(tmp_path: Path, below: str) -> None:
    repository = tmp_path / "models--org--llava"
    snapshot = write_cached(repository, "1" * 40, "2" * 40)
    assert find_checkpoint(repository / below) == snapshot
    assert load_model(repository / below, device="cpu").spec.layout == "original"


def test_without_a_main_the_only_snapshot_counts_and_of_several_none(tmp_path: Path) -> None:
    only = write_cached(tmp_path / "models--org--a", None, "2" * 40)
    assert find_checkpoint(tmp_path / "models--org--a") == only
    (tmp_path / "models--org--a/refs").mkdir()
    (tmp_path / "models--org--a/refs/main").write_text("../../elsewhere")
    assert find_checkpoint(tmp_path / "models--org--a") == only
    write_cached(tmp_path / "models--org--b", None, "2" * 40, "3" * 40)
    with pytest.raises(CheckpointError, match=r"has 2 snapshots, and refs/main names none of them: name one, such as"):
        find_checkpoint(tmp_path / "models--org--b")
    (tmp_path / "models--org--c/blobs").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="has no snapshot: the download never began"):
        find_checkpoint(tmp_path / "models--org--c")


def test_lora_layers_without_their_base_are_described_by_what_they_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json(tmp_path / "adapter_config.json", {"peft_type": "LORA", "r": 4, "base_model_name_or_path": "./gone"})
    layer = "base_model.model.model.layers.0.self_attn.q_proj"
    shapes: dict[str, tuple[int, ...]] = {f"{layer}.lora_A.weight": (4, 32), f"{layer}.lora_B.weight": (32, 4)}
    save_file(random_tensors(shapes), tmp_path / "adapter_model.safetensors")
    assert main(["info", str(tmp_path)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "LoRA of rank 4, alpha None on 1 layers of ./gone" in out
    assert "--model-base" in out


def test_a_llava_is_never_taken_for_something_else(next_folder: Path, tmp_path: Path) -> None:
    assert recognise(next_folder) is None
    write_llava_1_6(tmp_path)
    touch("q4.gguf", "global_step10/", "checkpoint-5/", "onnx/", "tf_model.h5", "README.md", "x.zip")(tmp_path)
    assert recognise(tmp_path) is None
    assert load_model(tmp_path, device="cpu").spec.tower_config["hidden_size"] == TOWER["hidden_size"]


def test_what_is_neither_file_nor_folder_is_said_to_be_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket has to be short
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        for path, kind in (("/dev/null", "a device"), ("pipe", "a pipe"), ("socket", "a socket")):
            assert main(["info", path]) == 0
            assert kind in capsys.readouterr().out
            with pytest.raises(CheckpointError, match=kind):
                load_model(tmp_path / path)
    Path("loop").symlink_to("loop")
    with pytest.raises(CheckpointError, match="a broken symbolic link"):
        load_model(tmp_path / "loop")


@pytest.mark.parametrize(
    "name", ["a\0b", "~nobody/llava", "x" * 5000, "a/" * 2000, " ", "\n", "\ud800", "[", "%s", "-"]
)
def test_no_name_ends_in_anything_but_a_sentence(name: str) -> None:
    with pytest.raises(CheckpointError):
        load_model(name)


def test_info_has_a_sentence_for_any_file_and_any_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw = random.Random(0)
    starts = [b"", b"GGUF", b"PK\x03\x04", b"\x80\x02", b"\x1f\x8b", b"{", b"\x08\0\0\0\0\0\0\0{}", b"\xff\xd8\xff"]
    names = ["config.json", "model.safetensors", "pytorch_model.bin", "adapter_config.json", "mm_projector.bin",
             "model.safetensors.index.json", "quantize_config.json", "x.gguf", "refs", "snapshots", "\udcff.bin",
             "global_step1", "checkpoint-1", "adapter_model.safetensors", "a.onnx", "model_index.json"]  # fmt: skip
    for number in range(60):
        folder = tmp_path / f"{draw.choice(('', 'models--'))}{number}"
        folder.mkdir()
        for name in draw.sample(names, draw.randrange(4)):
            if draw.random() < 0.2:
                (folder / name).mkdir()
            else:
                (folder / name).write_bytes(draw.choice(starts) + draw.randbytes(draw.randrange(50)))
        for path in [folder, *folder.iterdir()]:
            assert main(["info", str(path)]) in (0, 1)
            said = capsys.readouterr()
            assert said.out or said.err.startswith("llava: error: ")


def test_a_repository_of_gguf_files_is_recognised_by_its_name_as_none_of_them_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path))
    with pytest.raises(CheckpointError, match=r"a repository of GGUF files for llama\.cpp"):
        load_model("org/llava-v1.5-7b-GGUF")


def test_a_pipe_in_the_place_of_config_json_is_not_waited_for(tmp_path: Path) -> None:
    write_llava_1_6(tmp_path)
    (tmp_path / "config.json").unlink()
    os.mkfifo(tmp_path / "config.json")
    for read in (lambda: describe_checkpoint(str(tmp_path)), lambda: load_model(tmp_path, device="cpu")):
        with pytest.raises(CheckpointError, match=r"config\.json is not a regular file, where a JSON file is needed"):
            read()


def test_a_json_file_that_is_larger_than_any_is_not_read_into_memory(tmp_path: Path) -> None:
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(10**12)  # without a block on the disk
    with pytest.raises(CheckpointError, match="1,000,000,000,000 bytes"):
        describe_checkpoint(str(tmp_path))


def test_no_name_at_all_is_not_the_embedded_model(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CheckpointError, match="The name of the checkpoint is empty"):
        describe_checkpoint("")
    with pytest.raises(CheckpointError, match=r"The name of the checkpoint, 'a\\x00b', holds a NUL byte"):
        find_checkpoint("a\0b")
    assert capsys.readouterr().out == ""


def test_a_link_to_itself_and_a_repository_without_a_snapshot_are_told_with_the_next_step(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "models--org--name/blobs").mkdir(parents=True)
    found = [recognise(tmp_path / name) for name in ("loop", "models--org--name")]
    assert [each and each.kind for each in found] == ["link", "unfinished download"]
    assert str(found[1]).endswith("Start it again: hf download org/name.")
