"""A model in Ollama's own store is found by its name, with the projector and the template of its manifest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llava.cli import main
from llava.errors import CheckpointError
from llava.model.checkpoint_reader import open_checkpoint
from llava.model.gguf.ollama_store import find_manifest, name_of
from tests.model.test_gguf_faults import write_pair
from tests.tiny_gguf import write_ollama

MISTRAL = "[INST] {{ if .System }}{{ .System }} {{ end }}{{ .Prompt }} [/INST]"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "models"))
    (tmp_path / "models/manifests").mkdir(parents=True)
    return tmp_path / "models"


def test_a_model_is_found_by_its_name_with_projector_and_template(
    tmp_path: Path, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_pair(tmp_path / "pair")
    write_ollama(store, "llava:13b", model, model.with_name("mmproj.gguf"), MISTRAL)
    for name in (
        "ollama:llava:13b",
        "ollama://llava:13b",
        "ollama:library/llava:13b",
        str(find_manifest("ollama:llava:13b")),
    ):
        opened = open_checkpoint(name)
        assert (opened.template, opened.spec.tiling.is_anyres) == ("mistral_instruct", True)
        assert len(opened.load_tokenizer()("a cat").input_ids) > 1
        assert sum(1 for _ in opened.stream()) > 40
    assert main(["info", "ollama:llava:13b"]) == 0
    assert "template mistral_instruct" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ .System }}\nUSER: {{ .Prompt }}\nASSISTANT: ", "llava_v1"),
        ("<|im_start|>system\n{{ .System }}<|im_end|>\n<|im_start|>user\n{{ .Prompt }}<|im_end|>", "chatml_direct"),
        ("<|start_header_id|>user<|end_header_id|>{{ .Prompt }}<|eot_id|>", "llava_llama_3"),
    ],
)
def test_the_templates_of_ollamas_library_are_known(tmp_path: Path, store: Path, template: str, expected: str) -> None:
    model = write_pair(tmp_path / "pair")
    write_ollama(store, "llava", model, model.with_name("mmproj.gguf"), template)
    assert open_checkpoint("ollama:llava").template == expected


def test_a_text_model_says_so(tmp_path: Path, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_ollama(store, "vicuna", write_pair(tmp_path / "pair"), None)
    with pytest.raises(
        CheckpointError, match=r"vicuna:latest is a language model alone .*no projector in its manifest"
    ):
        open_checkpoint("ollama:vicuna")
    assert main(["info", "ollama:vicuna"]) == 0
    assert "cannot see" in capsys.readouterr().out


def test_what_is_not_there_is_told_with_the_next_step(tmp_path: Path, store: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no model 'llava' in .*It has none. To get it: ollama pull llava"):
        open_checkpoint("ollama:llava")
    model = write_pair(tmp_path / "pair")
    manifest = write_ollama(store, "llava", model, model.with_name("mmproj.gguf"))
    assert name_of(manifest) == "llava:latest"
    with pytest.raises(CheckpointError, match=r"no model 'llava:34b' in .*It has llava:latest"):
        open_checkpoint("ollama:llava:34b")
    with pytest.raises(CheckpointError, match="is not a name of Ollama's"):
        open_checkpoint("ollama:../../etc")
    with pytest.raises(CheckpointError, match="Name a model as ollama:NAME, such as ollama:llava:latest"):
        open_checkpoint(store)
    next(path for path in (store / "blobs").iterdir() if path.stat().st_size == model.stat().st_size).unlink()
    with pytest.raises(CheckpointError, match="the model of llava:latest, is missing from Ollama's store"):
        open_checkpoint("ollama:llava")
    values = json.loads(manifest.read_text())
    values["layers"][0]["digest"] = "sha256:../../x"
    manifest.write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match="which is not a digest"):
        open_checkpoint("ollama:llava")


def test_a_machine_without_ollama_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "none"))
    with pytest.raises(CheckpointError, match=r"no store of Ollama's models at OLLAMA_MODELS=.*none"):
        open_checkpoint("ollama:llava")
