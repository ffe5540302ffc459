"""Run one of our task files in lm-evaluation-harness with its own model class; prints every prediction: task, model, metadata."""

import json
import sys

from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from xinglin.schema import EXAM_SYSTEM

task, model, metadata = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
found = simple_evaluate(
    HFLM(pretrained=model, device="cpu", dtype="float32", batch_size=8),
    tasks=[task],
    task_manager=TaskManager(include_path="xinglin/evaluate/tasks", metadata=metadata),
    apply_chat_template=True,
    system_instruction=EXAM_SYSTEM,
    log_samples=True,
    bootstrap_iters=0,
    metadata=metadata,
)
samples = sorted(found["samples"][task], key=lambda sample: sample["doc_id"])
rows = [
    {
        "prompt": sample["doc"]["prompt"],
        "outputs": sample["filtered_resps"],
        "acc": sample["acc"],
        "unparseable": sample.get("unparseable", 0),
    }
    for sample in samples
]
print("RESULT " + json.dumps({"rows": rows, "acc": found["results"][task]["acc,none"]}, ensure_ascii=False))
