"""Imports have no side effects: no torch where none is needed, no missing extra, no unexpected public names."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import llava

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "llava").rglob("*.py")
    if path.name != "__main__.py"
)
WITHOUT_TORCH = [
    "llava",
    "llava.backends.turns",
    "llava.cli",
    "llava.commands.eval_report",
    "llava.commands.flags",
    "llava.commands.serve",
    "llava.config",
    "llava.constants",
    "llava.conversation",
    "llava.data.check_run",
    "llava.data.convert.captions",
    "llava.data.convert.converter",
    "llava.data.convert.instructions",
    "llava.data.convert.json_input",
    "llava.data.convert.merged_turns",
    "llava.data.convert.parquet_input",
    "llava.data.convert.regions",
    "llava.data.convert.row_writer",
    "llava.data.convert.table",
    "llava.data.convert.vqa",
    "llava.data.harm",
    "llava.data.identity_numbers",
    "llava.data.parquet_rows",
    "llava.data.privacy",
    "llava.data.prompts",
    "llava.data.readers",
    "llava.data.records",
    "llava.data.remote_files",
    "llava.data.tar_rows",
    "llava.dimensions",
    "llava.engine.blocks",
    "llava.engine.feature_cache",
    "llava.engine.pace",
    "llava.engine.request",
    "llava.engine.scheduler",
    "llava.engine.settings",
    "llava.entry_point",
    "llava.errors",
    "llava.eval.answer_health",
    "llava.eval.answer_kinds",
    "llava.eval.answer_matching",
    "llava.eval.benchmark_table",
    "llava.eval.calculate_mme",
    "llava.eval.comparison_page",
    "llava.eval.convert_answer_to_mme",
    "llava.eval.eval_gqa",
    "llava.eval.eval_pope",
    "llava.eval.eval_science_qa",
    "llava.eval.eval_science_qa_gpt4",
    "llava.eval.eval_science_qa_gpt4_requery",
    "llava.eval.eval_textvqa",
    "llava.eval.everyday_kinds",
    "llava.eval.json_files",
    "llava.eval.judge",
    "llava.eval.lmms_eval_model",
    "llava.eval.lmms_eval_run",
    "llava.eval.m4c_evaluator",
    "llava.eval.mm_vet_grades",
    "llava.eval.mmbench_upload",
    "llava.eval.mme_files",
    "llava.eval.pair_reviews",
    "llava.eval.parquet_shards",
    "llava.eval.photo_suite",
    "llava.eval.photo_truths",
    "llava.eval.proportion",
    "llava.eval.question_files",
    "llava.eval.report",
    "llava.eval.report.chosen_answers",
    "llava.eval.report.flips_page",
    "llava.eval.report.paired_test",
    "llava.eval.report.published_scores",
    "llava.eval.report.run_comparison",
    "llava.eval.report.run_conditions",
    "llava.eval.report.score_noise",
    "llava.eval.report.score_page",
    "llava.eval.report.score_plots",
    "llava.eval.report.shown_examples",
    "llava.eval.review_command",
    "llava.eval.review_summary",
    "llava.eval.reviews_file",
    "llava.eval.science_files",
    "llava.eval.science_votes",
    "llava.eval.score_file",
    "llava.eval.score_run",
    "llava.eval.scoring",
    "llava.eval.scoring.ai2d_letters",
    "llava.eval.scoring.anls",
    "llava.eval.scoring.answer_normalizer",
    "llava.eval.scoring.gqa_accuracy",
    "llava.eval.scoring.gqa_report",
    "llava.eval.scoring.judge_drift",
    "llava.eval.scoring.judged",
    "llava.eval.scoring.letter_rules",
    "llava.eval.scoring.math_vista_answers",
    "llava.eval.scoring.math_vista_judge",
    "llava.eval.scoring.mm_vet",
    "llava.eval.scoring.mme_pairs",
    "llava.eval.scoring.mmmu_parsers",
    "llava.eval.scoring.ocr_bench",
    "llava.eval.scoring.pope_counts",
    "llava.eval.scoring.q_bench_letters",
    "llava.eval.scoring.relaxed_accuracy",
    "llava.eval.scoring.science_qa",
    "llava.eval.scoring.seed_bench",
    "llava.eval.scoring.sentence_answers",
    "llava.eval.scoring.textvqa_join",
    "llava.eval.scoring.verdict",
    "llava.eval.scoring.vqa_accuracy",
    "llava.eval.scoring.yes_no",
    "llava.eval.seed_files",
    "llava.eval.seed_submission",
    "llava.eval.submission",
    "llava.eval.task",
    "llava.eval.task_score",
    "llava.eval.tasks",
    "llava.eval.tasks.diagrams",
    "llava.eval.tasks.documents",
    "llava.eval.tasks.gqa",
    "llava.eval.tasks.llava_bench",
    "llava.eval.tasks.math_vista",
    "llava.eval.tasks.math_vista_replies",
    "llava.eval.tasks.mmbench",
    "llava.eval.tasks.mme",
    "llava.eval.tasks.mmmu",
    "llava.eval.tasks.mmvet",
    "llava.eval.tasks.pope",
    "llava.eval.tasks.q_bench",
    "llava.eval.tasks.readings",
    "llava.eval.tasks.seed",
    "llava.eval.tasks.sqa",
    "llava.eval.tasks.textvqa",
    "llava.eval.tasks.vqav2_vizwiz",
    "llava.eval.text_baseline",
    "llava.eval.tsv_table",
    "llava.html_page",
    "llava.image.geometry",
    "llava.inspection",
    "llava.prompt",
    "llava.sampling",
    "llava.serve.cli",
    "llava.serve.controller",
    "llava.serve.gradio_web_server",
    "llava.serve.limits",
    "llava.serve.model_worker",
    "llava.serve.sglang_worker",
    "llava.serve.startup",
    "llava.towers",
    "llava.utils",
]
# What `llava serve` alone imports cannot do without its extra; that command says which.
WITH_AN_EXTRA = [name for name in MODULES if name.startswith("llava.serve.") and name not in WITHOUT_TORCH]
# Triton comes with torch's CUDA builds.
WITH_AN_EXTRA += [name for name in MODULES if re.fullmatch(r"llava\.engine\.gpu\.(\w+_kernels?|interpreter)", name)]
WITH_AN_EXTRA += [f"llava.backends.{name}" for name in ("managed_engine", "process", "remote", "sglang", "vllm")]


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_public_names_are_exactly_these() -> None:
    model_classes = ["LlavaLlamaForCausalLM", "LlavaMistralForCausalLM", "LlavaQwenForCausalLM"]
    assert llava.__all__ == [
        "Answer",
        "LlavaError",
        *model_classes,
        "Sampling",
        "__version__",
        "ask",
        "load_image",
        "load_model",
    ]
    assert {*llava._HOMES, "__version__"} == set(llava.__all__)


def test_every_public_name_resolves_and_is_listed() -> None:
    for name in llava.__all__:
        assert getattr(llava, name) is not None
        assert name in dir(llava)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = llava.nonsense  # type: ignore[attr-defined]


def test_a_light_module_loads_no_torch() -> None:
    # In one process: what none of them loads, no single one does. The first that does is named.
    code = (
        f"import importlib, sys\n"
        f"for name in {WITHOUT_TORCH!r}:\n"
        f"    importlib.import_module(name)\n"
        f"    loaded = [heavy for heavy in ('torch', 'transformers', 'fastapi') if heavy in sys.modules]\n"
        f"    if loaded: sys.exit(f'{{name}} loads {{loaded}}')\n"
        f"print('none')"
    )
    assert run_python(code).strip() == "none"


def test_the_help_text_loads_no_torch_nor_pillow() -> None:
    code = (
        "import sys\n"
        "from llava.cli import build_parser\n"
        "build_parser().format_help()\n"
        "print([m for m in ('torch', 'transformers', 'PIL', 'numpy', 'rich') if m in sys.modules])"
    )
    assert run_python(code).strip() == "[]"


def test_every_module_imports_with_the_core_dependencies_alone() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = text.split("[project.optional-dependencies]")[1].split("\n[")[0]
    extras = {name.replace("-", "_") for name in re.findall(r'"([A-Za-z0-9-]+)', block)}
    extras -= {"pydantic", "accelerate", "httpx2", "httpx", "fsspec"}
    extras |= {"datasets"}  # which Transformers imports where it is, and which needs pyarrow
    assert {"matplotlib", "fastapi", "gradio"} <= extras
    # None in sys.modules makes an import fail as if the package were not installed. pydantic comes with Transformers,
    # accelerate with PEFT, httpx, httpx2 and fsspec with the hub's client.
    code = (
        f"import importlib, sys\n"
        f"sys.modules.update(dict.fromkeys({sorted(extras)!r}))\n"
        f"for name in {sorted({*MODULES} - {*WITH_AN_EXTRA})!r}: importlib.import_module(name)\n"
        f"print('all')"
    )
    assert run_python(code).strip() == "all"


def test_importing_everything_prints_and_warns_nothing() -> None:
    code = f"import importlib\nfor name in {MODULES!r}: importlib.import_module(name)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=900)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
