"""Research code written for the originals: its imports, its own ``train()``, its subclasses of dataset and trainer."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from transformers import AutoTokenizer

from llava import conversation as templates
from llava.constants import IGNORE_INDEX
from llava.model import LlavaLlamaForCausalLM
from llava.model.checkpoint import load_model
from llava.train import train as door
from llava.train.dataset.image_slots import place_image
from llava.train.llava_trainer import LLaVATrainer
from tests.gold.training import command_lines, inputs

STAR: dict[str, Any] = {}
exec("from llava.train.train import *", STAR)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The inputs of the gold command lines."""
    folder = tmp_path_factory.mktemp("work")
    inputs.write_everything(folder)
    return folder


@pytest.fixture(autouse=True)
def _default_template(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "default_conversation", templates.conv_templates["v1"])


def test_a_star_import_gives_all_names_of_the_module() -> None:
    public = {name for name in vars(door) if not name.startswith("_")}
    assert STAR.keys() >= public
    assert {"ModelArguments", "preprocess_v1", "LazySupervisedDataset", "LLaVATrainer", "train"} <= public


def test_the_marker_of_videoinstruct_is_removed_as_by_llava_next() -> None:
    assert place_image("A cat.\nQA_GT_caption_based_noisy", "next") == "A cat.\n"
    assert place_image("QA_GT_caption_based_noisy", "1.5") == "QA_GT_caption_based_noisy"


# ---- A train() of its own


class Trainer(LLaVATrainer):
    """Overrides what forks override, with the signatures of their time."""

    def create_optimizer(self) -> torch.optim.Optimizer:  # type: ignore[override]
        if self.optimizer is None:
            trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]  # type: ignore[union-attr]
            self.optimizer = torch.optim.AdamW([{"params": trained}], lr=self.args.learning_rate)
        return self.optimizer  # type: ignore[no-any-return]

    def compute_loss(self, model: nn.Module, inputs: Any, return_outputs: bool = False) -> Any:  # type: ignore[override]
        outputs = model(**inputs)
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def training_step(self, model: nn.Module, inputs: Any) -> torch.Tensor:  # type: ignore[override]
        return super().training_step(model, inputs)

    def _get_train_sampler(self) -> Any:  # type: ignore[override]
        return super()._get_train_sampler()

    def _save_checkpoint(self, model: nn.Module, trial: Any, metrics: Any = None) -> None:
        super()._save_checkpoint(model, trial, metrics)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)


