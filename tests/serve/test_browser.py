"""The page in a real browser, against a real server with a fake engine."""

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect
from serve_fakes import BASE, POINTS, TUNED, FakeEngine, running, serving

from xinglin import schema
from xinglin.serve import feedback
from xinglin.serve.answering import Server

CHEST = "我爸胸口压着疼半个多小时了，一身冷汗，应该没事吧"
AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
DOWN = '{"error": {"message": "it does not answer", "type": "server_error", "param": null, "code": "upstream_unavailable"}}'
SIZES = {"desktop": (1280, 800), "phone": (390, 844)}


@dataclass
class Visit:
    """One page on one server; ``asked`` are the bodies of the chat requests it sent."""

    page: Page
    url: str
    engine: FakeEngine
    server: Server
    asked: list[dict[str, object]]

    def ask(self, text: str) -> None:
        self.page.fill("#question", text)
        self.page.press("#question", "Enter")

    def answered(self) -> None:
        expect(self.page.locator("#stop")).to_be_hidden()
        expect(self.page.locator(".answer[aria-busy=true]")).to_have_count(0)

    def ratings(self) -> list[dict[str, object]]:
        return list(feedback.rows(self.server.store))


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


expect.set_options(timeout=15_000)  # many milliseconds on a machine with other work
Open = Callable[..., contextlib.AbstractContextManager[Visit]]


@pytest.fixture
def visit(browser: Browser, tmp_path: Path) -> Open:
    """Opens the page; at the end nothing may have gone to another host and the console must hold no error."""

    @contextlib.contextmanager
    def opened(
        engine: FakeEngine | None = None,
        size: str = "desktop",
        scheme: str = "light",
        consent: bool = True,
        key: str = "",
        path: str = "/",
    ) -> Iterator[Visit]:
        engine = engine or FakeEngine()
        server = serving(tmp_path, engine, key=key)
        width, height = SIZES[size]
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce")
        if consent:
            context.add_init_script("localStorage.setItem('xinglin.consent', '1')")
        errors: list[str] = []
        hosts: set[str] = set()
        with running(server) as url:
            page = context.new_page()
            page.set_default_timeout(20_000)
            visited = Visit(page, url, engine, server, [])
            page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
            page.on("request", lambda request: "/chat/" in request.url and visited.asked.append(request.post_data_json))
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
            page.goto(url + path)
            yield visited
            context.close()
        hosts.discard("")  # blob: of an export
        assert hosts == {urlsplit(url).netloc}
        assert [error for error in errors if "status of" not in error and "ERR_FAILED" not in error] == []

    return opened


def test_an_answer_stands_in_three_cards_with_label_and_disclaimer(visit: Open) -> None:
    with visit() as on:
        on.ask("胃疼怎么办？")
        on.answered()
        cards = on.page.locator(".answer .card")
        assert cards.locator("h3").all_text_contents() == list(schema.TITLES)
        for number, points in enumerate(POINTS):
            for point in points:
                expect(cards.nth(number)).to_contain_text(point)
        expect(on.page.locator(".answer .label")).to_have_text(schema.AI_LABEL)
        expect(on.page.locator("footer .disclaimer")).to_contain_text(schema.DISCLAIMER)
        assert on.asked[0]["model"] == "demo"


def test_text_in_no_section_is_shown_with_a_caution(visit: Open) -> None:
    with visit() as on:
        on.page.get_by_role("radio", name="微调前").check()
        on.ask("胃疼怎么办？")
        on.answered()
        expect(on.page.locator(".answer .card")).to_have_text(BASE)
        expect(on.page.locator(".notice")).to_contain_text("三个部分")


def test_nothing_is_sent_before_consent(visit: Open) -> None:
    with visit(consent=False) as on:
        on.ask("胃疼怎么办？")
        on.page.get_by_role("button", name="暂不使用").click()
        assert on.asked == [] and on.page.input_value("#question") == "胃疼怎么办？"
        on.page.press("#question", "Enter")
        on.page.get_by_role("button", name="我已了解并同意").click()
        on.answered()
        on.ask("那饮食呢？")
        on.answered()
        assert len(on.asked) == 2


@pytest.mark.parametrize("by", ["button", "escape"])
def test_stop_keeps_the_text_and_frees_the_model(visit: Open, by: str) -> None:
    with visit(FakeEngine(pause=0.03)) as on:
        on.ask("胃疼怎么办？")
        expect(on.page.locator(".answer")).to_contain_text("上腹隐痛")
        on.page.click("#stop") if by == "button" else on.page.keyboard.press("Escape")
        expect(on.page.locator(".notice")).to_contain_text("已停止")
        expect(on.page.locator(".answer")).to_contain_text("上腹隐痛")
        expect(on.page.locator("#send")).to_be_visible()
        until(lambda: on.engine.running == 0 and on.server.gate.running == 0)


