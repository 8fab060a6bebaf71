"""The original's worker and controller routes, as its front end calls them."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from llava.conversation import conv_templates
from tests.serve.serving import Puppet, Running, run_server

DEMO = (Path(__file__).resolve().parents[2] / "examples/demo.png").read_bytes()


def prompt_for(question: str) -> str:
    conversation = conv_templates["vicuna_v1"].copy()
    conversation.append_message(conversation.roles[0], question)
    conversation.append_message(conversation.roles[1], None)
    return conversation.get_prompt()


def test_the_answer_comes_as_the_originals_worker_says_it(own: Running) -> None:
    prompt = prompt_for("<image>\nWhat is written on the sign?")
    # As llava/serve/gradio_web_server.py asks.
    asked = {
        "model": "embedded",
        "prompt": prompt,
        "temperature": 0.0,
        "top_p": 0.7,
        "max_new_tokens": 20,
        "stop": "</s>",
        "images": [base64.b64encode(DEMO).decode()],
    }
    reply = own.post("/worker_generate_stream", asked)
    *pieces, rest = reply.body.split(b"\0")
    said = [json.loads(piece) for piece in pieces]
    assert (reply.status, rest) == (200, b"")
    assert {one["error_code"] for one in said} == {0}
    assert all(one["text"].startswith(prompt) for one in said)
    assert said[-1]["text"][len(prompt) :].strip() == "MORTALS"
    assert [len(one["text"]) for one in said] == sorted(len(one["text"]) for one in said)


def test_the_end_of_the_front_ends_slider_is_the_likeliest_answer(own: Running) -> None:
    asked = {"prompt": prompt_for("Hi"), "max_new_tokens": 5}
    first, *others = (
        own.post("/worker_generate_stream", {**asked, **more}).body
        for more in ({"temperature": 0}, {"top_p": 0}, {"top_p": 0, "temperature": 1.0})
    )
    assert b'"error_code": 0' in first
    assert others == [first, first]


def test_images_and_places_have_to_agree(own: Running) -> None:
    asked = {"model": "embedded", "prompt": prompt_for("<image>\nWhat?"), "images": []}
    reply = own.post("/worker_generate_stream", asked)
    assert (reply.status, "1 <image>, but there are 0 images" in reply.error["message"]) == (400, True)
    # What the original's front end reads of every answer.
    assert (reply.json["error_code"], reply.json["text"]) == (1, reply.error["message"])
    many = own.post("/worker_generate_stream", {**asked, "images": ["x"] * 5})
    assert (many.status, many.error["code"]) == (400, "images_limit_exceeded")


def test_an_error_in_the_middle_has_a_code() -> None:
    puppet = Puppet()
    puppet.error, puppet.error_after = RuntimeError("secret"), 2
    with run_server(puppet) as running:
        reply = running.post("/worker_generate_stream", {"prompt": "Hi"})
        *_, last, _ = reply.body.split(b"\0")
        assert json.loads(last)["error_code"] == 1
        assert b"secret" not in reply.body


def test_the_controllers_questions_are_answered(own: Running) -> None:
    assert own.post("/refresh_all_workers", {}).status == 200
    assert own.post("/list_models", {}).json == {"models": ["embedded"]}
    assert own.post("/get_worker_address", {"model": "embedded"}).json == {"address": own.service.settings.address}
    assert own.post("/get_worker_address", {"model": "other"}).json == {"address": ""}
    status = own.post("/worker_get_status", {}).json
    assert status == {"model_names": ["embedded"], "speed": 1, "queue_length": 0}


def test_what_the_originals_clients_send_besides_is_understood(own: Running) -> None:
    prompt = prompt_for("<image>\nWhat is written on the sign?")
    code = base64.b64encode(DEMO).decode()
    asked = {"prompt": prompt, "temperature": 0.0, "max_new_tokens": 20, "images": [code]}

    def ask(**more: object) -> str:
        reply = own.post("/worker_generate_stream", {**asked, **more})
        assert reply.status == 200, reply.body
        *_, last, _ = reply.body.split(b"\0")
        said = json.loads(last)
        assert said["error_code"] == 0
        return said["text"][len(prompt) :].strip()

    assert ask(images=[f"data:image/png;base64,{code}"]) == "MORTALS"
    assert ask(stop=["</s>", "TALS"]) == "MOR"
    for stop in ([], None, ""):
        assert ask(stop=stop) == "MORTALS"
    for model in ("/checkpoints/embedded", "someone/embedded", "embedded/", None):
        assert ask(model=model) == "MORTALS"
    assert ask(max_new_tokens=20.0) == "MORTALS"
    for number in (0, -1):
        assert ask(max_new_tokens=number).startswith("Exceeds max token length.")
    address = own.post("/get_worker_address", {"model": "/checkpoints/embedded"}).json["address"]
    assert address == own.service.settings.address
    assert own.post("/worker_generate_stream", {**asked, "model": "/checkpoints/other"}).status == 404


def test_workers_may_register_but_get_nothing_to_do(own: Running, caplog: pytest.LogCaptureFixture) -> None:
    status = {"model_names": ["x"], "speed": 1, "queue_length": 0}
    other, ours = "http://127.0.0.1:21002", own.service.settings.address
    asked = {"worker_name": other, "check_heart_beat": True, "worker_status": status}
    reply = own.post("/register_worker", asked)
    assert (reply.status, reply.json) == (200, None)
    assert "forwards none" in caplog.text
    assert own.post("/receive_heart_beat", {"worker_name": other, "queue_length": 0}).json == {"exist": False}
    assert own.post("/receive_heart_beat", {"worker_name": ours, "queue_length": 0}).json == {"exist": True}
    assert own.post("/list_models", {}).json == {"models": ["embedded"]}
    assert own.post("/register_worker", {}).status == 400
