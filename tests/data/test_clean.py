"""Every row is kept or rejected with a reason, the same rows whatever the batches, and a killed run goes on."""

import json
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from xinglin import cli, config, schema
from xinglin.data import clean, lineage, parts, progress
from xinglin.records import Record, Rejected, finish, iterate, manifest, write_jsonl

ANSWER = "多半与饮食不规律有关，先清淡饮食观察三天，若夜间痛醒、黑便或消瘦，请尽快到消化内科做胃镜检查。"


def recipe(folder: Path, *data: str | Path, **sections: Any) -> config.Recipe:
    return config.build(
        {"name": "t", "model": "demo", "runs": str(folder / "runs"), "data": [str(name) for name in data], **sections}
    )


def corpus(folder: Path, rows: list[tuple[str, str]], name: str = "rows.jsonl", **extra: str) -> Path:
    write_jsonl(folder / name, [{"question": question, "answer": answer, **extra} for question, answer in rows])
    return folder / name


def words(number: int, count: int) -> str:
    """Characters that no two numbers share in this order."""
    draw = random.Random(number)
    return "".join(chr(draw.randrange(0x4E00, 0x9000)) for _ in range(count))


def questions(count: int) -> list[tuple[str, str]]:
    return [(f"第{number}位：{words(number, 9)}疼怎么办？", f"{words(number, 40)}，{ANSWER}") for number in range(count)]


def run(value: config.Recipe) -> tuple[list[Record], list[Rejected]]:
    cli.execute("clean", value)
    folder = value.folder / "1-clean"
    rejected = [Rejected(**json.loads(line)) for line in (folder / "rejected.jsonl").read_text(encoding="utf-8").splitlines()]
    return list(iterate(folder / "records.jsonl")), rejected


def reasons(rejected: list[Rejected]) -> Counter[str]:
    return Counter(row.reason.split(":")[0] for row in rejected)


def test_the_sample_keeps_its_134_clean_rows_and_no_other(tmp_path: Path) -> None:
    kept, rejected = run(recipe(tmp_path, "demo"))
    assert (len(kept), len(rejected)) == (134, 89)
    assert all(schema.check(row.answer) == [] for row in kept)
    assert not [row for row in kept if re.search(r"\[[^\]]+\d\]|&\w+;|<\w", row.question + row.answer)]
    found = reasons(rejected)
    assert found["exact_duplicate"] + found["near_duplicate"] == 32
    assert found["cut_off"] == found["advertisement"] == 7
    assert {"contact_soliciting", "non_answer", "greeting_only", "mojibake", "no_chinese", "repetition", "too_short"} <= set(
        found
    )


def test_real_corpora_lose_no_row_without_a_line(tmp_path: Path, shared: Path) -> None:
    names = [
        shared / "data/toyhom/样例_内科5000-6000.csv",
        shared / "data/zhongjing/huatuo26M_test.json",
        shared / "data/cmb/CMB-Clin_CMB-test-qa.json",
    ]
    kept, rejected = run(recipe(tmp_path, *names))
    places = [(row.source["file"], row.source["row"]) for row in (*kept, *rejected)]
    assert len(places) == len(set(places)) == 7644 + 6000 + 74
    assert len(kept) > 12_000
    assert "unreadable" not in reasons(rejected)


def test_batches_do_not_change_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = corpus(tmp_path, questions(30) + questions(7) + [("胃疼", "见上")])
    results = []
    for batch in (4, 1000):
        monkeypatch.setattr(parts, "BATCH", batch)
        value = recipe(tmp_path / str(batch), path)
        run(value)
        results.append(
            [(value.folder / "1-clean" / name).read_bytes() for name in ("records.jsonl", "rejected.jsonl", "report.json")]
        )
    assert results[0] == results[1]


def test_progress_of_less_than_a_batch_says_what_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(parts, "HEARD", 8)
    monkeypatch.setattr(progress.Progress, "update", lambda bar, done, rows, note="": print(bar.task, done > 0, rows, note))
    run(recipe(tmp_path, corpus(tmp_path, questions(20))))
    seen = [line for line in capsys.readouterr().out.splitlines() if line.startswith("clean: preparing")]
    assert [line.split(None, 4)[-1] for line in seen[:3]] == [f"rows.jsonl: {count} rows read" for count in (8, 16, 20)]
    assert seen[3].split()[3] == "20"