def test_retry_asks_again_otherwise_and_replaces_the_answer(visit: Open) -> None:
    with visit() as on:
        on.ask("胃疼怎么办？")
        on.answered()
        on.page.get_by_role("button", name="重新回答").click()
        on.answered()
        expect(on.page.locator(".turn")).to_have_count(1)
        assert [asked["temperature"] for asked in on.asked] == [0, 0.7]
        assert len(on.asked[1]["messages"]) == 1


def test_edit_and_resend_drops_the_old_answer_and_keeps_earlier_turns(visit: Open) -> None:
    with visit() as on:
        for question in ("胃疼怎么办？", "要做胃静吗？"):
            on.ask(question)
            on.answered()
        on.page.get_by_role("button", name="修改").click()
        on.page.get_by_label("修改问题").fill("要做胃镜吗？")
        on.page.get_by_role("button", name="重新发送").click()
        on.answered()
        assert [turn["content"] for turn in on.asked[2]["messages"]] == ["胃疼怎么办？", TUNED, "要做胃镜吗？"]
        expect(on.page.locator(".turn")).to_have_count(2)


def test_history_survives_a_reload_and_clear_removes_it(visit: Open) -> None:
    with visit() as on:
        on.ask("胃疼怎么办？")
        on.answered()
        on.page.get_by_role("button", name="新对话").click()
        expect(on.page.locator("#welcome")).to_be_visible()
        on.page.reload()
        on.page.locator("#chats button").click()
        expect(on.page.locator(".card h3")).to_have_count(3)
        on.page.locator("#clear").click()
        on.page.locator("#clear").click()
        expect(on.page.locator("#chats li")).to_have_count(0)
        assert on.page.evaluate("localStorage.getItem('xinglin.chats')") is None


def test_opening_another_chat_stops_the_answer_and_keeps_it_where_it_belongs(visit: Open) -> None:
    with visit(FakeEngine(pause=0.02)) as on:
        on.ask("胃疼怎么办？")
        expect(on.page.locator(".answer")).to_contain_text("上腹隐痛")
        on.page.get_by_role("button", name="新对话").click()
        until(lambda: on.server.gate.running == 0)
        expect(on.page.locator("#welcome")).to_be_visible()
        expect(on.page.locator("#chats li")).to_have_count(1)
        on.page.locator("#chats button").click()
        expect(on.page.locator(".notice")).to_contain_text("已停止")


def test_a_page_closed_in_mid_answer_keeps_the_question(visit: Open) -> None:
    with visit(FakeEngine(pause=0.02)) as on:
        on.ask("胃疼怎么办？")
        expect(on.page.locator(".answer")).to_contain_text("上腹隐痛")
        on.page.reload()
        on.page.locator("#chats button").click()
        expect(on.page.locator(".asked p")).to_have_text("胃疼怎么办？")
        expect(on.page.locator(".notice")).to_contain_text("已停止")


def test_enter_does_not_send_while_an_input_method_composes(visit: Open) -> None:
    with visit() as on:
        area = on.page.locator("#question")
        area.fill("wei teng")
        for event in ({"isComposing": True}, {"keyCode": 229}):
            area.dispatch_event("keydown", {"key": "Enter", "bubbles": True, **event})
        area.dispatch_event("compositionstart")
        on.page.keyboard.press("Enter")
        area.dispatch_event("compositionend")
        on.page.keyboard.press("Shift+Enter")
        time.sleep(0.2)
        assert on.asked == []
        area.fill("胃疼怎么办？")
        area.press("Enter")
        on.answered()
        assert len(on.asked) == 1


def test_personal_data_is_masked_and_the_reader_sees_what_the_model_reads(visit: Open) -> None:
    with visit() as on:
        on.ask("我叫王小明，电话13812345678，血压150/95，胃疼")
        on.answered()
        assert "王小明" not in json.dumps(on.engine.asked, ensure_ascii=False)
        expect(on.page.locator(".asked p")).to_have_text("我叫[姓名1]，电话[手机号1]，血压150/95，胃疼")
        expect(on.page.locator(".asked mark")).to_have_count(2)
        expect(on.page.locator(".asked small")).to_contain_text("已隐去：姓名、手机号")
        assert "王小明" not in on.page.evaluate("localStorage.getItem('xinglin.chats')")
        on.ask("我老婆叫李小红，她也胃疼")
        on.answered()
        expect(on.page.locator(".asked p").last).to_have_text("我老婆叫[姓名2]，她也胃疼")
        on.page.evaluate("change('mask', false)")
        on.ask("我叫王小明，胃疼")
        on.answered()
        assert "王小明" in json.dumps(on.engine.asked[-1], ensure_ascii=False)


