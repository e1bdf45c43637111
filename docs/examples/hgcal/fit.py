"""Trains a network with a progress bar and a checkpoint it resumes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from hgcal.tasks import Task

SAVE_EVERY = 20  # steps


def fit(task: Task, steps: int, checkpoint: Path, seed: int, learning_rate: float = 0.003) -> None:
    """Trains the model of a task, in place.

    A training that was interrupted goes on where its checkpoint was written, and ends with the
    parameters it would have had. One that has already done `steps` steps is left as it is.

    Args:
        task: What is trained.
        steps: Number of mini-batches shown in all.
        checkpoint: File that the state is kept in.
        seed: Fixes the order of the mini-batches, and dropout.
        learning_rate: Of Adam.

    Raises:
        ValueError: If the checkpoint is of another model or another seed.
    """
    model = task.model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    torch.manual_seed(seed)
    done = 0
    if checkpoint.exists():
        done = _restore(torch.load(checkpoint, weights_only=True), task, optimizer, seed)
    order = _order(len(task.batches), steps, seed)
    bar = tqdm(range(done, steps), initial=done, total=steps, desc=task.name, unit="step")
    for step in bar:
        optimizer.zero_grad()
        loss = task.loss(model, task.batches[order[step]])
        loss.backward()
        optimizer.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            _save(checkpoint, task, optimizer, seed, step + 1)
    model.eval()


def _order(batches: int, steps: int, seed: int) -> list[int]:
    """The mini-batch of each step; more steps begin with the same ones."""
    generator = torch.Generator().manual_seed(seed)
    rounds = [torch.randperm(batches, generator=generator) for _ in range(steps // batches + 1)]
    return torch.cat(rounds).tolist()


def _save(
    checkpoint: Path, task: Task, optimizer: torch.optim.Optimizer, seed: int, step: int
) -> None:
    state = {
        "task": task.name,
        "seed": seed,
        "step": step,
        "model": task.model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
    }
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    partial = checkpoint.with_suffix(".partial")  # an interruption leaves the last one whole
    torch.save(state, partial)
    partial.replace(checkpoint)


def _restore(state: dict[str, Any], task: Task, optimizer: torch.optim.Optimizer, seed: int) -> int:
    if (state["task"], state["seed"]) != (task.name, seed):
        raise ValueError(
            f"checkpoint: expected task '{task.name}' with seed {seed}, got '{state['task']}' "
            f"with seed {state['seed']}; give another folder"
        )
    task.model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"])
    return int(state["step"])
