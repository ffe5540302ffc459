import io
from pathlib import Path

import pytest
from serve_fakes import BASE, TUNED, FakeEngine, running, serving

from xinglin import cli, schema
from xinglin.serve.chat import Chat, converse

CHEST = "我爸胸口压着疼半个多小时了，一身冷汗"


def talk(engine: FakeEngine, *lines: str, sides: tuple[bool, ...] = (True,)) -> str:
    written: list[str] = []
    converse(Chat(engine, sides, written.append), iter(lines))
    return "".join(written)


def test_an_answer_ends_with_label_and_disclaimer() -> None:
    assert talk(FakeEngine(), "胃疼") == f"{TUNED}\n\n〔{schema.AI_LABEL}〕{schema.DISCLAIMER}\n"


def test_the_history_goes_along_and_clear_forgets_it() -> None:
    engine = FakeEngine()
    talk(engine, "胃疼", "饮食呢", "/clear", "头疼")
    asked = [[turn["content"] for turn in each["messages"][1:]] for each in engine.asked]
    assert asked == [["胃疼"], ["胃疼", TUNED, "饮食呢"], ["头疼"]]


def test_retry_asks_the_last_question_again_otherwise() -> None:
    engine = FakeEngine()
    talk(engine, "胃疼", "饮食呢", "/retry")
    assert engine.asked[2]["messages"] == engine.asked[1]["messages"]
    assert (engine.asked[1]["temperature"], engine.asked[2]["temperature"]) == (0.0, 0.7)


def test_commands_ask_nothing_and_exit_ends() -> None:
    engine = FakeEngine()
    talk(engine, "/retry", "/help", "/whatever", "", "/exit", "胃疼")
    assert engine.asked == []


def test_two_sides_answer_with_histories_of_their_own() -> None:
    engine = FakeEngine()
    text = talk(engine, "胃疼", "饮食呢", sides=(False, True))
    assert text.index(BASE) < text.index(TUNED)
    assert [each["messages"][2]["content"] for each in engine.asked[2:]] == [BASE, TUNED]


def test_the_emergency_text_comes_first_and_stays_in_later_turns() -> None:
    text = talk(FakeEngine(), CHEST, "好多了")
    assert text.startswith("【") and text.index("120") < text.index(TUNED)
    assert text.count("【") == 2


def test_ctrl_c_stops_the_answer_and_not_the_conversation(capsys: pytest.CaptureFixture[str]) -> None:
    engine = FakeEngine()

    def interrupt(text: str) -> None:
        if text == "二":
            raise KeyboardInterrupt

    chat = Chat(engine, (True,), interrupt)
    chat.ask("胃疼")
    assert "stopped" in capsys.readouterr().err
    assert chat.histories[True][1]["content"] == TUNED.partition("二")[0] + "二"


def test_a_red_flag_stays_when_its_question_got_no_answer() -> None:
    class Down(FakeEngine):
        def stream(self, messages, **settings):
            if messages[-1]["content"] == CHEST:
                raise ValueError("the server does not answer")
            return super().stream(messages, **settings)

    engine = Down()
    text = talk(engine, CHEST, "/retry", "不想活了，想从楼上跳下去", "/clear", "胃疼")
    assert text.count("【") == 4 and "12356" in text
    assert [len(each["messages"]) for each in engine.asked] == [2, 2]


def test_cautions_stand_under_the_answer() -> None:
    points = [("头痛。", "紧张性头痛。"), ("劳累。", "偏头痛。"), ("就诊。", "可口服布洛芬，一次3g。")]
    text = schema.Answer.from_points(points).render()
    said = talk(FakeEngine(answer=lambda messages, tuned: text), "头痛")
    assert text.index("3g") < said.index("⚠ “3g”") < said.index(schema.AI_LABEL)


@pytest.mark.parametrize("piped", [False, True])
def test_the_red_flag_comes_before_the_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], piped: bool
) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("name: demo\nmodel: x\n", encoding="utf-8")

    def loads(*_: object) -> FakeEngine:
        assert "120" in capsys.readouterr().out
        raise ValueError("no such model")

    monkeypatch.setattr("xinglin.serve.chat.local", loads)
    monkeypatch.setattr("sys.stdin", io.StringIO(CHEST))
    assert cli.main(["chat", str(recipe), *([] if piped else ["-q", CHEST])]) == 2
    down = ["serve.upstream=http://127.0.0.1:9/v1", "-q", CHEST]
    assert cli.main(["chat", str(recipe), *down]) == 2
    assert "120" in capsys.readouterr().out


@pytest.mark.parametrize(("structure", "sections"), [("enforced", True), ("free", False)])
def test_the_form_is_that_of_the_recipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, structure: str, sections: bool) -> None:
    engine, recipe = FakeEngine(), tmp_path / "r.yaml"
    recipe.write_text("name: demo\nmodel: x\n", encoding="utf-8")
    monkeypatch.setattr("xinglin.serve.chat.local", lambda recipe, adapter: engine)
    assert cli.main(["chat", str(recipe), f"serve.structure={structure}", "-q", "胃疼"]) == 0
    assert engine.asked[-1]["sections"] is sections


def test_a_question_too_long_is_one_line_and_the_next_one_works(capsys: pytest.CaptureFixture[str]) -> None:
    text = talk(FakeEngine(context=600), "长" * 700, "胃疼")
    assert "/clear" in capsys.readouterr().err and TUNED in text


def test_chat_talks_through_an_upstream_server_and_says_when_it_is_down(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("name: demo\nmodel: x\n", encoding="utf-8")
    with running(serving(tmp_path)) as url:
        assert cli.main(["chat", str(recipe), f"serve.upstream={url}/v1", "--compare", "-q", "胃疼"]) == 0
        out = capsys.readouterr().out
        assert out.index(BASE) < out.index(TUNED)
        monkeypatch.setattr("sys.stdin", io.StringIO("胃疼\n"))
        assert cli.main(["chat", str(recipe), f"serve.upstream={url}/v1"]) == 0
        assert capsys.readouterr().out.startswith(TUNED)
    assert cli.main(["chat", str(recipe), "serve.upstream=http://127.0.0.1:9/v1", "-q", "胃疼"]) == 2
    assert "does not answer" in capsys.readouterr().err.splitlines()[-1]