def test_what_is_masked_after_an_unanswered_question_stands_in_its_own_turn(visit: Open) -> None:
    with visit() as on:
        on.page.route("**/v1/chat/completions", lambda route: route.abort())
        on.ask("我叫王小明，胃疼")
        expect(on.page.locator(".answer .notice.bad")).to_be_visible()
        on.page.unroute("**/v1/chat/completions")
        on.ask("电话13812345678，\n\n还头晕")
        on.answered()
        expect(on.page.locator(".asked p").last).to_have_text("电话[手机号1]，\n\n还头晕", use_inner_text=True)


def test_clear_during_an_answer_leaves_nothing(visit: Open) -> None:
    with visit(FakeEngine(pause=0.02)) as on:
        on.ask("胃疼怎么办？")
        expect(on.page.locator(".answer")).to_contain_text("上腹隐痛")
        on.page.locator("#clear").click()
        on.page.locator("#clear").click()
        until(lambda: on.server.gate.running == 0)
        expect(on.page.locator("#stop")).to_be_hidden()
        expect(on.page.locator("#chats li")).to_have_count(0)
        assert on.page.evaluate("localStorage.getItem('xinglin.chats')") is None


def test_two_tabs_share_one_history_and_clear_empties_both(visit: Open) -> None:
    with visit() as on:
        other = on.page.context.new_page()
        other.goto(on.url)
        on.ask("胃疼怎么办？")
        on.answered()
        expect(other.locator("#chats")).to_contain_text("胃疼怎么办？")
        other.fill("#question", "头晕怎么办？")
        other.press("#question", "Enter")
        expect(other.locator(".card")).to_have_count(3)
        expect(on.page.locator("#chats li")).to_have_count(2)
        other.locator("#clear").click()
        other.locator("#clear").click()
        expect(on.page.locator("#chats li")).to_have_count(0)
        expect(on.page.locator("#welcome")).to_be_visible()
        on.ask("咳嗽怎么办？")
        on.answered()
        expect(other.locator("#chats")).to_have_text(re.compile("^咳嗽怎么办？"))


BROKEN = [
    ("chats", '[{"id": "1"'),
    ("chats", '[null, 3, {"id": "1", "title": "x", "turns": [{"question": "x", "alerts": [], "answers": [{"text": 1}]}]}]'),
    ("settings", '"dark"'),
    ("mode", "{}"),
]


def test_a_broken_store_leaves_a_page_that_works(visit: Open) -> None:
    with visit() as on:
        for name, value in BROKEN:
            on.page.evaluate("([name, value]) => localStorage.setItem('xinglin.' + name, value)", [name, value])
        on.page.reload()
        on.ask("胃疼怎么办？")
        on.answered()
        expect(on.page.locator(".card")).to_have_count(3)
        expect(on.page.locator("#chats li")).to_have_count(1)


def test_a_full_store_loses_no_answer_and_is_told(visit: Open) -> None:
    with visit() as on:
        on.page.evaluate("() => { Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError') } }")
        for question in ("胃疼怎么办？", "那饮食呢？"):
            on.ask(question)
            on.answered()
        expect(on.page.locator(".card")).to_have_count(6)
        expect(on.page.locator("#chats li")).to_have_count(1)
        expect(on.page.locator("#full")).to_be_visible()


def test_escape_stops_nothing_while_it_closes_settings_or_ends_a_composition(visit: Open) -> None:
    with visit(FakeEngine(pause=0.05)) as on:
        on.ask("胃疼怎么办？")
        on.page.get_by_role("button", name="设置").click()
        on.page.keyboard.press("Escape")
        expect(on.page.locator("#settings")).to_be_hidden()
        for event in ({"isComposing": True}, {"keyCode": 229}):
            on.page.locator("#question").dispatch_event("keydown", {"key": "Escape", "bubbles": True, **event})
        expect(on.page.locator(".answer")).to_contain_text("进食后")
        expect(on.page.locator("#stop")).to_be_visible()
        on.page.keyboard.press("Escape")
        expect(on.page.locator(".answer .notice")).to_contain_text("已停止")
        expect(on.page.locator("#status")).to_contain_text("已停止")


# ---------------------------------------------------------------- red flags


