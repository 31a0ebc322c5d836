"""The training loop that the scripts share; what one of them trains for is its `Objective`."""

import math
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch.nn.utils import get_total_norm
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from uov_hf.training.loaders import make_loader, to_device
from uov_hf.training.run import Run
from uov_hf.training.steps import StepBatch, freeze_batch_norm, load_step
from uov_hf.training.tracking import LOG_FILE, TrainLog


@dataclass(frozen=True)
class Objective:
    """What sets one training apart from another; the loss itself is the model's.

    Args:
        collate (`Callable`): A list of samples to the batch that the model's `forward` takes.
        count (`Callable`): A batch to what its loss is a mean over, in number. Micro-batches weigh by it, so that the
            loss of a step is the mean over the whole step, however it is cut into micro-batches and ranks.
        counted (`str`): What it counts, as the log names it.
        terms (`tuple[str, ...]`): The model's outputs that are logged beside its loss.
        complete_batch (`Callable`, *optional*): A micro-batch to the one that is trained on instead, before it is
            counted.
        complete_step (`Callable`, *optional*): Called with the accelerator and this rank's micro-batches of a step,
            to add to them what they need of each other.
        after_step (`Callable`, *optional*): Called without arguments when the optimiser has taken a step;
            not when it skipped one.
    """

    collate: Callable[[list[dict]], dict]
    count: Callable[[dict], float]
    counted: str
    terms: tuple[str, ...]
    complete_batch: Callable[[dict], dict] | None = None
    complete_step: Callable[[Accelerator, list[dict]], None] | None = None
    after_step: Callable[[], None] | None = None


def train(run: Run, args: Any, objective: Objective, samples: Dataset, validation: Dataset | None = None) -> None:
    """Load a step, train on it, write down how it went; validate and save where it is time.

    Args:
        run (`Run`): What is trained, and how far it is.
        args (`argparse.Namespace`): The script's, with the shared training and tracking arguments.
        objective (`Objective`): What it is trained for.
        samples (`Dataset`): By keys `(epoch, index)`.
        validation (`Dataset`, *optional*): Samples that are not trained on, for `validation_loss`.
    """
    accelerator = run.accelerator
    run.resume(args.resume_from_checkpoint)
    log = TrainLog(run.output_dir / LOG_FILE, run.step) if accelerator.is_main_process else None
    collate = partial(collate_with_broken, objective.collate)
    batches = iter(run.make_loader(samples, collate, args.dataloader_num_workers, args.on_error))
    if objective.complete_batch is not None:
        batches = map(objective.complete_batch, batches)
    validation_batches = None
    if validation is not None:
        validation_batches = make_validation_loader(run, objective, validation, args.dataloader_num_workers)
    set_train_mode(run.model, args.freeze_batch_norm)
    bar = tqdm(total=run.num_steps, initial=run.step, unit="step", disable=not accelerator.is_main_process)
    while run.step < run.num_steps:
        started = time.perf_counter()
        try:
            step_batch = load_step(accelerator, batches, run.order.accumulation, objective.count)
        except Exception:
            run.save()  # a frame that cannot be read costs none of the work so far
            raise
        record = train_step(run, objective, step_batch)
        record["seconds"] = time.perf_counter() - started
        if validation_batches is not None and run.is_due(args.eval_steps):
            record["validation_loss"] = validate(run, objective, validation_batches)
            set_train_mode(run.model, args.freeze_batch_norm)
        accelerator.log(record, step=run.step)
        if log is not None:
            log.write(record)
        if run.is_due(args.checkpointing_steps):
            run.save()
        bar.set_postfix(loss=f"{record['loss']:.3f}")
        bar.update()
    bar.close()


def train_step(run: Run, objective: Objective, step_batch: StepBatch) -> dict[str, float]:
    """One optimiser step on the micro-batches of all ranks, and its line in the log."""
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
    sums[-1] = gradient_norm(run.model)
    loss, *terms, norm = accelerator.reduce(sums, "sum").tolist()  # the one time in a step that the host waits
    learning_rate = run.scheduler.get_last_lr()[0]
    # With a gradient scaler, an overflow of the gradients is normal: it skips the step.
    if not math.isfinite(loss) or (accelerator.scaler is None and not math.isfinite(norm)):
        raise RuntimeError(
            f"The loss is {loss} and the norm of its gradients {norm / accelerator.num_processes} at step "
            f"{run.step + 1}: training has diverged. Start again with a lower --learning_rate (it is at "
            f"{learning_rate:g}) or with --warmup_steps, in another --output_dir."
        )
    record = {
        "step": run.step + 1,
        "epoch": run.order.epoch(run.step),
        "loss": loss,
        **dict(zip(objective.terms, terms, strict=True)),
        "learning_rate": learning_rate,
        objective.counted: step_batch.count,
        "num_points": step_batch.num_points,
    }
    was_taken = run.advance(step_batch.num_points, step_batch.num_broken)
    if not was_taken:
        record["skipped_in_a_row"] = run.skipped_in_a_row
    elif objective.after_step is not None:
        objective.after_step()
    return record


def gradient_norm(model: torch.nn.Module) -> torch.Tensor:
    """The norm of all gradients together, a scalar on their device."""
    return get_total_norm([parameter.grad for parameter in model.parameters() if parameter.grad is not None])


def make_validation_loader(run: Run, objective: Objective, validation: Dataset, num_workers: int) -> DataLoader:
    """This rank's share of the samples, one at a time."""
    accelerator = run.accelerator
    share = range(accelerator.process_index, len(validation), accelerator.num_processes)
    keys = [[(0, index)] for index in share]
    return make_loader(validation, keys, objective.collate, num_workers, accelerator.device)


@torch.no_grad()
def validate(run: Run, objective: Objective, batches: Iterable[dict]) -> float:
    """The loss on samples that are not trained on; the model is left in evaluation mode."""
    accelerator, model = run.accelerator, run.accelerator.unwrap_model(run.model)
    model.eval()
    sums = torch.zeros(2, device=accelerator.device)
    for batch in batches:
        count = objective.count(batch)
        sums[0] += model(**model_inputs(batch, accelerator.device)).loss * count
        sums[1] += count
    loss_sum, total = accelerator.reduce(sums, "sum").tolist()
    return loss_sum / total if total else 0.0


def collate_with_broken(collate: Callable[[list[dict]], dict], samples: list[dict]) -> dict:
    """A batch of the samples, and beside it the messages of the frames that others stand in for."""
    broken_frames = [message for sample in samples for message in sample.get("broken_frames", [])]
    return {**collate(samples), "broken_frames": broken_frames}


def model_inputs(batch: dict, device: torch.device) -> dict:
    return to_device({name: value for name, value in batch.items() if name != "broken_frames"}, device)


def set_train_mode(model: torch.nn.Module, batch_norm_is_frozen: bool) -> None:
    model.train()
    if batch_norm_is_frozen:
        freeze_batch_norm(model)
