"""Run one of our task files in lm-evaluation-harness and print every prediction as JSON: task, model folder, exam, questions."""

import json
import sys

from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from xinglin.schema import EXAM_SYSTEM

task, model, exam, most = sys.argv[1:]
metadata = {"path": exam, "most": int(most)}
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
rows = [{"prompt": sample["doc"]["prompt"], "outputs": sample["filtered_resps"], "acc": sample["acc"]} for sample in samples]
print("RESULT " + json.dumps({"rows": rows, "acc": found["results"][task]["acc,none"]}, ensure_ascii=False))
