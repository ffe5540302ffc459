import pytest
from train_helpers import write_split

from xinglin import config


@pytest.fixture
def recipe(tmp_path, tiny) -> config.Recipe:
    values = {
        "rank": 4,
        "alpha": 8,
        "epochs": 2,
        "batch_size": 4,
        "micro_batch_size": 2,
        "max_length": 400,
        "learning_rate": 1e-3,
    }
    made = config.build({"name": "t", "model": str(tiny), "runs": tmp_path, "train": {**values, "evaluations": 3}})
    write_split(made)
    return made