def test_the_alert_stands_before_the_first_word_and_the_answer_is_folded(visit: Open) -> None:
    with visit(FakeEngine(pause=0.3)) as on:
        on.ask(CHEST)
        alert = on.page.get_by_role("alert")
        expect(alert).to_contain_text("请立即拨打 120")
        assert on.page.locator(".card p").all_text_contents() in ([], ["正在思考…"])
        expect(alert.locator("a")).to_have_attribute("href", "tel:120")
        assert alert.locator("a").bounding_box()["height"] >= 48
        expect(on.page.locator("summary")).to_be_visible()
        expect(on.page.locator(".answer .card").first).to_be_hidden()
        on.page.click("#stop")
        expect(alert).to_be_visible()


def test_the_alert_stays_in_later_turns_and_goes_with_a_new_chat(visit: Open) -> None:
    with visit() as on:
        on.ask(CHEST)
        on.answered()
        on.ask("谢谢，好多了")
        on.answered()
        expect(on.page.get_by_role("alert")).to_contain_text("120")
        assert CHEST in json.dumps(on.asked[1], ensure_ascii=False)
        assert "立即拨打120" not in on.asked[1]["messages"][1]["content"]
        on.page.get_by_role("button", name="新对话").click()
        expect(on.page.locator("#alert")).to_be_hidden()


def test_the_alert_is_shown_when_the_model_fails(visit: Open) -> None:
    with visit(FakeEngine(breaks_at="一")) as on:
        on.ask(CHEST)
        expect(on.page.locator(".notice.bad")).to_contain_text("出错了")
        expect(on.page.locator("#alert")).to_contain_text("请立即拨打 120")


JUMP = "不想活了，想从楼上跳下去"


def test_a_red_flag_is_shown_while_the_model_loads(visit: Open) -> None:
    with visit() as on:
        backend, on.server.backend = on.server.backend, None
        on.page.reload()
        expect(on.page.locator("#down")).to_contain_text("模型还在加载")
        on.ask(CHEST)
        expect(on.page.locator("#alert")).to_contain_text("请立即拨打 120")
        expect(on.page.locator(".asked p")).to_have_text(CHEST)
        expect(on.page.locator(".answer .notice.bad")).to_contain_text("模型还在加载")
        on.server.backend = backend
        expect(on.page.locator("#down")).to_be_hidden()
        on.page.get_by_role("button", name="重新回答").click()
        on.answered()
        expect(on.page.locator(".card")).to_have_count(3)


@pytest.mark.parametrize("hangs", [False, True])
def test_a_red_flag_is_shown_when_the_models_cannot_be_listed(visit: Open, hangs: bool) -> None:
    """An upstream that is down, and one that takes the connection and never answers."""
    with visit() as on:
        on.page.route("**/v1/models", lambda route: None if hangs else route.fulfill(status=503, body=DOWN))
        on.page.reload()
        on.ask(CHEST)
        expect(on.page.locator("#alert")).to_contain_text("请立即拨打 120")
        expect(on.page.locator("#down")).to_contain_text("没有响应")
        expect(on.page.locator("#down a")).to_have_attribute("href", "tel:120")
        assert on.asked[0]["model"] == "demo"


def test_text_that_reached_nobody_is_shown_with_the_number_to_call(visit: Open) -> None:
    with visit() as on:
        on.page.route("**/v1/**", lambda route: route.abort())
        on.page.reload()
        on.ask(CHEST)
        expect(on.page.locator(".asked p")).to_have_text(CHEST)
        expect(on.page.locator(".answer .notice.bad a")).to_have_attribute("href", "tel:120")


def test_what_is_sent_during_an_answer_stops_it_and_is_answered(visit: Open) -> None:
    with visit(FakeEngine(pause=0.03)) as on:
        on.ask("胃疼怎么办？")
        expect(on.page.locator(".answer")).to_contain_text("上腹隐痛")
        on.page.fill("#question", CHEST)
        expect(on.page.locator("#send")).to_be_visible()
        on.page.press("#question", "Enter")
        expect(on.page.locator("#alert")).to_contain_text("请立即拨打 120")
        expect(on.page.locator(".turn").first.locator(".notice")).to_contain_text("已停止")
        on.ask("他还出冷汗")
        expect(on.page.locator(".turn")).to_have_count(3)
        expect(on.page.locator("#alert")).to_be_visible()
        assert len(on.asked) == 3 and CHEST in json.dumps(on.asked[2], ensure_ascii=False)
        on.page.click("#stop")
        until(lambda: on.engine.running == 0)


def test_a_second_emergency_stands_above_the_first_with_both_numbers(visit: Open) -> None:
    with visit() as on:
        for question in (CHEST, JUMP, "谢谢"):
            on.ask(question)
            on.answered()
        alert = on.page.locator("#alert")
        assert [link.get_attribute("href") for link in alert.locator("a").all()] == ["tel:120", "tel:12356"]
        first, second = alert.locator("p").all_text_contents()
        assert "12356" in first and "心" in second
        with on.page.expect_download() as download:
            on.page.get_by_role("button", name="导出 Markdown").click()
        text = Path(download.value.path()).read_text(encoding="utf-8")
        assert first in text and second in text


