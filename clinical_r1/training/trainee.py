"""What every training process does around its work: readable failures, out-of-memory advice, stopping on SIGTERM."""

import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from clinical_r1.errors import UserError
from clinical_r1.training.group import any_of, leave
from clinical_r1.training.launcher import PREEMPTED_EXIT_CODE, USER_ERROR_EXIT_CODE, report_outcome

OUT_OF_MEMORY_ADVICE = (
    "out of memory: lower micro_batch_size (accumulation makes up for it), set activation_checkpointing, a higher "
    "deepspeed.stage, deepspeed.offload_optimizer, or lora; the memory preflight shows which of them fits"
)


class StopRequest:
    """Turns SIGTERM into a question that the loop asks between steps, so that a checkpoint can be written first."""

    def __init__(self) -> None:
        self._asked = False
        signal.signal(signal.SIGTERM, self._handle)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True

    @property
    def asked(self) -> bool:
        """Whether this process was asked to stop; not collective, for leaving a long inner loop early."""
        return self._asked

    def anywhere(self) -> bool:
        """Whether any process of the group was asked to stop; collective, so all of them stop at the same step."""
        return any_of(self._asked)


class Stopped(SystemExit):
    """Raised by a training loop that has written its checkpoint because it was asked to stop."""

    def __init__(self) -> None:
        super().__init__(PREEMPTED_EXIT_CODE)


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
        if not is_out_of_memory(error):
            raise
        traceback.print_exc()
        report_outcome("user_error", OUT_OF_MEMORY_ADVICE)
        raise SystemExit(USER_ERROR_EXIT_CODE) from None
    finally:
        leave()


def is_out_of_memory(error: BaseException) -> bool:
    """CUDA, host and allocator wordings of the same thing."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text