def train(flags: dict[str, str], work: Path, output: Path, kind: type[LLaVATrainer]) -> Any:
    """The body of the originals' ``train()``, as forks keep it."""
    parser: Any = transformers.HfArgumentParser((door.ModelArguments, door.DataArguments, door.TrainingArguments))  # type: ignore[arg-type]
    model_args, data_args, training_args = parser.parse_args_into_dataclasses(
        command_lines.arguments(flags, work, output)
    )
    model: Any = LlavaLlamaForCausalLM.from_pretrained(
        model_args.model_name_or_path,
        cache_dir=training_args.cache_dir,
        torch_dtype=(torch.bfloat16 if training_args.bf16 else None),
    )
    model.config.use_cache = False
    if training_args.gradient_checkpointing:
        model.enable_input_require_grads()
    if training_args.lora_enable:
        from peft import LoraConfig, get_peft_model

        targets = door.find_all_linear_names(model)
        model = get_peft_model(model, LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM"))
    tokenizer: Any = AutoTokenizer.from_pretrained(
        model_args.model_name_or_path,
        model_max_length=training_args.model_max_length,
        padding_side="right",
        use_fast=False,
    )
    tokenizer.pad_token = tokenizer.unk_token
    model.get_model().initialize_vision_modules(model_args=model_args, fsdp=training_args.fsdp)
    tower = model.get_vision_tower()
    tower.to(dtype=torch.float32, device=training_args.device)
    data_args.image_processor, data_args.is_multimodal = tower.image_processor, True
    model.config.image_aspect_ratio = data_args.image_aspect_ratio
    model.config.tokenizer_padding_side = tokenizer.padding_side
    model.config.tokenizer_model_max_length = tokenizer.model_max_length
    model.config.tune_mm_mlp_adapter = training_args.tune_mm_mlp_adapter = model_args.tune_mm_mlp_adapter
    if model_args.tune_mm_mlp_adapter:
        model.requires_grad_(False)
        model.get_model().mm_projector.requires_grad_(True)
    model.config.mm_use_im_start_end = data_args.mm_use_im_start_end = model_args.mm_use_im_start_end
    model.config.mm_use_im_patch_token = model_args.mm_use_im_patch_token
    model.initialize_vision_tokenizer(model_args, tokenizer=tokenizer)
    module = door.make_supervised_data_module(tokenizer=tokenizer, data_args=data_args)
    trainer = kind(model=model, tokenizer=tokenizer, args=training_args, **module)
    trainer.train()
    trainer.save_state()
    if training_args.lora_enable:
        state = door.get_peft_state_maybe_zero_3(model.named_parameters(), training_args.lora_bias)
        others = door.get_peft_state_non_lora_maybe_zero_3(model.named_parameters())
        model.config.save_pretrained(output)
        model.save_pretrained(output, state_dict=state)
        torch.save(others, output / "non_lora_trainables.bin")
    else:
        door.safe_save_model_for_hf_trainer(trainer=trainer, output_dir=training_args.output_dir)
    return trainer


@pytest.mark.parametrize(
    ("name", "kind"), [("stage 1", LLaVATrainer), ("stage 2", Trainer), ("lora", Trainer), ("task", LLaVATrainer)]
)
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")
def test_a_fork_with_its_own_train_trains_and_leaves_a_model(
    name: str, kind: type[LLaVATrainer], work: Path, tmp_path: Path
) -> None:
    flags = command_lines.RUNS[name] | {"max_steps": "2", "save_steps": "1", "disable_tqdm": "True"}
    trainer = train(flags, work, tmp_path, kind)
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert len(losses) == 2
    assert all(6 < loss < 9 for loss in losses)
    assert {parameter.dtype for parameter in trainer.model.parameters()} == {torch.float32}
    assert (tmp_path / "checkpoint-2/trainer_state.json").is_file()
    base = {"base": str(work / "llama")} if name in ("stage 1", "lora") else {}
    load_model(tmp_path, device="cpu", dtype="float32", **base)  # type: ignore[arg-type]


# ---- Datasets that read their rows themselves


class OwnRows(door.LazySupervisedDataset):
    """Sets the attributes, and calls no constructor."""

    def __init__(self, tokenizer: Any, data_path: str, data_args: Any) -> None:
        self.tokenizer, self.data_args = tokenizer, data_args
        self.list_data_dict = json.loads(Path(data_path).read_text())[:4]


class SkipsOurs(door.LazySupervisedDataset):
    """Calls the constructor of the class above, as the originals' own class does, and makes its items itself."""

    def __init__(self, tokenizer: Any, data_path: str, data_args: Any) -> None:
        super(door.LazySupervisedDataset, self).__init__()
        self.list_data_dict = [
            {"video": "a.mp4", "conversations": [{"from": "human", "value": "<video> and what"}]},
            {"conversations": [{"from": "human", "value": "a b"}, {"from": "gpt", "value": "c d"}]},
        ]
        self.tokenizer, self.data_args = tokenizer, data_args

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"index": index}


@pytest.fixture
def arguments(work: Path) -> dict[str, Any]:
    """What a dataset is made with."""
    tokenizer: Any = AutoTokenizer.from_pretrained(work / "llama", model_max_length=256)
    tokenizer.pad_token = tokenizer.unk_token
    data_args = SimpleNamespace(
        image_folder=str(work / "images"),
        image_aspect_ratio="pad",
        is_multimodal=True,
        mm_use_im_start_end=False,
        image_processor=load_model(work / "llava", device="cpu").image_processor,
    )
    return {"tokenizer": tokenizer, "data_path": str(work / "mix.json"), "data_args": data_args}


def test_a_dataset_that_calls_no_constructor_makes_its_items(arguments: dict[str, Any]) -> None:
    data, ours = OwnRows(**arguments), door.LazySupervisedDataset(**arguments)
    assert len(data) == 4
    assert (data.lengths, data.modality_lengths) == (ours.lengths[:4], ours.modality_lengths[:4])
    assert torch.equal(data[0]["input_ids"], ours[0]["input_ids"])
    assert bool((data[0]["labels"] != IGNORE_INDEX).any())
    with pytest.raises(AttributeError, match="OwnRows has no attribute 'nothing'"):
        data.nothing  # noqa: B018


def test_a_dataset_with_rows_of_another_kind_has_their_lengths(arguments: dict[str, Any]) -> None:
    data = SkipsOurs(**arguments)
    assert (len(data), data.lengths, data.modality_lengths) == (2, [131, 4], [3, -4])
    assert data[1] == {"index": 1}


def test_a_subclass_can_process_an_image_by_itself(arguments: dict[str, Any]) -> None:
    data = door.LazySupervisedDataset(**arguments)
    row = next(i for i, row in enumerate(data.list_data_dict) if "image" in row)
    pixels, size, kind = data.process_image(data.list_data_dict[row]["image"])
    assert torch.equal(pixels, data[row]["image"])
    assert (len(size), kind) == (2, "image")
    squashed, _, _ = data.process_image("wide.png", "square")
    assert not torch.equal(squashed, data.process_image("wide.png")[0])
