"""Reason codes: why a case was refused, in one word that two people can compare.

A `Status` says what happened to a case; a reason says what gave it away. `docs/integrity.md` lists for each
reason the exploit classes that get it.
"""

from __future__ import annotations

from enum import Enum


class Reason(str, Enum):
    """`E_` refuses a case; `W_` is a signal that a reader should look at."""

    # Loading and running
    IMPORT = "E_IMPORT"
    NO_ENTRY = "E_NO_ENTRY"
    RAISED = "E_RAISED"
    FAULT = "E_FAULT"
    HAZARD = "E_HAZARD"
    OUT_OF_MEMORY = "E_OUT_OF_MEMORY"
    DEVICE_ERROR = "E_DEVICE_ERROR"
    EXIT = "E_EXIT"
    TIMEOUT = "E_TIMEOUT"
    CRASH = "E_CRASH"
    PROTOCOL = "E_PROTOCOL"
    # What came back
    COUNT = "E_COUNT"
    TYPE = "E_TYPE"
    LAYOUT = "E_LAYOUT"
    ALIAS = "E_ALIAS"
    NOT_WRITTEN = "E_NOT_WRITTEN"
    NONFINITE = "E_NONFINITE"
    WRONG_RESULT = "E_WRONG_RESULT"
    INPUT_CHANGED = "E_INPUT_CHANGED"
    # How it came about
    STALE_OUTPUT = "E_STALE_OUTPUT"
    COMPUTED_AHEAD = "E_COMPUTED_AHEAD"
    DEFERRED = "E_DEFERRED"
    NONDETERMINISTIC = "E_NONDETERMINISTIC"
    SIDE_QUEUE = "E_SIDE_QUEUE"
    THREAD = "E_THREAD"
    SURVIVOR = "E_SURVIVOR"
    PATCHED = "E_PATCHED"
    # Time
    CLOCK = "E_CLOCK"
    IMPOSSIBLE_TIME = "E_IMPOSSIBLE_TIME"
    L2_PERSISTING = "E_L2_PERSISTING"
    # The judge's own
    NOT_RUN = "E_NOT_RUN"
    JUDGE = "E_JUDGE"
    # Signals, never a refusal
    GAP = "W_GAP"
    FRESH_GAP = "W_FRESH_GAP"
    LAUNCH_BOUND = "W_LAUNCH_BOUND"
    CLOCKS = "W_CLOCKS"
    DRIFT = "W_DRIFT"
    TEXT = "W_TEXT"

    def __str__(self) -> str:
        return self.value


MEANING: dict[Reason, str] = {
    Reason.IMPORT: "importing the submission raised",
    Reason.NO_ENTRY: "there is no callable custom_kernel",
    Reason.RAISED: "custom_kernel raised",
    Reason.FAULT: "the simulated GPU stopped the kernel",
    Reason.HAZARD: "the sanitizer found a race, a hazard or a hang",
    Reason.OUT_OF_MEMORY: "custom_kernel asked for more memory than there is or than it may have",
    Reason.DEVICE_ERROR: "a kernel failed on the GPU and left it unusable for this process",
    Reason.EXIT: "the submission ended its own process",
    Reason.TIMEOUT: "no answer within the limit",
    Reason.CRASH: "the process died of a signal",
    Reason.PROTOCOL: "the submission spoke, or forged, the worker's messages",
    Reason.COUNT: "not one tensor per group came back",
    Reason.TYPE: "something other than plain torch.Tensors came back",
    Reason.LAYOUT: "dtype, shape, strides or device of an output differ from c's",
    Reason.ALIAS: "an output shares memory with an input or another output",
    Reason.NOT_WRITTEN: "elements still hold the poison that was there before the call",
    Reason.NONFINITE: "NaN or infinity where a finite number is right",
    Reason.WRONG_RESULT: "elements are wrong",
    Reason.INPUT_CHANGED: "an input differs after the call",
    Reason.STALE_OUTPUT: "the result of an earlier call came back, for inputs that have changed since",
    Reason.COMPUTED_AHEAD: "the result belongs to what an input held before its own call began",
    Reason.DEFERRED: "the result was not there when custom_kernel returned, or changed afterwards",
    Reason.NONDETERMINISTIC: "equal inputs at other addresses gave other bytes",
    Reason.SIDE_QUEUE: "work on another queue went on after the current one had finished",
    Reason.THREAD: "a thread of the submission was still running after custom_kernel returned",
    Reason.SURVIVOR: "a process that the submission started was alive after custom_kernel returned",
    Reason.PATCHED: "the submission replaced functions of torch, Python or the worker",
    Reason.CLOCK: "the device's clock claims less time than the judge saw pass",
    Reason.IMPOSSIBLE_TIME: "faster than this GPU can move the case's bytes or do its arithmetic",
    Reason.L2_PERSISTING: "the submission reserved part of the L2 cache to survive flushes",
    Reason.NOT_RUN: "the run ended before this case",
    Reason.JUDGE: "a defect of the evaluator itself",
    Reason.GAP: "the official time is far below the time of single cold calls",
    Reason.FRESH_GAP: "inputs never seen before take longer than those that were",
    Reason.LAUNCH_BOUND: "the host takes about as long to launch as the GPU to compute",
    Reason.CLOCKS: "the GPU's clock was not steady, or throttled",
    Reason.DRIFT: "the first and the last third of the samples differ",
    Reason.TEXT: "words in the source that a reader should look at",
}
