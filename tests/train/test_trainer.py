import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from xinglin.train import trainer


def overflowing(scaler: torch.amp.GradScaler, steps: int) -> None:
    """Steps whose gradients are infinite: each halves the scale."""
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], 0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        scaler.scale(weight.sum() * torch.inf).backward()
        scaler.step(optimizer)
        scaler.update()
    assert weight.item() == 1


def test_a_loss_scale_that_sinks_below_one_stops_the_run(tmp_path):
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    watch = trainer.LossScale(scaler)
    seen = (TrainingArguments(output_dir=str(tmp_path)), TrainerState(global_step=7), TrainerControl())
    overflowing(scaler, 2)
    watch.on_log(*seen)
    overflowing(scaler, 1)
    with pytest.raises(
        ValueError, match=r"loss scale fell to 0\.5 by step 7, fp16 gradients overflow; lower train\.learning_rate"
    ):
        watch.on_log(*seen)
