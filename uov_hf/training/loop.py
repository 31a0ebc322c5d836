"""The training loop that the scripts share; what differs between them is their `Objective`."""

import json
import math
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from threading import Event
from typing import Generic, NoReturn

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.utils import send_to_device
from torch.nn.utils import get_total_norm
from torch.utils.data import DataLoader
from tqdm import tqdm

from uov_hf.data.shard_file import write_atomically
from uov_hf.training.arguments import TrainingArguments
from uov_hf.training.checkpoints import only_run_in
from uov_hf.training.collation import BatchT
from uov_hf.training.interruption import RESUME_STATUS, sigterm_noted
from uov_hf.training.loaders import make_loader
from uov_hf.training.objectives import Objective
from uov_hf.training.run import Run
from uov_hf.training.several_datasets import JoinedSamples
from uov_hf.training.tracking import LOG_FILE, LogRecord, TrainLog


logger = get_logger(__name__)

DIVERGED_FILE = "diverged.json"
MAX_SHOWN = 8  # frame ids in a message


def train(
    run: Run,
    args: TrainingArguments,
    objective: Objective[BatchT],
    samples: JoinedSamples[BatchT],
    validation: JoinedSamples[BatchT] | None = None,
) -> None:
    """Train to the last step: load a step, train on it, log it; validate and save where that is due.

    Args:
        run (`Run`): What is trained, and how far it is.
        args (`TrainingArguments`): The script's.
        objective (`Objective`): What it is trained for.
        samples (`JoinedSamples`): What it is trained on.
        validation (`JoinedSamples`, *optional*): What `validation_loss` is computed on.

    Raises:
        RuntimeError: Another run works in the folder, or training has diverged.
        SystemExit: SIGTERM came to one of the processes. The steps so far were saved, and the status is
            `RESUME_STATUS`.
    """
    with only_run_in(run.output_dir, run.accelerator.is_main_process), sigterm_noted() as interruption:
        _train(run, args, objective, samples, validation, interruption)


def _train(
    run: Run,
    args: TrainingArguments,
    objective: Objective[BatchT],
    samples: JoinedSamples[BatchT],
    validation: JoinedSamples[BatchT] | None,
    interruption: Event,
) -> None:
    accelerator = run.accelerator
    run.resume(args.resume_from_checkpoint)
    log = TrainLog(run.output_dir / LOG_FILE, run.step) if accelerator.is_main_process else None
    loader = run.make_loader(samples, objective.collate, args.dataloader_num_workers, args.on_error)
    batches: Iterator[BatchT] = iter(loader)
    validation_batches = None
    if validation is not None:
        validation_batches = make_validation_loader(run, objective, validation, args.dataloader_num_workers)
    set_train_mode(run.model, args.freeze_batch_norm)
    bar = tqdm(total=run.num_steps, initial=run.step, unit="step", disable=not accelerator.is_main_process)
    while run.step < run.num_steps:
        started = time.perf_counter()
        step_batch = load_step(accelerator, batches, run.order.accumulation, objective, interruption.is_set())
        # The signal may have ended a worker of the loader, too: then loading failed.
        if step_batch.is_interrupted or (step_batch.error is not None and interruption.is_set()):
            end_interrupted(run)
        if step_batch.error is not None:
            run.save()  # a frame that cannot be read costs none of the work so far
            raise step_batch.error
        run.check_step(step_batch.supervision, objective)
        try:
            record = train_step(run, objective, step_batch)
        except DivergedError as error:
            if accelerator.is_main_process:
                write_divergence(run, error, samples)
            raise
        record["seconds"] = time.perf_counter() - started
        if validation_batches is not None and run.is_due(args.eval_steps):
            if (loss := validate(run, objective, validation_batches)) is not None:
                record["validation_loss"] = loss
            set_train_mode(run.model, args.freeze_batch_norm)
        accelerator.log(record, step=run.step)
        if log is not None:
            log.write(record)
        if run.is_due(args.checkpointing_steps):
            run.save()
        bar.set_postfix(loss=f"{record['loss']:.3f}")
        bar.update()
    bar.close()