KILLED = """
import os, signal, sys
from pathlib import Path
from xinglin import cli, config, records
from xinglin.data import parts
records.code_version = lambda: "the same"  # an editor at work during the test is not its subject
parts.BATCH, real, calls = 5, parts.prepare, []
def prepare(rows, options):
    calls.append(rows.height)
    if len(calls) > int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(rows, options)
parts.prepare = prepare
cli.execute("clean", config.load(sys.argv[1]))
print(len(calls))
"""


def test_a_killed_run_goes_on_behind_its_last_batch(tmp_path: Path) -> None:
    whole = recipe(tmp_path / "whole", corpus(tmp_path, questions(40)))
    run(whole)
    path = tmp_path / "recipe.yaml"
    path.write_text(
        json.dumps({"name": "t", "model": "demo", "runs": str(tmp_path / "cut"), "data": list(whole.data)}), encoding="utf-8"
    )

    def attempt(batches: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", KILLED, str(path), str(batches)], capture_output=True, text=True, check=False
        )

    assert attempt(3).returncode == -9
    assert not (tmp_path / "cut/t/1-clean/records.jsonl").exists()
    assert attempt(99).stdout.split() == ["5"]
    for name in ("records.jsonl", "rejected.jsonl", "report.json"):
        assert (tmp_path / "cut/t/1-clean" / name).read_bytes() == (whole.folder / "1-clean" / name).read_bytes()


