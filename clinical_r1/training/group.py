"""The processes of one training: which of them this is, waiting for one another, and handing things round.

Alone, where there is no process group: then nothing here waits or sends. `deepspeed.init_process_group` makes one.
"""

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def _group() -> Any:
    """torch.distributed where this process is in a group; else None. Who has not imported it is in none."""
    dist = sys.modules.get("torch.distributed")
    return dist if dist and dist.is_available() and dist.is_initialized() else None


def rank() -> int:
    """This process's number; 0 outside of a process group."""
    group = _group()
    return group.get_rank() if group else 0


def world_size() -> int:
    """Processes of the group; 1 outside of one."""
    group = _group()
    return group.get_world_size() if group else 1


def barrier() -> None:
    """Wait for all of them."""
    if group := _group():
        group.barrier()


def local_device() -> "torch.device":
    """The GPU of this process, or the CPU."""
    import torch

    if not torch.cuda.is_available():
        return torch.device("cpu")
    index = int(os.environ.get("LOCAL_RANK", "0"))
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def summed(numbers: "torch.Tensor", device: "torch.device") -> "torch.Tensor":
    """The sum of every process's numbers, on all of them; collective."""
    if world_size() == 1:
        return numbers
    total = numbers.to(device)
    _group().all_reduce(total)
    return total.cpu()


def any_of(answer: bool) -> bool:
    """Whether any process says yes, so that all of them do the same; collective."""
    if world_size() == 1:
        return answer
    import torch

    device = "cuda" if _group().get_backend() == "nccl" else "cpu"
    return bool(summed(torch.tensor([int(answer)]), torch.device(device)).item())


def gather(mine: list[Any]) -> list[list[Any]]:
    """Every process's list, by rank; collective."""
    if world_size() == 1:
        return [mine]
    everyone: list[Any] = [None] * world_size()
    _group().all_gather_object(everyone, mine)
    return everyone


def interleave(parts: list[list[Any]]) -> list[Any]:
    """Undo `items[rank::world_size]`."""
    whole: list[Any] = [None] * sum(map(len, parts))
    for index, part in enumerate(parts):
        whole[index :: len(parts)] = part
    return whole


def leave() -> None:
    """Say goodbye, or peers wait for a time-out; not in the midst of an error, where they may be waiting elsewhere."""
    group = _group()
    if group and sys.exc_info()[0] is None:
        group.destroy_process_group()