def end_interrupted(run: Run) -> NoReturn:
    """Save a run that SIGTERM interrupts, and end this process; all ranks call this."""
    run.save()
    saved = "which is saved" if run.step else "and there is nothing to save"
    logger.warning(
        f"SIGTERM: the run ends with status {RESUME_STATUS} after step {run.step} of {run.num_steps}, {saved}. "
        "Continue it by the same command with --resume_from_checkpoint latest."
    )
    raise SystemExit(RESUME_STATUS)


class DivergedError(RuntimeError):
    """The loss of a step or the norm of its gradients is not finite; `record` is the step's line of the log."""

    def __init__(self, message: str, record: LogRecord):
        super().__init__(message)
        self.record = record


def write_divergence(run: Run, error: DivergedError, samples: JoinedSamples[BatchT]) -> None:
    """Write `diverged.json`: the record of the step that diverged, and the ids of its frames, those of all ranks."""
    frame_ids = [samples.frame_id(index) for _, index in run.order.step_keys(run.step)]
    path = run.output_dir / DIVERGED_FILE
    numbers = {name: value if math.isfinite(value) else str(value) for name, value in error.record.items()}
    write_atomically(path, (json.dumps({**numbers, "frame_ids": frame_ids}, indent=2) + "\n").encode())
    shown = ", ".join(frame_ids[:MAX_SHOWN]) + (", …" if len(frame_ids) > MAX_SHOWN else "")
    logger.error(f"The frames of the step that diverged: {shown}. {path} has all of them.")


@dataclass(frozen=True)
class StepBatch(Generic[BatchT]):
    """This rank's micro-batches of one optimiser step, and the size of the whole step over all ranks."""

    micro_batches: list[BatchT]  # on the CPU
    # Share of each in the step: their means, so weighted, add up to the mean of the step over all ranks.
    weights: list[float]
    count: float  # number of things that this mean is over
    supervision: float  # the same number before `Objective.complete_batch`: what the data has to train on
    num_points: int
    num_broken: int  # frames that could not be read
    is_interrupted: bool  # SIGTERM came to one of the ranks: none trains on this step
    # Why loading failed here or, where it failed on another rank only, a `RuntimeError`: no rank trains on this step.
    error: Exception | None


def load_step(
    accelerator: Accelerator,
    batches: Iterator[BatchT],
    accumulation: int,
    objective: Objective[BatchT],
    is_interrupted: bool = False,
) -> StepBatch[BatchT]:
    """Load this rank's part of the next optimiser step, `accumulation` of its batches; all ranks call this together.

    `is_interrupted` is whether SIGTERM came to this rank.

    What loading raises is returned as `error`, so that every rank stops at the same step and none waits for the
    others. An error that is raised is one between the ranks, as after the crash of one: they cannot save together.
    """
    error: Exception | None = None
    loaded, micro_batches = [], []
    try:
        loaded = micro_batches = [next(batches) for _ in range(accumulation)]
        if objective.complete_batch is not None:
            micro_batches = [objective.complete_batch(batch) for batch in loaded]
    except Exception as caught:  # the other ranks must count it
        error = caught
    counts = [objective.count(batch) for batch in micro_batches]
    supervision = sum(counts if micro_batches is loaded else map(objective.count, loaded))
    points = [int(batch["num_points"].sum()) for batch in micro_batches]
    replaced = [batch["broken_frames"] for batch in micro_batches if "broken_frames" in batch]
    broken = [message for messages in replaced for message in messages]
    for message in broken:
        logger.warning(f"Skipped a broken frame: {message}", main_process_only=False)
    # A single process has nothing to sum: its numbers stay on the CPU, and nothing waits for the device.
    device = accelerator.device if accelerator.num_processes > 1 else "cpu"
    sums = [sum(counts), supervision, sum(points), len(broken), int(error is not None), int(is_interrupted)]
    own = torch.tensor(sums, dtype=torch.float64, device=device)
    total, supervision, num_points, num_broken, num_failed, num_interrupted = accelerator.reduce(own, "sum").tolist()
    if num_failed and error is None:
        error = RuntimeError("Loading data failed on another process; its message names the frame.")
    weights = [own / total if total else 0.0 for own in counts]
    numbers = (total, supervision, int(num_points), int(num_broken))
    return StepBatch(micro_batches, weights, *numbers, is_interrupted=num_interrupted > 0, error=error)