def test_ctrl_c_leaves_in_one_line_and_the_same_command_goes_on(tmp_path: Path) -> None:
    whole = recipe(tmp_path / "whole", corpus(tmp_path, questions(40)))
    run(whole)
    path = tmp_path / "recipe.yaml"
    path.write_text(
        json.dumps({"name": "t", "model": "demo", "runs": str(tmp_path / "cut"), "data": list(whole.data)}), encoding="utf-8"
    )
    interrupted = KILLED.replace("signal.SIGKILL", "signal.SIGINT").replace(
        'cli.execute("clean", config.load(sys.argv[1]))', 'sys.exit(cli.main(["clean", sys.argv[1]]))'
    )
    done = subprocess.run([sys.executable, "-c", interrupted, str(path), "3"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (130, "interrupted; the same command goes on from here")
    again = subprocess.run([sys.executable, "-c", KILLED, str(path), "99"], capture_output=True, text=True, check=False)
    assert again.stdout.split() == ["5"]
    assert (tmp_path / "cut/t/1-clean/records.jsonl").read_bytes() == (whole.folder / "1-clean/records.jsonl").read_bytes()


# ---------------------------------------------------------------- copies, groups, benchmarks


def test_the_best_of_a_cluster_stays_and_the_others_name_it(tmp_path: Path) -> None:
    section = schema.Answer.from_points(
        [["反复上腹痛三天", "考虑胃炎"], ["饮食不当", "与胆囊炎区别"], ["尽快就诊", "清淡饮食，遵医嘱用药。"]]
    ).render()
    rows = [
        ("胃疼三天怎么办，电话13800138000", section),
        ("胃疼三天怎么办", section),
        ("胃疼三天怎么办", section),
        ("胃疼三天怎么办啊", section),
    ]
    kept, rejected = run(recipe(tmp_path, corpus(tmp_path, rows)))
    assert [row.source["row"] for row in kept] == [2]
    path = tmp_path / "rows.jsonl"
    assert [row.reason.split(" (")[0] for row in rejected] == [
        f"near_duplicate: of {path}:2",
        f"exact_duplicate: of {path}:2",
        f"near_duplicate: of {path}:2",
    ]
    assert "[手机号1]" in rejected[0].raw


def test_one_question_with_two_answers_is_one_group_and_keeps_its_name_when_rows_follow(tmp_path: Path) -> None:
    rows = [
        ("血压150正常吗？", "偏高，建议一周内在家多次测量并记录后到心内科就诊。"),
        ("血压150正常吗？", "老年人也应控制在一百四以下，请咨询医生调整用药。"),
    ]
    kept, _ = run(recipe(tmp_path / "a", corpus(tmp_path, rows)))
    more, _ = run(recipe(tmp_path / "b", corpus(tmp_path, [*rows, *questions(5), rows[0]])))
    assert len({row.group for row in kept}) == 1
    assert len({row.id for row in kept}) == 2
    assert [row.group for row in more[:2]] == [row.group for row in kept]


def test_two_files_with_the_same_ids_stay_apart(tmp_path: Path) -> None:
    first = corpus(tmp_path, [("头晕两天怎么办？", ANSWER)], "a.jsonl", id="1")
    second = corpus(tmp_path, [("便血要紧吗？", "少量鲜血多为痔疮，但需要排除肠道疾病，请尽快到肛肠科检查。")], "b.jsonl", id="1")
    kept, _ = run(recipe(tmp_path, first, second))
    assert [row.meta["id"] for row in kept] == ["1", "1"]
    assert len({row.id for row in kept}) == 2


def test_rows_with_a_benchmark_question_are_removed_and_name_it(tmp_path: Path) -> None:
    exam = tmp_path / "exam.csv"
    exam.write_text(
        "id,question,A,B,answer\n0,上消化道出血可单纯表现为呕血或黑便，也可两者兼有，这取决于____,原发病,出血部位,B\n1,嘶哑样咳嗽可见于,A,B,A\n",
        encoding="utf-8",
    )
    rows = [
        ("请问：上消化道出血可单纯表现为呕血或黑便、也可两者兼有，这取决于什么？", ANSWER),
        ("嘶哑样咳嗽，可见于哪些病？", ANSWER + "还要注意保暖。"),
        ("呕血和黑便有什么区别？", "呕血多来自上消化道，黑便是血液经肠道后的样子，两者都应尽快就诊检查。"),
    ]
    kept, rejected = run(recipe(tmp_path, corpus(tmp_path, rows), clean={"decontaminate": [str(exam)]}))
    assert [row.question for row in kept] == ["呕血和黑便有什么区别？"]
    assert rejected[0].reason.startswith("benchmark: 13 words of ")
    assert "exam.csv:2 上消化道出血可单纯表现为呕血或黑便也可两者兼有这取决于" in rejected[0].reason
    assert rejected[1].reason.startswith("benchmark: all of ")
    folder = tmp_path / "runs/t/1-clean"
    assert json.loads((folder / "report.json").read_text(encoding="utf-8"))["benchmarks"] == {str(exam): {"questions": 2}}
    assert f'<td>{exam}</td><td class="n">2</td>' in (folder / "report.html").read_text(encoding="utf-8")


def test_contaminated_real_rows_are_found_among_others(tmp_path: Path, shared: Path) -> None:
    exam = shared / "data/cmexam/val.json"
    questions = [row["Question"] for row in json.loads(exam.read_text(encoding="utf-8"))[:300]]
    rows = [
        (f"{number}号题：{question}请问选哪个？", f"{words(number, 40)}。{ANSWER}") for number, question in enumerate(questions)
    ]
    _, rejected = run(recipe(tmp_path, corpus(tmp_path, rows), clean={"decontaminate": [str(exam)]}))
    hits = sum(row.reason.startswith("benchmark") for row in rejected)
    expected = sum(len(re.findall(r"[0-9A-Za-z]+|[^\W_]", question)) >= 8 for question in questions)
    assert hits >= expected * 0.99


# ---------------------------------------------------------------- lineage, report, errors


def test_traces_a_line_to_its_fate(tmp_path: Path) -> None:
    rows = [*questions(12), questions(12)[3], ("胃疼", "见上")]
    value = recipe(tmp_path, corpus(tmp_path, rows))
    run(value)
    cli.execute("split", value)
    path = tmp_path / "rows.jsonl"
    kept = lineage.trace(value, "rows.jsonl:4").split("\n")
    assert kept[0].startswith(f"clean    {path}:4 kept as ")
    assert kept[0].endswith(f"1 copies of it were removed: {path}:13")
    assert re.fullmatch(r"split    (train|validation), line \d+", kept[1])
    assert "rejected: exact_duplicate" in lineage.trace(value, f"{path}:13")
    assert "rejected: non_answer" in lineage.trace(value, "rows.jsonl:14")
    with pytest.raises(ValueError, match="no row was read there"):
        lineage.trace(value, "rows.jsonl:99")


def test_traces_an_inner_line_another_spelling_of_the_path_and_what_the_rewrite_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "q.csv").write_text(
        f'question,answer\n"胃疼三天，\n夜里也疼，\n怎么办？",{ANSWER}\n头晕,见上\n', encoding="utf-8"
    )
    monkeypatch.chdir(tmp_path)
    value = recipe(tmp_path, "q.csv")
    (kept,), _ = run(value)
    for place in ("q.csv:2", "./q.csv:2", f"{tmp_path}/q.csv:2"):
        assert lineage.trace(value, place) == f"clean    q.csv:2 kept as {kept.id} (group {kept.group})"
    assert lineage.trace(value, "q.csv:4").startswith("line 4 is part of the row at 2\nclean    q.csv:2 kept as ")
    assert lineage.trace(value, "q.csv:5").startswith("clean    q.csv:5 rejected: non_answer")
    for line in (1, 6):
        with pytest.raises(ValueError, match="no row was read there"):
            lineage.trace(value, f"q.csv:{line}")
    clean, rewrite = value.folder / "1-clean/records.jsonl", value.folder / "2-rewrite"
    write_jsonl(rewrite / "records.jsonl", [])
    write_jsonl(rewrite / "rejected.jsonl", [Rejected(kept.source, "not in three sections", kept.answer)])
    finish(rewrite, manifest([clean], {}), [], {})
    assert lineage.trace(value, "q.csv:2").endswith("\nrewrite  rejected: not in three sections")
    write_jsonl(clean, [kept, kept])
    assert lineage.trace(value, "q.csv:2").endswith("\nrewrite  older than clean: run `xinglin rewrite`")


def test_the_report_needs_nothing_from_elsewhere_and_shows_hostile_text_as_text(tmp_path: Path) -> None:
    rows = [
        *questions(3),
        ("<script>alert(1)</script>胃疼<img src=x onerror=alert(2)>", "您好，加我微信 abc_2020，细说<b>。"),
        ("头晕", "百度一下 <svg onload=x>"),
    ]
    value = recipe(tmp_path, corpus(tmp_path, rows, department="消化<内>科"))
    run(value)
    page = (value.folder / "1-clean/report.html").read_text(encoding="utf-8")
    assert "索要或留下联系方式" in page
    assert "没有命中：无法读取、" in page
    assert "消化&lt;内&gt;科" in page
    assert not re.search(r"<script|<img|<svg onload|src=|href=|url\(|https?:", page)
    report = json.loads((value.folder / "1-clean/report.json").read_text(encoding="utf-8"))
    assert (report["rows"], report["kept"], report["rejected"]["contact_soliciting"]["count"]) == (5, 3, 1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "data is empty"),
        (["absent.csv"], "absent.csv: no such file"),
        (["hf:/x"], "no such file"),
        (["s3://x/y"], "is no hub data set"),
    ],
)
def test_says_what_is_wrong_with_the_data(tmp_path: Path, data: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        clean.inputs(recipe(tmp_path, *data))


def test_a_file_of_which_no_row_can_be_read_stops_the_run(tmp_path: Path) -> None:
    path = tmp_path / "wrong.csv"
    path.write_text("病情,医嘱\n胃疼,少吃辣\n", encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"wrong.csv: no row could be read; the first is unreadable: no question among the columns 病情, 医嘱"
    ):
        run(recipe(tmp_path, path))


def test_masking_and_simplifying_are_choices(tmp_path: Path) -> None:
    path = corpus(tmp_path, [("我叫王小麗，頭暈怎麼辦？", "請測量血壓並記錄，若持續頭暈或肢體無力，請儘快到神經內科就診。")])
    plain, _ = run(recipe(tmp_path / "a", path, clean={"mask": False}))
    simple, _ = run(recipe(tmp_path / "b", path, clean={"simplified": True}))
    assert plain[0].question == "我叫王小麗，頭暈怎麼辦？"
    assert simple[0].question == "我叫[姓名1]，头晕怎么办？"
    assert simple[0].answer.startswith("请测量血压")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("\n\n\n", "no row in it"),
        ("PK\x03\x04", "save the table as CSV"),
        ('{"question": "头疼怎么办？"}\n', "none of 1 rows was kept (empty answer 1)"),
    ],
)
def test_nothing_to_keep_is_an_error_that_says_why(tmp_path, text, message):
    path = tmp_path / "x.jsonl"
    path.write_text(text, encoding="utf-8")
    recipe = config.build({"model": "demo", "data": [str(path)], "runs": tmp_path})
    with pytest.raises(ValueError) as error:
        clean.inputs(recipe)
        clean.run(recipe, tmp_path / "1-clean")
    assert message in str(error.value)


