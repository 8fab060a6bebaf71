"""Training by several processes, one per device: DDP, or FSDP2, which shards weights, gradients and optimizer.

torchrun starts the processes, and Transformers and accelerate join them. Here is what they leave open: which device a
process takes, which modules FSDP2 shards, one set of files that does not depend on the number of processes, and
agreement about what only one process knows.

Nothing here touches a GPU when it is imported, and a run of one process passes through unchanged.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import distributed
from torch.distributed.tensor import DTensor, distribute_tensor

from llava.errors import UsageError
from llava.train.recipe import TuningStage

# What ``--fsdp`` may say in Transformers, and what FSDP2 does of it: whether weights are freed after the forward pass.
_KINDS = {"full_shard": True, "shard_grad_op": False}
_ALWAYS = ("auto_wrap", "offload")


def count_processes() -> int:
    """The processes of this training, as torchrun says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def read_rank() -> int:
    """The number of this process, from 0 on; the first one writes files."""
    return int(os.environ.get("RANK", "0"))


def claim_device() -> None:
    """Makes the GPU with the number LOCAL_RANK, of those that CUDA_VISIBLE_DEVICES shows, this process's own.

    Without it, whatever asks CUDA a question first would occupy memory of GPU 0 in every process.

    Raises:
        UsageError: there are fewer GPUs than processes on this machine.
    """
    if not torch.cuda.is_available() or "LOCAL_RANK" not in os.environ:
        return
    local, num_gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if local >= num_gpus:
        shown = os.environ.get("CUDA_VISIBLE_DEVICES")
        shows = "this machine has" if shown is None else f"CUDA_VISIBLE_DEVICES={shown} shows"
        raise UsageError(
            f"This machine runs {local + 1} processes or more, but {shows} {num_gpus} GPUs: start one process per GPU, "
            f"torchrun --nproc_per_node {num_gpus}."
        )
    torch.cuda.set_device(local)


def wait_for_all() -> None:
    """Returns when every process has arrived here."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()


def leave_group() -> None:
    """Ends the communication between the processes; nothing can be trained after it."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def any_says(flag: bool, device: torch.device) -> bool:
    """Whether the flag is true in any process; each has to ask at the same time."""
    if count_processes() == 1 or not distributed.is_initialized():
        return flag
    flags = torch.tensor([int(flag)], device=device)
    distributed.all_reduce(flags, distributed.ReduceOp.MAX)
    return bool(flags)


def share_text(text: str) -> str:
    """The text of the first process; each has to ask at the same time."""
    if count_processes() == 1 or not distributed.is_initialized():
        return text
    texts = [text]
    distributed.broadcast_object_list(texts, src=0)
    return texts[0]


def share_objects(own: Any) -> list[Any]:
    """What each process has, in their order; each has to ask at the same time. Values are pickled among processes."""
    if count_processes() == 1:
        return [own]
    assert distributed.is_initialized(), "make the arguments of the training first"
    shared: list[Any] = [None] * count_processes()
    distributed.all_gather_object(shared, own)
    return shared


# FSDP2.


def check_sharding(stage: TuningStage) -> None:
    """Raises UsageError for settings that cannot be combined with ``sharding: fsdp``."""
    if stage.sharding != "fsdp":
        return
    where = f"Stage '{stage.name}' has sharding: fsdp, which cannot be combined with"
    if stage.deepspeed:
        raise UsageError(f"{where} deepspeed: both shard the model. Leave one of them out.")
    if stage.quantization is not None:
        raise UsageError(
            f"{where} quantization: weights in {stage.quantization.bits} bits cannot be sharded. Leave sharding out; "
            "each device then holds the quantized model."
        )
    if stage.optimizer == "muon":
        raise UsageError(f"{where} optimizer: muon, which needs whole matrices. Choose adamw, or leave sharding out.")
    if stage.cache_features:
        raise UsageError(
            f"{where} cache_features: a process whose features are cached would skip the tower that all gather "
            "together, and the run would hang. Leave one of them out."
        )


def translate_fsdp(kinds: Any, given: Mapping[str, Any] | None, where: str) -> dict[str, Any]:
    """Transformers' arguments for FSDP2.

    Args:
        kinds: what ``--fsdp`` said, such as "full_shard auto_wrap"; True or None is the default, full_shard.
        given: further settings by the names of Transformers' ``fsdp_config``, which take precedence.

    Raises:
        UsageError: a kind is unknown, or does not exist in FSDP2.
    """
    words = (
        kinds.split() if isinstance(kinds, str) else [str(kind) for kind in kinds] if isinstance(kinds, list) else []
    )
    settings: dict[str, Any] = {
        "version": 2,
        "reshard_after_forward": True,
        "state_dict_type": "FULL_STATE_DICT",
        "cpu_ram_efficient_loading": True,
    }
    for word in words:
        if word in _KINDS:
            settings["reshard_after_forward"] = _KINDS[word]
        elif word == "offload":
            settings["cpu_offload"] = True
        elif word not in _ALWAYS and word.lower() != "true":
            raise UsageError(f"{where}: fsdp cannot be '{word}'; it can be {', '.join((*_KINDS, *_ALWAYS))}.")
    own = {name.removeprefix("fsdp_"): value for name, value in (given or {}).items()}
    return {"fsdp": True, "fsdp_config": {**settings, **own, "version": 2, "state_dict_type": "FULL_STATE_DICT"}}