def train_step(run: Run, objective: Objective[BatchT], step_batch: StepBatch[BatchT]) -> LogRecord:
    """One optimiser step on the micro-batches of all ranks.

    Returns:
        The step's line of the log.

    Raises:
        DivergedError: The loss or the norm of the gradients is not finite.
    """
    accelerator, micro_batches = run.accelerator, step_batch.micro_batches
    if objective.complete_step is not None:
        objective.complete_step(accelerator, micro_batches)
    sums = torch.zeros(len(objective.terms) + 2, device=accelerator.device)
    for batch, weight in zip(micro_batches, step_batch.weights, strict=True):
        with nullcontext() if batch is micro_batches[-1] else accelerator.no_sync(run.model):
            outputs = run.model(**model_inputs(batch, accelerator.device))
            # The weights sum to one over all ranks, and gradients are averaged over them.
            accelerator.backward(outputs.loss * (weight * accelerator.num_processes))
        sums[:-1] += weight * torch.stack([outputs.loss.detach(), *(outputs[name] for name in objective.terms)])
    sums[-1] = get_total_norm([weight.grad for weight in run.model.parameters() if weight.grad is not None])
    loss, *terms, norm = accelerator.reduce(sums, "sum").tolist()  # the one time in a step that the host waits
    learning_rate = float(run.scheduler.get_last_lr()[0])
    record: LogRecord = {
        "step": run.step + 1,
        "epoch": run.order.epoch(run.step),
        "loss": loss,
        **dict(zip(objective.terms, terms, strict=True)),
        "learning_rate": learning_rate,
        objective.counted: step_batch.count,
        "num_points": step_batch.num_points,
    }
    # With a gradient scaler, an overflow of the gradients is normal: it skips the step.
    if not math.isfinite(loss) or (accelerator.scaler is None and not math.isfinite(norm)):
        norm /= accelerator.num_processes
        raise DivergedError(
            f"The loss is {loss} and the norm of its gradients {norm} at step {run.step + 1}: training has diverged. "
            f"{run.output_dir / DIVERGED_FILE} has the frames of this step. Start again with a lower --learning_rate "
            f"(it is at {learning_rate:g}) or with --warmup_steps, in another --output_dir.",
            record | {"gradient_norm": norm},
        )
    if objective.complete_batch is not None:
        record["num_added"] = step_batch.count - step_batch.supervision
    was_taken = run.advance(step_batch.num_points, step_batch.num_broken)
    if not was_taken:
        record["skipped_in_a_row"] = run.skipped_in_a_row
    elif objective.after_step is not None:
        objective.after_step()
    return record


def make_validation_loader(
    run: Run, objective: Objective[BatchT], validation: JoinedSamples[BatchT], num_workers: int
) -> DataLoader[BatchT]:
    """This rank's share of the samples, one at a time."""
    accelerator = run.accelerator
    share = range(accelerator.process_index, len(validation), accelerator.num_processes)
    keys = [[(0, index)] for index in share]
    return make_loader(validation, keys, objective.collate, num_workers, accelerator.device)


@torch.no_grad()
def validate(run: Run, objective: Objective[BatchT], batches: Iterable[BatchT]) -> float | None:
    """The loss on samples that are not trained on; the model is left in evaluation mode.

    Without anything that the loss is a mean over there is no loss: it is None, with a warning.
    """
    accelerator, model = run.accelerator, run.accelerator.unwrap_model(run.model)
    model.eval()
    sums = torch.zeros(2, device=accelerator.device)
    for batch in batches:
        count = objective.count(batch)
        sums[0] += model(**model_inputs(batch, accelerator.device)).loss * count
        sums[1] += count
    loss_sum, total = accelerator.reduce(sums, "sum").tolist()
    if not total:
        logger.warning(f"No validation loss: {objective.counted} is 0 in --validation_split. {objective.if_none}")
        return None
    return loss_sum / total


def model_inputs(batch: BatchT, device: torch.device) -> dict[str, torch.Tensor]:
    """The tensors of a batch on the device; from pinned memory they are copied in the background."""
    tensors = {name: value for name, value in batch.items() if name != "broken_frames"}
    return send_to_device(tensors, device, non_blocking=True)


def set_train_mode(model: torch.nn.Module, batch_norm_is_frozen: bool) -> None:
    """Training mode; frozen BatchNorm uses its running statistics and leaves them as they are."""
    model.train()
    if batch_norm_is_frozen:
        for module in model.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.eval()
