"""A run: what a training loop works on, and how far it is."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset

from uov_hf.modeling_uov_pretraining import UOVForPreTraining
from uov_hf.modeling_uov_segmentation import UOVForSemanticSegmentation
from uov_hf.training.arguments import TrainingArguments
from uov_hf.training.checkpoints import (
    RunState,
    check_finite,
    drop_later,
    find_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from uov_hf.training.launch import wait_for_all
from uov_hf.training.loaders import SkipBrokenFrames, make_loader
from uov_hf.training.objectives import Objective
from uov_hf.training.optimization import ParameterGroup, create_optimizer, create_scheduler
from uov_hf.training.order import MicroBatchSampler, TrainingOrder
from uov_hf.training.settings import Settings, run_settings
from uov_hf.training.several_datasets import JoinedSamples, warn_of_raw_intensities
from uov_hf.training.sync_batch_norm import synchronize_batch_norm


logger = get_logger(__name__)

COMPUTE_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
# The gradient scaler starts at 2^16 and halves at every skip: after so many it scales the loss by 1/16.
MAX_SKIPPED_IN_A_ROW = 20
# After so many steps on nothing a warning appears: in a large dataset the end of the epoch is hours away.
EMPTY_IN_A_ROW_TO_WARN = 10


@dataclass
class Run:
    """The prepared objects of a run and the counters of its checkpoints."""

    accelerator: Accelerator
    model: torch.nn.Module  # prepared, as the optimiser
    optimizer: torch.optim.Optimizer
    scheduler: LambdaLR  # stepped with the optimiser
    order: TrainingOrder
    num_steps: int  # optimiser steps of the whole run
    output_dir: Path
    settings: Settings = field(default_factory=dict)  # from `run_settings`: what a resumed run is compared by
    keep: int | None = None  # checkpoints that stay on disk; all, if None
    step: int = 0  # steps done so far
    saved_step: int = (
        0  # the step that `output_dir` has a checkpoint of; before the first one there is nothing to save
    )
    trained_points: int = 0
    num_broken: int = 0  # frames that could not be read
    skipped_in_a_row: int = 0  # of the last steps, those that the optimiser skipped (`advance`)
    empty_in_a_row: int = 0  # of the last steps, those for which the data has nothing to train on (`check_step`)

    def is_due(self, every: int | None) -> bool:
        """Whether it is time for what happens every `every` steps, by default every epoch, and at the end."""
        return self.step == self.num_steps or self.order.is_due(self.step, every)

    def make_loader(
        self, samples: JoinedSamples[Any], collate: Callable[[list[Any]], Any], num_workers: int, on_error: str
    ) -> DataLoader[Any]:
        """This rank's micro-batches from the current step to the last; `on_error="skip"` replaces broken frames."""
        dataset: Dataset[Any] = SkipBrokenFrames(samples) if on_error == "skip" else samples
        rank, device = self.accelerator.process_index, self.accelerator.device
        sampler = MicroBatchSampler(self.order, rank, self.step, self.num_steps)
        return make_loader(dataset, sampler, collate, num_workers, device)

    def resume(self, resume_from: str | None) -> None:
        """Continue from a checkpoint, where `resume_from` names one (`find_checkpoint`)."""
        checkpoint = find_checkpoint(self.output_dir, resume_from)
        if checkpoint is None:
            return
        state = load_checkpoint(self.accelerator, self.model, checkpoint, self.settings)
        self.step = state["step"]
        if checkpoint.resolve() == (self.output_dir / f"checkpoint-{self.step}").resolve():  # not of another folder
            self.saved_step = self.step
        self.trained_points = state["trained_points"]
        self.num_broken, self.empty_in_a_row = state["num_broken"], state["empty_in_a_row"]
        self.skipped_in_a_row = state["skipped_in_a_row"]
        if self.accelerator.is_main_process:
            drop_later(self.output_dir, self.step, checkpoint)
        logger.info(f"Resumed from {checkpoint}: {self.step} of {self.num_steps} steps are done.")

    def check_step(self, supervision: float, objective: Objective[Any]) -> None:
        """Stop a run on nothing: call this before the next step, with its `supervision` from all ranks.

        Some steps may have nothing to train on: annotations are sparse, and a teacher may abstain.

        Raises:
            ValueError: A whole epoch or the whole run has nothing to train on.
        """
        if supervision:
            self.empty_in_a_row = 0
            return
        self.empty_in_a_row += 1
        end = self.step + 1
        start = end - self.empty_in_a_row
        message = (
            f"There is nothing to train on: {objective.counted} is 0 in the optimiser steps {start + 1} to {end} "
            f"(frames per step: {self.order.frames_per_step}). {objective.if_none}"
        )
        if self.order.has_whole_epoch(start, end) or self.empty_in_a_row == self.num_steps:
            raise ValueError(message)
        if self.empty_in_a_row == EMPTY_IN_A_ROW_TO_WARN:
            logger.warning(f"{message} The run stops if this holds for a whole epoch.")

    def advance(self, num_points: int, num_broken: int) -> bool:
        """Take the optimiser step of the gathered gradients, and count it.

        The optimiser skips a step whose gradients overflow float16. The step counts and its frames are used up;
        weights and learning rate stay.

        Returns:
            Whether the optimiser took the step.

        Raises:
            RuntimeError: The optimiser skipped too many steps in a row.
        """
        self.optimizer.step()
        self.optimizer.zero_grad()
        was_taken = not self.accelerator.optimizer_step_was_skipped
        if was_taken:
            self.scheduler.step()
        self.skipped_in_a_row = 0 if was_taken else self.skipped_in_a_row + 1
        self.step += 1
        self.trained_points += num_points
        self.num_broken += num_broken
        if self.skipped_in_a_row > MAX_SKIPPED_IN_A_ROW:
            raise RuntimeError(
                f"The gradients of {self.skipped_in_a_row} steps in a row overflowed float16, up to step {self.step}, "
                "although the scale of the loss was halved each time. Start again with --mixed_precision bf16 or no, "
                "or with a lower --learning_rate, in another --output_dir."
            )
        return was_taken

    def save(self) -> None:
        """Write a checkpoint of this step unless there is one; all ranks call this.

        Raises:
            RuntimeError: The network has weights or statistics that are not finite; nothing is written.
        """
        if self.step == self.saved_step:
            return
        check_finite(self.accelerator, self.model, self.step)
        state: RunState = {
            "step": self.step,
            "trained_points": self.trained_points,
            "num_broken": self.num_broken,
            "skipped_in_a_row": self.skipped_in_a_row,
            "empty_in_a_row": self.empty_in_a_row,
            "epoch": self.order.epoch(self.step),
            "settings": self.settings,
        }
        config = self.accelerator.unwrap_model(self.model).config
        save_checkpoint(self.accelerator, self.output_dir, state, config, self.keep)
        self.saved_step = self.step