def receives_weights(arguments: Any) -> bool:
    """Whether this process gets its share of the weights from the first one, and reads no file of them itself."""
    settings = getattr(arguments, "fsdp_plugin_args", None) or {}
    return read_rank() != 0 and settings.get("fsdp_version") == 2 and bool(settings.get("cpu_ram_efficient_loading"))


def choose_loading_device(arguments: Any) -> torch.device | None:
    """The GPU that weights go to one by one while they are loaded; None where something else places or shards them."""
    is_sharded = bool(getattr(arguments, "fsdp_plugin_args", None) or arguments.deepspeed)
    return arguments.device if arguments.device.type == "cuda" and not is_sharded else None


def fit_fsdp(arguments: Any, model: Any) -> None:
    """Completes the arguments of FSDP2 for this model; does nothing without FSDP2.

    Each block of the decoder and of the tower becomes a unit that is gathered when it runs; accelerate adds embeddings
    and head, and what remains, projector and newline vector, is one more. In 16 bits, weights and gradients stay in
    float32 and are cast for the computation; gradients are also summed in float32.
    """
    settings = getattr(arguments, "fsdp_plugin_args", None)
    if not settings:
        os.environ.pop("ACCELERATE_USE_FSDP", None)  # accelerate sets it for good, also for stages without FSDP2
    if not settings or settings.get("fsdp_version") != 2:
        return
    from torch.distributed.fsdp import MixedPrecisionPolicy

    llava = model.get_base_model() if hasattr(model, "get_base_model") else model
    units = set(getattr(llava, "_no_split_modules", None) or ())
    found = sorted({type(module).__name__ for module in model.modules()} & units)
    if found and not settings.get("transformer_cls_names_to_wrap"):
        settings["transformer_cls_names_to_wrap"] = ",".join(found)
    low = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(arguments.mixed_precision)
    if low is not None:
        settings["mixed_precision_policy"] = MixedPrecisionPolicy(param_dtype=low, reduce_dtype=torch.float32)


def shard_on_cpu(accelerator: Any, arguments: Any) -> bool:
    """Makes accelerate use FSDP2 on CPUs, where it would replicate the model without a word; whether it had to."""
    settings = getattr(arguments, "fsdp_plugin_args", None)
    if not settings or accelerator.distributed_type != DistributedType.MULTI_CPU:
        return False
    accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(**settings)
    accelerator.state.distributed_type = DistributedType.FSDP
    return True


def gather(tensor: torch.Tensor) -> torch.Tensor:
    """The whole of a tensor that may be sharded, on the CPU if it is. Each process has to call it at the same time."""
    if not isinstance(tensor, DTensor):
        return tensor
    with torch.no_grad():
        return tensor.full_tensor().cpu()


def gather_state(model: Any, names: Collection[str] | None = None) -> dict[str, torch.Tensor]:
    """The state dict of a model that may be sharded, whole in the first process and incomplete in the others.

    Args:
        names: the tensors that are wanted; by default all.
    """
    state = {}
    for name, tensor in model.state_dict().items():
        if names is None or name in names:
            whole = gather(tensor)
            if whole is tensor or read_rank() == 0:
                state[name] = whole
    return state


def write_optimizer(optimizer: Any, scheduler: Any, folder: Path) -> None:
    """Writes a sharded optimizer and its schedule as one process would, so that any number of processes can resume."""
    state = _gather_optimizer(optimizer)
    if read_rank() == 0:
        torch.save(state, folder / "optimizer.pt")
        torch.save(scheduler.state_dict(), folder / "scheduler.pt")


def read_optimizer(optimizer: Any, scheduler: Any, folder: Path) -> None:
    """Reads what ``write_optimizer``, or a run without sharding, wrote."""
    state = torch.load(folder / "optimizer.pt", map_location="cpu", weights_only=True, mmap=True)
    optimizer.load_state_dict(_shard_optimizer(optimizer, state))
    scheduler.load_state_dict(torch.load(folder / "scheduler.pt", weights_only=True))


def _gather_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimizer's state dict as one process would have it; the others than the first get it without tensors."""
    state = optimizer.state_dict()
    whole = {}
    for index, values in state["state"].items():
        gathered = {name: gather(value) if torch.is_tensor(value) else value for name, value in values.items()}
        whole[index] = gathered if read_rank() == 0 else {}
    return {**state, "state": whole}


def _shard_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """A state dict from ``_gather_optimizer`` as this process loads it into an optimizer of sharded parameters."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    shared = {}
    for index, values in state["state"].items():
        target = parameters[index]
        shared[index] = {
            name: shard(value, target) if torch.is_tensor(value) and value.shape == target.shape else value
            for name, value in values.items()
        }
    return {**state, "state": shared}


def shard(tensor: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """This process's share of a whole tensor, where ``target`` is sharded; without communication."""
    if not isinstance(target, DTensor):
        return tensor
    whole = tensor.to(target.device)
    return distribute_tensor(whole, target.device_mesh, target.placements, src_data_rank=None)
