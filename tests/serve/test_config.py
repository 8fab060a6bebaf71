"""The settings of ``llava serve``: its configuration file, the flags that override it, and those that moved there."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from llava.cli import main
from llava.serve.limits import Limits, Settings

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
EXAMPLE = re.search(r"```yaml\n# server.yaml\n(.*?)```", PAGE, re.DOTALL)


class Started(Exception):
    """Raised in place of serving, with what would have been served."""


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Runs ``llava serve`` with a configuration file, up to the point where the server would start."""

    def start(make_backend: Any, settings: Settings, **where: Any) -> int:
        raise Started(settings, where, *make_backend.args)

    monkeypatch.setattr("llava.serve.server_process.serve", start)

    def run(text: str, *flags: str) -> tuple[Settings, dict[str, Any], Any]:
        file = tmp_path / "server.yaml"
        file.write_text(text, encoding="utf-8")
        with pytest.raises(Started) as started:
            main(["serve", "--no-web", "--config", str(file), *flags])
        settings, where, arguments, *_ = started.value.args
        return settings, where, arguments

    return run


def test_the_file_of_the_manual_is_loaded(serve: Any) -> None:
    assert EXAMPLE is not None
    settings, where, arguments = serve(EXAMPLE[1])
    assert (where["host"], where["port"]) == ("0.0.0.0", 8000)
    assert (arguments.model, arguments.quant) == ("llava-v1.6-mistral-7b", "int4")
    assert (settings.keys, settings.hosts) == (("first-key", "second-key"), ("llava.example.org",))
    assert not settings.fetch
    limits = Limits(running=64, image_pixels=50_000_000, body_bytes=64 * 2**20, answer_s=120.0, stop_texts=8)
    assert settings.limits == limits


def test_numbers_in_the_file_are_read_as_they_are_written(serve: Any) -> None:
    text = "api_key: [0123456, 007, 12_34, 1:30, 1.10, 2026-01-01, 0x10]\nname: 1.10\nmemory: 1e9\nport: 08001\n"
    settings, where, arguments = serve(text)
    assert settings.keys == ("0123456", "007", "12_34", "1:30", "1.10", "2026-01-01", "0x10")
    assert (arguments.name, arguments.memory, where["port"]) == ("1.10", 10**9, 8001)


def test_numbers_of_pixels_are_written_alike_in_the_file_and_after_the_flag(serve: Any) -> None:
    assert serve("limits: {image_pixels: 50M}")[0].limits.image_pixels == 50_000_000
    assert serve("", "--max-image-pixels", "0.4G")[0].limits.image_pixels == 400_000_000