def test_both_answers_of_a_pair_are_cleaned_masked_and_judged(tmp_path: Path) -> None:
    worse = "没什么大事，<b>多喝热水</b>，号码13800138000记下了，过几天自己就会好的。"
    rows = [
        {"prompt": "我电话13800138000，胃疼怎么办？", "chosen": ANSWER, "rejected": worse},
        {"prompt": f"{words(1, 9)}疼怎么办？", "chosen": f"{words(1, 40)}，{ANSWER}", "rejected": "多喝水"},
        {"prompt": f"{words(2, 9)}疼怎么办？", "chosen": f"{words(2, 40)}，{ANSWER}", "rejected": f"{words(2, 40)}，{ANSWER}"},
        {"prompt": f"{words(3, 9)}疼怎么办？", "completion": f"{words(3, 40)}，{ANSWER}", "label": False},
    ]
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    kept, rejected = run(recipe(tmp_path, tmp_path / "pairs.jsonl"))
    assert kept[0].question == "我电话[手机号1]，胃疼怎么办？"
    assert kept[0].answer == ANSWER
    assert kept[0].meta["rejected"] == "没什么大事，多喝热水，号码[手机号1]记下了，过几天自己就会好的。"
    assert kept[1].meta == {"label": False}
    assert [row.reason for row in rejected] == ["too_short: of the rejected answer", "same_answers"]