def test_a_retry_keeps_the_alert_until_the_answer_brings_its_own(visit: Open) -> None:
    with visit() as on:
        on.ask(CHEST)
        on.answered()
        on.page.route("**/v1/chat/completions", lambda route: route.abort())
        on.page.get_by_role("button", name="重新回答").click()
        expect(on.page.locator(".notice.bad")).to_contain_text("连接中断")
        expect(on.page.locator("#alert")).to_contain_text("请立即拨打 120")
        on.page.unroute("**/v1/chat/completions")
        on.page.get_by_role("button", name="修改").click()
        on.page.get_by_label("修改问题").fill("胃疼怎么办？")
        on.page.get_by_role("button", name="重新发送").click()
        on.answered()
        expect(on.page.locator("#alert")).to_be_hidden()


@pytest.mark.parametrize(("width", "height"), [(740, 340), (320, 568), (390, 844)])
def test_the_numbers_to_call_are_never_cut_off(visit: Open, width: int, height: int) -> None:
    with visit(size="phone") as on:
        on.page.set_viewport_size({"width": width, "height": height})
        for question in (CHEST, JUMP):
            on.ask(question)
            on.answered()
        panel = on.page.locator("#alert").bounding_box()
        for place in (0, 900):
            on.page.locator("#alert").evaluate("(panel, place) => panel.scrollTo(0, place)", place)
            for link in on.page.locator("#alert .calls a").all():
                box = link.bounding_box()
                assert box["y"] >= panel["y"] - 1 and box["y"] + box["height"] <= panel["y"] + panel["height"]
        expect(on.page.locator("#question")).to_be_in_viewport(ratio=1)


def test_the_consent_leads_to_120(visit: Open) -> None:
    with visit(consent=False) as on:
        on.ask(CHEST)
        expect(on.page.locator("#consent a")).to_have_attribute("href", "tel:120")


# ---------------------------------------------------------------- two answers, ratings


def test_side_by_side_asks_both_and_each_keeps_its_own_history(visit: Open) -> None:
    with visit() as on:
        on.page.get_by_role("radio", name="并排对比").check()
        for question in ("胃疼怎么办？", "那饮食呢？"):
            on.ask(question)
            on.answered()
        by_model = {asked["model"]: asked["messages"][1]["content"] for asked in on.asked[2:]}
        assert by_model == {"demo": TUNED, "Qwen2.5-fake": BASE}
        places = "[...document.querySelectorAll('.turn:last-child .answer')].map((each) => each.getBoundingClientRect())"
        left, right = on.page.evaluate(places + ".map((box) => [box.x, box.y])")
        assert left[0] < right[0] and left[1] == right[1]


def test_a_blind_vote_names_the_models_only_afterwards(visit: Open) -> None:
    with visit() as on:
        on.page.get_by_role("radio", name="盲评").check()
        on.ask("胃疼怎么办？")
        on.answered()
        names = on.page.locator(".answer .who")
        assert "微调" not in "".join(names.all_text_contents())
        models = {asked["model"] for asked in on.asked}
        assert not any(f'{model}"' in trace for model in models for trace in on.page.locator(".trace").all_text_contents())
        on.page.get_by_role("button", name="甲更好").click()
        expect(names.first).to_contain_text("微调")
        expect(on.page.locator("#status")).to_contain_text("已记录")
        (vote,) = on.ratings()
        first = on.asked[0]["model"]
        assert (vote["vote"], vote["model"], vote["answer"]) == ("first", first, TUNED if first == "demo" else BASE)
        assert vote["other_answer"] == (BASE if first == "demo" else TUNED)


def test_a_rating_with_reasons_is_kept_and_can_be_taken_back(visit: Open) -> None:
    with visit() as on:
        on.ask("胃疼怎么办？")
        on.answered()
        on.page.get_by_role("button", name="没用").click()
        on.page.get_by_label("太笼统").check()
        on.page.get_by_label("补充说明").fill("没说多久复查")
        on.page.get_by_role("button", name="提交").click()
        expect(on.page.get_by_role("button", name="提交")).to_have_count(0)
        until(lambda: [row["reasons"] for row in on.ratings()] == [["太笼统"]])
        (row,) = on.ratings()
        assert (row["vote"], row["reasons"], row["answer"], row["model"]) == ("down", ["太笼统"], TUNED, "demo")
        assert row["comment"] == "没说多久复查"
        on.page.get_by_role("button", name="没用").click()
        expect(on.page.get_by_role("button", name="没用")).to_have_attribute("aria-pressed", "false")
        until(lambda: on.ratings() == [])


