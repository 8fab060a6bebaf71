"""Runs the published judging scripts on ``judged_inputs`` and prints what they do: ``python make_judged.py ORIGINAL``.

ORIGINAL holds ``eval_gpt_review*.py``, ``summarize_gpt_review.py``, ``qa_baseline_gpt35.py`` and
``generate_webpage_data_from_table.py`` of haotian-liu/LLaVA@c121f04, and ``mm_vet_evaluator.py``, which is the prompt
and the functions load_metadata, runs and export_result of yuweihao/MM-Vet@7d717c2. The packages openai, ray and
shortuuid, which these import, are replaced: a judge answers from a table, and nothing sleeps. Needs numpy and pandas.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import io
import json
import os
import subprocess
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import judged_inputs as given

RULE = Path(__file__).parents[3] / "llava/eval/table/rule.json"
FAKES = {
    "openai.py": """
import json, os, time, types
time.sleep = lambda seconds: None
error = types.SimpleNamespace(RateLimitError=type("RateLimitError", (Exception,), {}))
class ChatCompletion:
    def create(**request):
        with open(os.environ["FAKE_LOG"], "a") as log:
            log.write(json.dumps(request) + "\\n")
        text = request["messages"][-1]["content"]
        said = [reply for part, reply in json.loads(os.environ["FAKE_REPLIES"]).items() if part in text]
        return {"choices": [{"message": {"content": said[0]}}]}
""",
    "ray.py": """
def init(): pass
def get(values): return values
def remote(**options):
    def wrap(function):
        function.remote = function
        return function
    return wrap
""",
    "shortuuid.py": "def uuid(): return 'ID'\n",
}


def run_script(original: Path, name: str, case: dict[str, Any]) -> dict[str, Any]:
    """What a script prints, writes and asks."""
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        for path, text in {**case["files"], "rule.json": RULE.read_text("utf-8")}.items():
            (here / path).parent.mkdir(parents=True, exist_ok=True)
            (here / path).write_text(text, "utf-8")
        (here / "fakes").mkdir()
        for path, text in FAKES.items():
            (here / "fakes" / path).write_text(text)
        env = os.environ | {
            "PYTHONPATH": str(here / "fakes"),
            "FAKE_LOG": str(here / "log"),
            "FAKE_REPLIES": json.dumps(given.REPLIES),
        }
        command = [sys.executable, str(original / f"{name}.py"), *case["argv"]]
        done = subprocess.run(command, cwd=here, env=env, capture_output=True, text=True, check=True)
        found: dict[str, Any] = {"stdout": done.stdout}
        if "output" in case:
            found["output"] = (here / case["output"]).read_text("utf-8")
            log = (here / "log").read_text() if (here / "log").exists() else ""
            found["requests"] = sorted(map(json.loads, log.splitlines()), key=json.dumps)
        return found


def digest(value: object) -> str:
    """The SHA-256 of a value as JSON."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def load(path: Path) -> Any:
    """A module from a file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parse_all(original: Path) -> list[Any]:
    """Each review with its pair and what is printed."""
    for name, text in FAKES.items():
        sys.modules[name.removesuffix(".py")] = module = types.ModuleType(name.removesuffix(".py"))
        exec(text, module.__dict__)
    parse_score = load(original / "eval_gpt_review_bench.py").parse_score
    found = []
    for review in given.REVIEWS:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            pair = parse_score(review)
        found.append([review, pair, out.getvalue()])
    return found


class Grader:
    """An ``OpenAI`` client that says the replies in turn, and then the last one."""

    def __init__(self, replies: list[str]) -> None:
        self.left, self.requests = list(replies), []
        self.chat = types.SimpleNamespace(completions=self)

    def create(self, **request: Any) -> Any:
        self.requests.append(request)
        reply = self.left.pop(0) if len(self.left) > 1 else self.left[0]
        message = types.SimpleNamespace(content=reply)
        return types.SimpleNamespace(choices=[types.SimpleNamespace(message=message)], model="judge-1")


def grade_all(original: Path) -> tuple[list[Any], list[Any], dict[str, Any]]:
    """Grades of one reply said again and again; the requests of a question never graded; the tables of three runs."""
    package = types.ModuleType("openai")
    package.OpenAI, errors = None, types.ModuleType("openai._exceptions")  # type: ignore[attr-defined]
    errors.RateLimitError = type("RateLimitError", (Exception,), {})  # type: ignore[attr-defined]
    sys.modules.update({"openai": package, "openai._exceptions": errors})
    module = load(original / "mm_vet_evaluator.py")
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        here = Path(folder)
        (here / "mm-vet.json").write_text(json.dumps(given.MM_VET))
        (here / "answers.json").write_text(json.dumps({key: f"answer {key}" for key in given.MM_VET}))
        args = argparse.Namespace(
            use_sub_set=False,
            mmvet_path=folder,
            prompt=module.prompt,
            gpt_model="g",
            num_run=1,
            decimal_places=1,
            model="m",
        )
        one = {"v1_0": given.MM_VET["v1_0"]}
        grades, asked = [], []
        for i, reply in enumerate(given.GRADES):
            module.client = Grader([reply])
            found = module.runs(args, here / "answers.json", here / f"g{i}", one, 1)["v1_0"]
            num_asked = len(module.client.requests)
            grades.append([reply, found["score"][0] if num_asked == 1 else None, num_asked])
            if num_asked > 1:
                asked = [
                    [request["temperature"], request["max_tokens"], digest(request["messages"])]
                    for request in module.client.requests
                ]
        args.num_run = 3
        metadata = module.load_metadata(args)
        names = "sub_set sub_set_name data counter cap_set_list cap_set_counter len_data df df2 cap_set_names".split()
        for name, value in zip(names, metadata, strict=True):
            setattr(module, name, value)
        module.client = Grader([reply for run in given.RUNS for reply in run])
        found = module.runs(args, here / "answers.json", here / "all", module.data, module.len_data)
        written = (here / "all").read_text()
        frames = module.export_result(
            args, module.df, module.df2, found, module.data, module.cap_set_counter, module.cap_set_names
        )
    tables = []
    for frame in frames:
        row = frame.loc["m"].to_dict()
        tables.append(
            {"_".join(sorted(key.split("_"))): value if key == "runs" else float(value) for key, value in row.items()}
        )
    return grades, asked, {"capabilities": tables[0], "combinations": tables[1], "written": written}


def main() -> None:
    """Prints the table."""
    original = Path(sys.argv[1])
    table = {
        "source": "haotian-liu/LLaVA@c121f04 llava/eval; yuweihao/MM-Vet@7d717c2 mm-vet_evaluator.py",
        "scripts": {name: run_script(original, name, case) for name, case in given.SCRIPTS.items()},
        "summaries": [run_script(original, "summarize_gpt_review", case) for case in given.SUMMARIES],
        "reviews": parse_all(original),
    }
    table["grades"], table["asked"], table["mm_vet"] = grade_all(original)
    json.dump(table, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