def dialogue(*turns: str) -> dict[str, Any]:
    return {"messages": [{"role": ("user", "assistant")[place % 2], "content": turn} for place, turn in enumerate(turns)]}


def test_every_answer_of_a_dialogue_is_judged_and_thanks_at_its_end_are_left_out(tmp_path: Path) -> None:
    fine = [f"{words(number, 40)}，{ANSWER}" for number in range(6)]
    rows = [
        dialogue("胃疼怎么办？", "加我微信abc_2020，我院祖传秘方无效退款", "还有呢？", fine[0]),
        dialogue("头晕怎么办？", "见上", "什么意思？", fine[1]),
        dialogue("医生您好", "您好，请问有什么可以帮您？", "夜里咳嗽怎么办？", fine[2]),
        dialogue("失眠怎么办？", fine[3], "谢谢医生！", "不客气，祝您早日康复！", "再见", "再见，祝您健康。"),
        dialogue("谢谢", "不客气，祝您早日康复！", "谢谢", "不客气！"),
        {"question": "便秘怎么办？", "answer": fine[4]},
    ]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    kept, rejected = run(recipe(tmp_path, tmp_path / "rows.jsonl"))
    assert [(row.source["row"], row.reason) for row in rejected] == [
        (1, "contact_soliciting"),
        (2, "non_answer"),
        (5, "greeting_only"),
    ]
    assert [len(row.messages) for row in kept] == [4, 2, 2]
    assert kept[1].answer == fine[3]


def test_a_benchmark_without_questions_is_refused(tmp_path: Path) -> None:
    (tmp_path / "exam.csv").write_text("wording,answer\n上消化道出血可单纯表现为呕血或黑便,A\n", encoding="utf-8")
    value = recipe(tmp_path, corpus(tmp_path, questions(2)), clean={"decontaminate": [str(tmp_path / "exam.csv")]})
    with pytest.raises(ValueError, match="no question found in it; name its column question"):
        run(value)