# ---------------------------------------------------------------- export, print, settings


def test_export_carries_label_disclaimer_and_metadata(visit: Open) -> None:
    with visit() as on:
        on.ask("胃疼怎么办？")
        on.answered()
        with on.page.expect_download() as download:
            on.page.get_by_role("button", name="导出 Markdown").click()
        text = Path(download.value.path()).read_text(encoding="utf-8")
        metadata = json.loads(text.split("---")[1].strip().removeprefix("AIGC: "))
        assert metadata[0]["Label"] == "1" and metadata[0]["ContentProducer"].startswith("Xinglin")
        assert schema.AI_LABEL in text and schema.DISCLAIMER in text and TUNED in text and "胃疼怎么办？" in text


def test_a_stopped_answer_is_exported_and_printed_as_incomplete_with_metadata(visit: Open) -> None:
    with visit(FakeEngine(pause=0.03)) as on:
        on.ask("胃疼怎么办？")
        expect(on.page.locator(".answer")).to_contain_text("上腹隐痛")
        on.page.click("#stop")
        expect(on.page.locator(".notice")).to_contain_text("已停止")
        with on.page.expect_download() as download:
            on.page.get_by_role("button", name="导出 Markdown").click()
        text = Path(download.value.path()).read_text(encoding="utf-8")
        (metadata,) = json.loads(text.split("---")[1].strip().removeprefix("AIGC: "))
        assert metadata["Label"] == "1" and metadata["ProduceID"].startswith("chatcmpl-")
        assert "，不完整）" in text and "已停止" in text
        on.page.emulate_media(media="print")
        expect(on.page.locator(".trace")).to_contain_text(metadata["ProduceID"])
        expect(on.page.locator(".notice")).to_contain_text("不完整")


def test_cautions_are_copied_and_exported(visit: Open) -> None:
    points = (POINTS[0], POINTS[1], (POINTS[2][0], "对乙酰氨基酚一次3g，一日四次。"))
    with visit(FakeEngine(answer=lambda messages, tuned: schema.Answer.from_points(points).render())) as on:
        on.ask("发烧怎么办？")
        on.answered()
        caution = on.page.locator(".card .notice").text_content()
        assert caution and "3g" in caution
        with on.page.expect_download() as download:
            on.page.get_by_role("button", name="导出 Markdown").click()
        assert f"> 注意：{caution}" in Path(download.value.path()).read_text(encoding="utf-8")


def test_print_opens_what_is_folded_and_folds_it_again(visit: Open) -> None:
    with visit() as on:
        on.ask(CHEST)
        on.answered()
        expect(on.page.locator("summary")).to_contain_text("已写完")
        on.page.evaluate("dispatchEvent(new Event('beforeprint'))")
        expect(on.page.locator("details")).to_have_attribute("open", "")
        on.page.emulate_media(media="print")
        expect(on.page.locator("#stamp")).to_contain_text("打印于")
        expect(on.page.locator(".asked .print")).to_contain_text("问")
        on.page.evaluate("dispatchEvent(new Event('afterprint'))")
        expect(on.page.locator("details[open]")).to_have_count(0)


def test_print_shows_answer_label_disclaimer_and_metadata_only(visit: Open) -> None:
    with visit() as on:
        on.ask("胃疼怎么办？")
        on.answered()
        on.page.emulate_media(media="print")
        for shown in (".card >> nth=2", ".answer .label", "footer .disclaimer", ".trace"):
            expect(on.page.locator(shown)).to_be_visible()
        for hidden in ("#form", "#side", "header nav", ".answer .tools"):
            expect(on.page.locator(hidden).first).to_be_hidden()


def test_copy_takes_the_label_along(visit: Open) -> None:
    with visit() as on:
        on.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        on.ask("胃疼怎么办？")
        on.answered()
        on.page.locator(".answer").get_by_role("button", name="复制").click()
        expect(on.page.locator(".answer").get_by_role("button", name="已复制")).to_be_visible()
        assert on.page.evaluate("navigator.clipboard.readText()") == f"{TUNED}\n\n（{schema.AI_LABEL}）{schema.DISCLAIMER}"


# Texts, labels and the title with Chinese in them, outside of what is marked as Chinese (model text, alerts).
CHINESE_LEFT = """() => {
    const read = (each) => [...each.childNodes].filter((node) => node.nodeType === 3).map((node) => node.data);
    const own = [...document.querySelectorAll('body, body *')].filter((each) => !each.closest('[lang=zh-CN], [hidden], script'));
    const found = own.flatMap((each) => [...read(each), each.ariaLabel, each.title, each.placeholder]);
    return [document.title, ...found].filter((text) => /[一-龥]/.test(text));
}"""