def test_a_tilde_in_the_path_of_the_log_is_the_home_folder(
    serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert serve("log_conversations: ~/chats.jsonl")[0].log == tmp_path / "chats.jsonl"
    assert serve("", "--log-conversations=~/chats.jsonl")[0].log == tmp_path / "chats.jsonl"
    assert (tmp_path / "chats.jsonl").is_file()


def test_the_notice_of_consent_is_one_line_and_needs_a_log(
    serve: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = f"--log-conversations={tmp_path / 'chats.jsonl'}"
    assert serve("", log, "--log-consent", "May be  used\nto train.")[0].consent == "May be used to train."
    assert serve("log_consent: May be used.", log)[0].consent == "May be used."
    assert serve("", log)[0].consent == ""
    for flags, fault in (
        (["--log-consent", "May be used."], "without --log-conversations"),
        (["--log-consent= ", log], "is empty"),
    ):
        assert main(["serve", "--no-web", *flags]) == 2
        assert fault in capsys.readouterr().err


def test_an_empty_file_changes_nothing(serve: Any) -> None:
    assert serve("")[0] == serve("limits:\n")[0] == serve("# port: 1\n")[0]
    assert serve("")[0].limits == Limits()


def test_a_flag_beats_the_file_on_either_side_of_it(serve: Any, tmp_path: Path) -> None:
    text = "port: 1\nhost: ::1\napi_key: [old, older]\nmodel: x\nweb: true\nlimits: {running: 5, waiting: 6}"
    given = ["--port", "8000", "--api-key", "a", "--api-key", "b", "--max-running", "32", "--model=y"]
    settings, where, arguments = serve(text, *given)
    assert (where["port"], where["host"], arguments.model) == (8000, "::1", "y")
    assert settings.keys == ("a", "b")
    assert (settings.limits.running, settings.limits.waiting) == (32, 6)
    with pytest.raises(Started) as started:
        main(["serve", "z", *given[:-1], "--no-web", "--config", str(tmp_path / "server.yaml")])
    assert started.value.args[0] == settings
    assert started.value.args[1]["port"] == 8000
    assert started.value.args[2].model == "z"


@pytest.mark.parametrize("one", dataclasses.fields(Limits), ids=lambda one: one.name)
def test_every_limit_is_a_setting_of_the_file(serve: Any, one: Any) -> None:
    settings, _, _ = serve(f"limits: {{{one.name}: 7}}")
    assert settings.limits == dataclasses.replace(Limits(), **{one.name: 7})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prot: 1", "there is no setting 'prot'. Did you mean 'port'? There are: model, model_base,"),
        ("1: 1", "there is no setting '1'. There are: "),
        ("config: other.yaml", "there is no setting 'config'."),
        ("help: true", "there is no setting 'help'."),
        (
            "limits: {stop_text: 1}",
            "there is no setting limits.stop_text. Did you mean 'stop_texts'? There are: b",
        ),
        ("running: 1", "'running' is the setting limits.running: write running under limits."),
        ("max_running: 1", "'max_running' is the setting limits.running: write running under limits."),
        ("port: http", "port is 'http'; it has to be a whole number."),
        ("port: 1.5", "port is '1.5'; it has to be a whole number."),
        ("port: true", "port is true; it has to be a text or a number."),
        ("port: [1]", "port is a list; it has to be a text or a number."),
        ("port:", "port is empty; it has to be a text or a number."),
        ("name: on", "name is true; it has to be a text or a number. Write it in quotes."),
        ("quant: int3", "quant is 'int3'; it has to be one of int8, int4."),
        ("memory: lots", "memory: 'lots' is not a size; write a number above 0 such as 500M or 2G."),
        ("no_fetch: 1", "no_fetch is '1'; it has to be true or false."),
        ("api_key: ['']", "An API key in --api-key is empty"),
        ("api_key: [[a]]", "api_key is a list; it has to be a text or a number."),
        ("limits: 3", "limits must be a mapping of names to values, not text."),
        ("limits: {running: 0}", "The limit running is 0; it has to be at least 1."),
        ("limits: {fetch_s: 1.0e+15}", "The limit fetch_s is 1000000000000000.0; it has to be at most 1000000."),
        ("limits: {body_s: nan}", "The limit body_s is nan"),
        ("limits: {values: 3.5}", "limits.values is '3.5'; it has to be a whole number."),
        ("limits: {body_bytes: 0}", "limits.body_bytes: '0' is not a size"),
        ("limits: {image_pixels: many}", "limits.image_pixels: 'many' is not a number of pixels; write one such as"),
        ("max-running: 1", "'max-running' is the setting limits.running: write running under limits."),
        ("no-fetch: true", "there is no setting 'no-fetch'. Did you mean 'no_fetch'?"),
        ("limits: {max-running: 1}", "there is no setting limits.max-running. Did you mean 'running'?"),
        ("api_key: {secret: x}", "api_key is a mapping; it has to be a text or a number."),
        ("port: 1:30", "port is '1:30'; it has to be a whole number."),
        ("port: " + "[" * 3000, "is nested too deeply."),
        ("port: 1\nport: 2", "is not valid YAML in line 2: the key 'port' occurs twice."),
        ("port: !!int http", "is not valid YAML in line 1: 'http' is not a valid whole number"),
        ("port: " + "9" * 6000, "99...'; it has to be a whole number."),
        (r'"a\nb": 1', r"there is no setting 'a\nb'."),
        (r'limits: {"a\nb": 1}', r"there is no setting limits.a\nb."),
        (r'"max_values\n": 1', r"there is no setting 'max_values\n'."),
        (r'memory: "1\n2"', r"memory: '1\n2' is not a size"),
        ("port: [", "is not valid YAML in line 1"),
        ("- port", "must be a mapping of keys to values, not a list."),
    ],
)
def test_a_wrong_setting_is_one_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, says: str
) -> None:
    file = tmp_path / "server.yaml"
    file.write_text(text, encoding="utf-8")
    assert main(["serve", "--no-web", "--config", str(file)]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.startswith("llava: error: ")
    assert error.count("\n") == 1


def test_a_file_that_cannot_be_read_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9")
    for name, why in (("nowhere.yaml", "No such file"), (".", "Is a directory"), ("latin.yaml", "codec can't decode")):
        assert main(["serve", "--config", str(tmp_path / name)]) == 2
        assert re.search(rf"--config: .*cannot be read: .*{why}", capsys.readouterr().err)
    assert main(["serve", "--config", "~nobody-of-this-name/server.yaml"]) == 2
    assert "--config: ~nobody-of-this-name/server.yaml cannot be read: No such file" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--max-values", "3"], ["--max-values=3"], ["--max-values"]])
def test_a_flag_that_moved_to_the_file_says_where_it_is(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["serve", *words])
    assert left.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == "llava: error: --max-values is a setting of --config server.yaml: limits.values"


def test_ten_limits_are_flags_and_the_help_shows_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    shown = capsys.readouterr().out
    flags = {one.name: one.metadata["flag"] for one in dataclasses.fields(Limits)}
    kept = [flag for flag in flags.values() if flag is not None]
    assert len(kept) == 10
    assert [flag for flag in kept if flag not in shown] == []
    assert [name for name, flag in flags.items() if flag is None and f"--max-{name.replace('_', '-')}" in shown] == []


def describe(one: dataclasses.Field[Any]) -> str:
    """A limit's row in the manual."""
    value: Any = one.default
    shown = f"{value:,}"
    if one.name.endswith("_bytes"):
        shown = f"{value // 2**20:,} MiB" if value >= 2**20 else f"{value // 2**10} KiB"
    elif one.name.endswith("_s"):
        shown = f"{value:g} s"
    flag = one.metadata["flag"]
    return f"| `{one.name}` | {shown} | {one.metadata['text']} | {f'`{flag}`' if flag else ''} |"


def test_the_manual_lists_every_limit_with_its_default() -> None:
    assert [row for row in map(describe, dataclasses.fields(Limits)) if row not in PAGE] == []
