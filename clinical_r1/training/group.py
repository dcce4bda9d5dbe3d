"""A training process among those of its group: which of them it is, waiting and handing things round, and how it ends
(readable failures, out-of-memory advice, stopping on SIGTERM).

Alone, where there is no process group: then nothing here waits or sends. `deepspeed.join_group` makes one.
"""

import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from clinical_r1.errors import UserError
from clinical_r1.training.launcher import USER_ERROR_EXIT_CODE, Stopped, report_outcome

if TYPE_CHECKING:
    import torch

OUT_OF_MEMORY_ADVICE = (
    "out of memory: lower micro_batch_size (accumulation makes up for it), set activation_checkpointing, a higher "
    "deepspeed.stage, deepspeed.offload_optimizer, or lora; the memory preflight shows which of them fits"
)


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


class StopRequest:
    """Turns SIGTERM into a question that the loop asks between steps, so that a checkpoint can be written first."""

    def __init__(self) -> None:
        self.asked = False
        """Whether this process was asked to stop; not collective, for leaving a long inner loop early."""
        signal.signal(signal.SIGTERM, self._handle)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True

    def anywhere(self) -> bool:
        """Whether any process of the group was asked to stop; collective, so all of them stop at the same step."""
        if world_size() == 1:
            return self.asked
        import torch

        device = torch.device("cuda" if _group().get_backend() == "nccl" else "cpu")
        return bool(summed(torch.tensor([int(self.asked)]), device).item())


@contextmanager
def trainee() -> Iterator[StopRequest]:
    """Run a training process; ends it with code 2 (a UserError was reported) or 75 (stopped with a checkpoint)."""
    stop = StopRequest()
    try:
        yield stop
    except UserError as error:
        report_outcome("user_error", str(error))
        print(f"UserError: {error}", file=sys.stderr, flush=True)
        raise SystemExit(USER_ERROR_EXIT_CODE) from None
    except Stopped:
        report_outcome("preempted")
        raise
    except (RuntimeError, MemoryError) as error:
        text, full = str(error).lower(), ("out of memory", "can't allocate memory")  # CUDA, allocator, host
        if not isinstance(error, MemoryError) and not any(words in text for words in full):
            raise
        traceback.print_exc()
        report_outcome("user_error", OUT_OF_MEMORY_ADVICE)
        raise SystemExit(USER_ERROR_EXIT_CODE) from None
    finally:
        # Peers wait for a time-out otherwise; not in the midst of an error, where they may be waiting elsewhere.
        if (group := _group()) and sys.exc_info()[0] is None:
            group.destroy_process_group()