def test_english_changes_the_frame_and_not_the_answer(visit: Open) -> None:
    with visit() as on:
        on.page.get_by_role("button", name="设置").click()
        on.page.locator("#set-language").select_option("en")
        on.page.get_by_role("button", name="Done").click()
        on.ask("胃疼怎么办？")
        on.answered()
        expect(on.page.get_by_role("button", name="Retry")).to_be_visible()
        assert on.page.locator("html").get_attribute("lang") == "en"
        assert on.page.locator(".card h3").all_text_contents() == list(schema.TITLES)
        on.page.get_by_role("button", name="Not helpful").click()
        on.page.get_by_label("Too general").check()
        left = on.page.evaluate(CHINESE_LEFT)
        assert set(left) <= {"胃疼怎么办？", "中文"}, left
        on.page.goto(on.url + "/runs")
        expect(on.page).to_have_title("Training runs · Xinglin")
        assert on.page.evaluate(CHINESE_LEFT) == []


def test_a_server_with_a_key_says_so_and_asks_for_it(visit: Open) -> None:
    with visit(key="secret") as on:
        expect(on.page.locator("#key-reason")).to_contain_text("需要访问密钥")
        expect(on.page.locator("#set-key")).to_be_focused()
        on.page.keyboard.type("wrong")
        on.page.get_by_role("button", name="完成").click()
        expect(on.page.locator("#key-reason")).to_contain_text("密钥不对")
        on.page.keyboard.press("Escape")
        on.ask(CHEST)
        expect(on.page.locator("#alert")).to_contain_text("请立即拨打 120")
        expect(on.page.locator(".answer .notice.bad")).to_contain_text("密钥不对")
        on.page.get_by_role("button", name="设置").click()
        on.page.fill("#set-key", "secret")
        on.page.get_by_role("button", name="完成").click()
        on.page.get_by_role("button", name="重新回答").click()
        on.answered()
        expect(on.page.locator(".card h3")).to_have_count(3)


def test_a_long_chat_drops_its_beginning_and_says_so(visit: Open) -> None:
    with visit(FakeEngine(context=700)) as on:
        for question in ("胃疼怎么办？", "那饮食呢？" * 20, "还要吃药吗？" * 20):
            on.ask(question)
            on.answered()
        expect(on.page.locator(".turn").last.locator(".notice")).to_contain_text("较早的内容")
        expect(on.page.locator(".turn").last.locator(".card h3")).to_have_count(3)


def test_runs_are_drawn_and_grow_while_one_looks(visit: Open, tmp_path: Path) -> None:
    log = tmp_path / "mine" / "4-train" / "log.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text(
        "".join(json.dumps({"step": n, "epoch": n / 9, "loss": 3 / n, "learning_rate": 1e-4}) + "\n" for n in range(1, 9))
    )
    with visit(path="/runs") as on:
        expect(on.page.locator("#facts")).to_contain_text("8")
        before = on.page.locator("#loss polyline.train").get_attribute("points")
        with log.open("a") as file:
            file.write(json.dumps({"step": 9, "epoch": 1, "eval_loss": 0.41}) + "\n" + '{"step": 10, "lo')
        expect(on.page.locator("#facts")).to_contain_text("0.41", timeout=5000)
        assert on.page.locator("#loss polyline.train").get_attribute("points") != before
        on.page.set_viewport_size({"width": 390, "height": 844})
        expect(on.page.locator("#loss svg")).to_have_attribute("viewBox", re.compile(r"^0 0 3\d\d "))
        column = on.page.locator("th").last.bounding_box()
        assert column and column["x"] + column["width"] <= 390


# ---------------------------------------------------------------- hostile text

MARKUP = (
    "<script>PWN</script>",
    "<img src=x onerror=PWN>",
    "<svg onload=PWN>",
    "<iframe src='javascript:PWN'></iframe>",
    "<body onload=PWN>",
    "<a href='javascript:PWN'>x</a>",
    "<details open ontoggle=PWN>",
    "<video><source onerror=PWN>",
    "<math><mi xlink:href='javascript:PWN'>",
    "<object data='javascript:PWN'>",
    "<embed src='https://evil.example/x.swf'>",
    "<link rel=stylesheet href='https://evil.example/x.css'>",
    "<style>@import 'https://evil.example/x.css';*{display:none}</style>",
    "<meta http-equiv=refresh content='0;url=https://evil.example'>",
    "<base href='https://evil.example/'>",
    "<form action='https://evil.example'><input autofocus onfocus=PWN>",
    "<img src='https://evil.example/a.png'>",
    "![x](https://evil.example/a.png)",
    "[x](javascript:PWN)",
    "</textarea><script>PWN</script>",
    "</script><script>PWN</script>",
    "<!--<img src=x onerror=PWN>-->",
    "<template><script>PWN</script></template>",
    "<noscript><p title='</noscript><img src=x onerror=PWN>'>",
    "<xmp><img src=x onerror=PWN></xmp>",
    "<marquee onstart=PWN>",
    "<audio src=x onerror=PWN>",
    "<input onfocus=PWN autofocus>",
    "<select onfocus=PWN autofocus>",
    "<keygen autofocus onfocus=PWN>",
)
PAYLOADS = [
    *(text.replace("PWN", "window.__pwned=1") for text in MARKUP),
    *(f"1. 要点：{text.replace('PWN', 'window.__pwned=1')}" for text in MARKUP),
]


