"""Where exam questions come from: the entries of ``evaluate.exams``, also those of the task files.

In: an entry, the most questions, a seed. Out: an ``Exam``, the same one for the same three::

    "data/cmexam/val.json"     a file, or a folder of files
    "hf://OWNER/NAME"          the exam files of a hub data set; hf://OWNER/NAME/FOLDER: of one folder of it
    "halt:data/cmexam/val.json"    the false-premise test that halt.py makes of one
"""

import random
from pathlib import Path

from xinglin.evaluate import exams, halt
from xinglin.evaluate.exams import Exam, Question

HALT = "halt:"
HUB = "hf://"


def files(name: str) -> list[Path]:
    """The files behind an entry."""
    return exams.files(_path(name.removeprefix(HALT)))


def paper(name: str, most: int, seed: int) -> Exam:
    """The questions of one entry, at most ``most`` (a fixed sample; 0: all); halt:FILE turns them into the false-premise test."""
    exam = exams.read(_path(name.removeprefix(HALT)))
    most = most or len(exam.questions)
    if name.startswith(HALT):
        return halt.build(exam, seed, max(1, most // 3))
    if len(exam.questions) <= most:
        return exam
    chosen: list[Question] = random.Random(seed).sample(exam.questions, most)
    return Exam(exam.name, chosen, [*exam.left_out, f"从 {len(exam.questions)} 题中抽取 {most} 题"])


def _path(name: str) -> Path:
    return _from_hub(name.removeprefix(HUB)) if name.startswith(HUB) else Path(name)


def _from_hub(name: str) -> Path:
    """The folder of a data set of the Hugging Face hub (HF_ENDPOINT, HF_HUB_OFFLINE and HF_TOKEN are honoured)."""
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    owner_name, folder = "/".join(name.split("/")[:2]), "/".join(name.split("/")[2:])
    patterns = [f"{folder}/*{suffix}" if folder else f"*{suffix}" for suffix in exams.SUFFIXES]
    try:
        return Path(snapshot_download(owner_name, repo_type="dataset", allow_patterns=patterns)) / folder
    except HFValidationError:
        raise ValueError(f"evaluate.exams: {HUB}{name} is no data set of the hub; write {HUB}OWNER/NAME") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, httpx.HTTPError) as error:
        raise ValueError(
            f"evaluate.exams: {HUB}{name} did not come ({type(error).__name__}); set HF_ENDPOINT to a mirror, "
            "or copy its files into a folder and name that"
        ) from None
