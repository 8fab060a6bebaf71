"""The script that LLaVA's readers are given runs as it stands, but for the model's path and the image."""

from __future__ import annotations

import os
import types
from pathlib import Path
from typing import Any

import pytest

import llava.eval.run_llava as run_llava
from llava.errors import UsageError

SCRIPT = """
from llava.model.builder import load_pretrained_model
from llava.mm_utils import get_model_name_from_path
from llava.eval.run_llava import eval_model

model_path = MODEL_PATH
prompt = "What are the things I should be cautious about when I visit here?"
image_file = IMAGE_FILE

args = type('Args', (), {
    "model_path": model_path,
    "model_base": None,
    "model_name": get_model_name_from_path(model_path),
    "query": prompt,
    "conv_mode": None,
    "image_file": image_file,
    "sep": ",",
    "temperature": 0,
    "top_p": None,
    "num_beams": 1,
    "max_new_tokens": 512
})()

eval_model(args)
"""


@pytest.fixture(autouse=True)
def forget_models() -> None:
    run_llava._kept.clear()


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models that were really loaded."""
    import llava.model.checkpoint as checkpoint

    names: list[str] = []
    load_model = checkpoint.load_model

    def count(path: Any, **keywords: Any) -> Any:
        names.append(str(path))
        return load_model(path, **keywords)

    monkeypatch.setattr(checkpoint, "load_model", count)
    return names


def make_args(folder: Path, photo: Path, **changes: Any) -> types.SimpleNamespace:
    values = {
        "model_path": str(folder),
        "model_base": None,
        "query": "What is in the image?",
        "conv_mode": None,
        "image_file": str(photo),
        "sep": ",",
        "temperature": 0,
        "top_p": None,
        "num_beams": 1,
        "max_new_tokens": 5,
    }
    return types.SimpleNamespace(**{**values, **changes})


def test_the_script_prints_an_answer(capsys: pytest.CaptureFixture[str], next_folder: Path, photo: Path) -> None:
    # 40 tokens instead of 512: a random model has no end. Everything else is the script as it is given.
    script = SCRIPT.replace("512", "40")
    exec(compile(script, "brief.py", "exec"), {"MODEL_PATH": str(next_folder), "IMAGE_FILE": str(photo)})
    out, err = capsys.readouterr()
    assert out.strip()
    assert out.endswith("\n")
    assert err == ""


def test_the_answer_is_the_one_that_the_originals_steps_give(
    capsys: pytest.CaptureFixture[str], next_folder: Path, photo: Path
) -> None:
    import torch
    from PIL import Image

    from llava.constants import IMAGE_TOKEN_INDEX
    from llava.conversation import conv_templates
    from llava.mm_utils import get_model_name_from_path, process_images, tokenizer_image_token
    from llava.model.builder import load_pretrained_model

    tokenizer, model, image_processor, _ = load_pretrained_model(
        str(next_folder), None, get_model_name_from_path(str(next_folder))
    )
    conv = conv_templates["llava_v1"].copy()
    conv.append_message(conv.roles[0], "<image>\nWhat is in the image?")
    conv.append_message(conv.roles[1], None)
    images = [Image.open(photo).convert("RGB")]
    images_tensor = process_images(images, image_processor, model.config).to(model.device, dtype=torch.float16)
    input_ids = tokenizer_image_token(conv.get_prompt(), tokenizer, IMAGE_TOKEN_INDEX, return_tensors="pt").unsqueeze(0)
    with torch.inference_mode():
        output_ids = model.generate(
            input_ids.to(model.device),
            images=images_tensor.to(model.dtype),
            image_sizes=[image.size for image in images],
            do_sample=False,
            num_beams=1,
            max_new_tokens=5,
            use_cache=True,
        )
    expected = tokenizer.batch_decode(output_ids, skip_special_tokens=True)[0].strip()
    assert run_llava.eval_model(make_args(next_folder, photo)) == expected
    assert capsys.readouterr().out == expected + "\n"


def test_a_second_call_does_not_load_the_model_again(next_folder: Path, photo: Path, loads: list[str]) -> None:
    first = run_llava.eval_model(make_args(next_folder, photo))
    assert run_llava.eval_model(make_args(next_folder, photo)) == first
    assert loads == [str(next_folder)]


def test_a_checkpoint_that_was_written_anew_is_loaded_again(next_folder: Path, photo: Path, loads: list[str]) -> None:
    run_llava.eval_model(make_args(next_folder, photo))
    later_ns = (next_folder / "config.json").stat().st_mtime_ns + 10**9
    os.utime(next_folder / "config.json", ns=(later_ns, later_ns))
    run_llava.eval_model(make_args(next_folder, photo))
    assert len(loads) == 2


def test_the_arguments_are_left_as_they_were(next_folder: Path, photo: Path) -> None:
    args = make_args(next_folder, photo)
    before = dict(vars(args))
    run_llava.eval_model(args)
    assert vars(args) == before


def test_another_template_is_used_and_warned_of(
    capsys: pytest.CaptureFixture[str], next_folder: Path, photo: Path
) -> None:
    run_llava.eval_model(make_args(next_folder, photo, conv_mode="mpt"))
    err = capsys.readouterr().err
    inferred, named = "the auto inferred conversation mode is llava_v1", "`--conv-mode` is mpt"
    assert err == f"[WARNING] {inferred}, while {named}, using mpt\n"
    with pytest.raises(UsageError, match="no conversation template 'nope'"):
        run_llava.eval_model(make_args(next_folder, photo, conv_mode="nope"))
    assert capsys.readouterr().err == ""


def test_placeholders_say_where_the_images_go(next_folder: Path, photo: Path) -> None:
    first = run_llava.eval_model(make_args(next_folder, photo, query="<image-placeholder>\nWhat is in the image?"))
    assert first == run_llava.eval_model(make_args(next_folder, photo))
    both = f"{photo};{photo}"
    query = "First <image-placeholder> then <image-placeholder>."
    assert run_llava.eval_model(make_args(next_folder, photo, image_file=both, sep=";", query=query))
    with pytest.raises(UsageError, match=r"has 2 <image-placeholder>, but there are 1 images"):
        run_llava.eval_model(make_args(next_folder, photo, query=query))


def test_every_image_has_its_place_without_placeholders(
    monkeypatch: pytest.MonkeyPatch, next_folder: Path, photo: Path
) -> None:
    import llava.answer

    replies = []
    answer = llava.answer.answer

    def keep(*given: Any, **keywords: Any) -> Any:
        replies.append(answer(*given, **keywords))
        return replies[-1]

    monkeypatch.setattr(llava.answer, "answer", keep)
    run_llava.eval_model(make_args(next_folder, photo, image_file=f"{photo},{photo}"))
    assert replies[0].image_positions == (14, 14)


def test_a_prompt_that_does_not_fit_is_cut_with_a_warning(
    capsys: pytest.CaptureFixture[str], next_folder: Path, photo: Path
) -> None:
    run_llava.eval_model(make_args(next_folder, photo, query="What? " * 3000))
    assert "the prompt was cut to its first 4096 of" in capsys.readouterr().err


def test_the_command_line_takes_the_originals_flags(
    capsys: pytest.CaptureFixture[str], next_folder: Path, photo: Path
) -> None:
    flags = ["--model-path", str(next_folder), "--image-file", str(photo), "--query", "What?", "--temperature", "0"]
    assert run_llava.main([*flags, "--max_new_tokens", "4", "--num_beams", "1"]) == 0
    assert capsys.readouterr().out.strip()
    flags[flags.index(str(photo))] = "nowhere.png"
    assert run_llava.main(flags) == 1
    assert "nowhere.png" in capsys.readouterr().err


def test_images_load_by_name_as_rgb(photo: Path) -> None:
    args = types.SimpleNamespace(image_file=f"{photo},{photo}", sep=",")
    images = run_llava.load_images(run_llava.image_parser(args))
    assert [(image.size, image.mode) for image in images] == [((100, 67), "RGB")] * 2