def test_sixty_hostile_texts_run_nothing_and_load_nothing(visit: Open) -> None:
    """As question, as model text in every place of an answer, and out of the stored history."""
    assert len(PAYLOADS) == 60

    quarters = [PAYLOADS[start::4] for start in range(4)]

    def answer(messages: Sequence[schema.Message], tuned: bool) -> str:
        quarter = quarters[len(messages) // 2 - 1]
        bodies = ["\n".join(quarter[start::3]) for start in range(3)]
        return quarter[0] + "\n" + schema.Answer(dict(zip(schema.TITLES, bodies, strict=True))).render()

    with visit(FakeEngine(answer=answer)) as on:
        for quarter in quarters:
            on.ask("\n".join(quarter))
            on.answered()
        on.page.reload()
        on.page.locator("#chats button").click()
        expect(on.page.locator(".card")).to_have_count(16)
        text = "".join(on.page.locator(".card").all_text_contents())
        assert all(payload in text for payload in PAYLOADS)
        assert on.page.evaluate("window.__pwned") is None
        strange = (
            "script, img, iframe, object, embed, link, style, meta, base, video, audio, math, a, [onerror], [onload], [onfocus]"
        )
        assert on.page.locator("#turns").locator(strange).count() == 0


# ---------------------------------------------------------------- accessibility

CHECK = """async (rules) => (await axe.run(document, {runOnly: rules})).violations.map(
    (found) => `${found.id}: ${found.nodes.map((node) => node.html.slice(0, 120)).join(' | ')}`)"""
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


def findings(page: Page) -> list[str]:
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found: list[str] = page.evaluate(CHECK, RULES)
    return found


@pytest.mark.skipif(not AXE.is_file() and "CI" not in os.environ, reason="needs axe-core: npm install --prefix tests/serve")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_no_accessibility_findings_in_any_state(visit: Open, size: str, scheme: str) -> None:
    with visit(size=size, scheme=scheme, consent=False) as on:
        states = {"empty": findings(on.page)}
        on.ask("胃疼怎么办？")
        states["consent"] = findings(on.page)
        on.page.get_by_role("button", name="我已了解并同意").click()
        on.answered()
        on.page.get_by_role("button", name="没用").click()
        states["answer"] = findings(on.page)
        on.page.get_by_role("radio", name="盲评").check()
        on.ask(CHEST)
        on.answered()
        states["emergency"] = findings(on.page)
        on.page.get_by_role("button", name="设置").click()
        states["settings"] = findings(on.page)
        assert not any(states.values()), states


@pytest.mark.parametrize("width", [320, 390, 640])
def test_a_narrow_window_never_scrolls_sideways(visit: Open, width: int) -> None:
    with visit(size="phone") as on:
        on.page.set_viewport_size({"width": width, "height": 700})
        on.page.get_by_role("radio", name="并排对比").check()
        on.ask(CHEST + "x" * 200)
        on.answered()
        assert on.page.evaluate("document.documentElement.scrollWidth") <= width
        expect(on.page.locator("#alert a")).to_be_in_viewport()
        expect(on.page.locator("#question")).to_be_in_viewport()


def test_the_keyboard_alone_is_enough(visit: Open) -> None:
    with visit() as on:
        on.page.keyboard.press("Tab")
        expect(on.page.get_by_role("link", name="跳到输入框")).to_be_focused()
        on.page.keyboard.press("Enter")
        on.page.keyboard.type("胃疼怎么办？")
        on.page.keyboard.press("Enter")
        on.answered()
        button = on.page.get_by_role("button", name="有用")
        for _ in range(20):
            on.page.keyboard.press("Shift+Tab")
            if button.evaluate("element => element === document.activeElement"):
                break
        on.page.keyboard.press("Enter")
        expect(button).to_have_attribute("aria-pressed", "true")