def create_run(
    accelerator: Accelerator,
    args: TrainingArguments,
    model: UOVForPreTraining | UOVForSemanticSegmentation,
    parameters: Iterable[torch.nn.Parameter] | Iterable[ParameterGroup],
    samples: JoinedSamples[Any],
) -> Run:
    """Cut the frames into steps, make optimiser and schedule, prepare them, and start the trackers.

    `parameters` are those of the model that are trained, or groups of them, as `create_optimizer` takes them.

    Raises:
        ValueError: A dataset has no frame to train on.
    """
    wait_for_all(accelerator)  # reading the dataset may take the processes different times
    for dataset, part in zip(args.datasets, samples.parts, strict=False):
        if not len(part):
            raise ValueError(
                f"--split {dataset.split} of {dataset.dataset} has no frame to train on. Give another --split."
            )
    warn_of_raw_intensities(samples)
    num_processes, accumulation = accelerator.num_processes, args.gradient_accumulation_steps
    batch_size = args.batch_size(num_processes)
    order = TrainingOrder(len(samples), batch_size, num_processes, accumulation, args.seed, local=args.streaming)
    num_steps = order.num_steps(args.num_train_epochs) if args.max_train_steps is None else args.max_train_steps
    if num_processes > 1 and accelerator.device.type != "cpu":
        synchronize_batch_norm(model)
    if args.gradient_checkpointing:
        model.activation_checkpointing_enable()
    # Logs which engine, and refuses one that cannot do it, before anything is computed.
    model.uov.backbone.engine(accelerator.device, COMPUTE_DTYPES.get(accelerator.mixed_precision, torch.float32))
    settings = run_settings(asdict(args), order, num_steps, accelerator.mixed_precision, samples, model.config)
    optimizer = create_optimizer(args.optimizer, parameters, args.learning_rate, args.weight_decay)
    scheduler = create_scheduler(args.lr_scheduler_type, optimizer, order, num_steps, args.warmup_steps)
    model, optimizer = accelerator.prepare(model, optimizer)
    accelerator.register_for_checkpointing(scheduler)
    accelerator.init_trackers(f"uov-{args.stage}", {name: str(value) for name, value in asdict(args).items()})
    output_dir, keep = Path(args.output_dir), args.checkpoints_total_limit
    return Run(accelerator, model, optimizer, scheduler, order, num_steps, output_dir, settings, keep)
