// The chat page: a client of /v1/chat/completions. Model and user text becomes text nodes only, never markup.
"use strict";

const known = JSON.parse($("known").textContent);
let models = [];
let mode = "tuned";
let chats = []; // the newest first
let agreed = stored("consent", 0);
let chat = fresh();
const running = new Set(); // AbortControllers of the questions being answered, the last one asked last
let ended = Promise.resolve(); // when they are all answered or stopped
const typed = new WeakMap(); // turn -> its question before it was masked; in this page only, never stored
const opened = new WeakSet(); // folded answers that the reader has opened

function fresh() {
  return { id: crypto.getRandomValues(new Uint32Array(2)).join("-"), title: "", turns: [] };
}

// ------------------------------------------------------------ small helpers

function h(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null && child !== false));
  return element;
}

function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", "#i-" + name);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

const tool = (name, text, onclick, more) => h("button", { type: "button", onclick, ...more }, icon(name), h("span", {}, text));
const announce = (text) => ($("status").textContent = text);
const notice = (text, bad, ...more) => h("p", { class: bad ? "notice bad" : "notice", role: bad ? "alert" : null }, icon("alert"), h("span", {}, text, ...more));
const dial = (number, text) => h("a", { href: "tel:" + number }, text);
// For text that did not reach the red-flag rules.
const unread = () => [t("紧急情况请直接拨打 ", " In an emergency call "), dial("120", "120"), t("。", ".")];

// 5月3日 14:05
const when = (time) => new Date(time).toLocaleString(t("zh-CN", "en-GB"), { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" });

async function copy(text, button) {
  if (navigator.clipboard) await navigator.clipboard.writeText(text);
  else {
    const area = h("textarea", { class: "unseen" }); // no clipboard API on http:// addresses other than localhost
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  button.lastChild.textContent = t("已复制", "Copied");
  setTimeout(() => (button.lastChild.textContent = t("复制", "Copy")), 1500);
}

// ------------------------------------------------------------ asking

const NAMES = { tuned: ["微调后", "Tuned"], base: ["微调前", "Base"], both: ["并排对比", "Both"], blind: ["盲评", "Blind"] };
// Before the list of models is there, the tuned one by the name it always has: the server reads the red flags all the same.
const modelOf = (tuned) => models.find((model) => model.xinglin.tuned === tuned) || models[0] || { id: known.name, xinglin: { tuned: true } };

function sides() {
  if (!models.length) return [modelOf(true)];
  if (mode === "both") return [modelOf(false), modelOf(true)];
  if (mode === "blind") return Math.random() < 0.5 ? [modelOf(false), modelOf(true)] : [modelOf(true), modelOf(false)];
  return [modelOf(mode === "tuned")];
}

// While personal data are masked the server gets what was typed, so that one person keeps one number in the whole chat.
const sent = (turn) => (settings.mask && typed.get(turn)) || turn.question;

function historyFor(model, turns) {
  return turns.flatMap((turn) => {
    const own = turn.answers.find((answer) => answer.model === model) || turn.answers[0];
    return [{ role: "user", content: sent(turn) }, ...(own && own.text ? [{ role: "assistant", content: own.text }] : [])];
  });
}

// What is sent while an answer is being written stops that answer: an emergency must not wait for it.
function ask(text, more = {}) {
  if (!text.trim()) return;
  stop();
  const own = chat, controller = new AbortController(); // another chat may be opened while this one is answered
  running.add(controller);
  busy();
  const next = () => answerTo(text.trim(), own, controller, more).finally(() => { running.delete(controller); busy(); });
  ended = ended.then(next, next);
}

async function answerTo(question, own, controller, { variety, alerts }) {
  if (!(await consented())) return giveBack(question);
  await ready(); // without a list of models the question is sent all the same: the red flags are read before anything else
  const answers = sides().map((model) => ({ model: model.id, tuned: model.xinglin.tuned, text: "", sections: {} }));
  const turn = { question, time: Date.now(), alerts: alerts || [], answers, blind: mode === "blind" && answers.length > 1 };
  const earlier = own.turns.slice();
  own.turns.push(turn);
  keep(own);
  draw();
  scroll();
  announce(t("正在回答", "Answering"));
  await Promise.all(turn.answers.map((answer) => write(answer, turn, earlier, variety, controller.signal)));
  keep(own);
  draw();
  if (refused() && !standing().length) askKey();
  const stopped = turn.answers.some((answer) => answer.stopped);
  if (turn.answers.every((answer) => answer.finish)) announce(t("回答完毕", "The answer is complete"));
  else announce(stopped ? t("已停止，回答不完整。", "Stopped; the answer is incomplete.") : t("没有得到完整的回答。", "There is no complete answer."));
}

function giveBack(question) {
  $("question").value ||= question;
  grow();
}

async function write(answer, turn, earlier, variety, signal) {
  answer.writing = true;
  paint(answer);
  try {
    await stream(answer, turn, earlier, variety, signal);
  } catch (error) {
    if (error.code === "invalid_api_key") {
      models = [];
      down(error);
    }
    if (error.name === "AbortError") answer.stopped = true;
    else answer.error = said(error) ? explain(error) : t("连接中断，请检查网络或服务后重试。", "The connection broke; check the server and try again.");
    answer.unread = !answer.stopped && !answer.id && !turn.alerts.length;
  }
  answer.writing = false;
  answer.queued = 0;
  paint(answer);
}

async function stream(answer, turn, earlier, variety, signal) {
  const body = {
    model: answer.model, stream: true, max_tokens: Number(settings.length), temperature: variety ?? Number(settings.variety),
    messages: [...historyFor(answer.model, earlier), { role: "user", content: sent(turn) }], xinglin: { sections: true, mask: settings.mask },
  };
  turn.number = body.messages.filter(({ role }, index) => role === "user" && body.messages[index - 1]?.role !== "user").length - 1;
  if (body.temperature) body.seed = Math.floor(Math.random() * 2 ** 31);
  const response = await fetch("/v1/chat/completions", { method: "POST", headers: headers(), body: JSON.stringify(body), signal });
  if (!response.ok) {
    const value = await response.json();
    if (value.xinglin) raise(value.xinglin.alerts, answer, turn);
    if (value.error.code === "context_length_exceeded" && earlier.length) {
      answer.trimmed = true;
      return stream(answer, turn, earlier.slice(1), variety, signal);
    }
    throw value.error;
  }
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ; ) {
    const { value, done } = await reader.read();
    if (done) break;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) receive(event, answer, turn);
    paint(answer);
  }
  if (!answer.finish) throw { code: "cut" };
}

function receive(event, answer, turn) {
  if (event.startsWith(": queued")) answer.queued = Number(event.split(" ")[2]) || 1;
  if (!event.startsWith("data: {")) return;
  const value = JSON.parse(event.slice(6));
  if (value.error) throw value.error;
  const more = value.xinglin || {};
  for (const choice of value.choices) {
    // The chunk with the role holds the text of the alerts, which the panel shows; the model's text comes after it.
    if (choice.delta.role) accept(more, answer, turn);
    else if (choice.delta.content) { answer.text += choice.delta.content; answer.queued = 0; }
    if (choice.finish_reason) answer.finish = choice.finish_reason;
  }
  for (const [title, kept, text] of more.patches || []) answer.sections[title] = (answer.sections[title] || "").slice(0, kept) + text;
  answer.id = value.id;
  if (more.aigc) answer.aigc = more.aigc;
  if (more.cautions) Object.assign(answer, { complete: more.complete, cautions: more.cautions });
}

const said = (error) => typeof error.code === "string"; // by the server; the browser's own errors have a number or none

// The first chunk: the alerts of the whole chat, and the question as the model reads it.
function accept(more, answer, turn) {
  if (more.masked) showMasked(more.masked, turn);
  raise(more.alerts || [], answer, turn);
}

// The server counts neighbouring turns of the user, between which there was no answer, as one with empty lines between them.
function showMasked(masked, turn) {
  const before = sent(turn);
  const text = masked.find((entry) => entry.turn === turn.number)?.text;
  const read = text?.split("\n\n").slice(-before.split("\n\n").length).join("\n\n");
  if (!read || read === turn.question) return;
  typed.set(turn, before);
  turn.question = read;
  draw();
}

function explain(error) {
  const texts = {
    queue_full: ["现在排队的人太多，请过一会儿再试。", "Too many requests wait; try again in a moment."],
    model_loading: ["模型还在加载，请等几秒后重试。", "The model is still loading; try again in a few seconds."],
    invalid_api_key: ["访问密钥不对：请在“设置”里填写管理员给您的密钥。", "The access key is missing or wrong: enter it in Settings."],
    context_length_exceeded: ["问题太长，模型读不下：请缩短后再问。", "The question is too long for the model: shorten it."],
    upstream_unavailable: ["模型服务没有响应，请联系管理员。", "The model server does not answer; tell whoever runs it."],
    cut: ["连接中断，回答不完整，请重试。", "The connection broke before the answer was complete."],
    silent: ["服务没有响应，请检查网络，或联系管理员。", "The server does not answer; check the network or tell whoever runs it."],
  };
  const [zh, en] = texts[error.code] || ["出错了，请重试；如果一直这样，请把这行字发给管理员：" + error.message, error.message];
  return t(zh, en);
}

// The newest question goes to the top once; the page then stays where the reader is.
const scroll = () => $("turns").lastElementChild?.scrollIntoView({ block: "start" });

// What is typed during an answer can be sent at once, so both buttons stand there.
function busy() {
  $("stop").hidden = !running.size;
  $("send").hidden = running.size > 0 && !$("question").value.trim();
}

const stop = () => running.forEach((controller) => controller.abort());

async function consented() {
  if (agreed) return true;
  const dialog = $("consent");
  dialog.returnValue = "";
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  if (dialog.returnValue === "yes") store("consent", (agreed = Date.now()));
  return Boolean(agreed);
}

// ------------------------------------------------------------ red flags

const urgent = (alert) => alert.level !== "C";

function raise(alerts, answer, turn) {
  const more = alerts.some((alert) => !turn.alerts.some((known) => known.rule === alert.rule));
  turn.alerts = alerts;
  paintAlert();
  paint(answer);
  if (more) scroll();
}

// The alerts of the whole chat, newest first, each rule once.
function standing() {
  const found = new Map();
  for (const alert of chat.turns.toReversed().flatMap((turn) => turn.alerts)) if (!found.has(alert.rule)) found.set(alert.rule, alert);
  return [...found.values()];
}

function paintAlert() {
  const panel = $("alert");
  const alerts = standing();
  const shown = settings.language + JSON.stringify(alerts);
  if (panel.dataset.shown === shown) return;
  panel.dataset.shown = shown;
  panel.hidden = !alerts.length;
  panel.scrollTop = 0;
  if (!alerts.length) return panel.replaceChildren();
  const level = alerts.map((alert) => alert.level).sort()[0];
  const heads = { A: ["请立即拨打 120", "Call 120 now"], B: ["请立即去急诊", "Go to an emergency department now"], C: ["请当天就医", "See a doctor today"] };
  const lines = [...new Set(alerts.map((alert) => alert.message))].map((text) => h("p", { lang: "zh-CN" }, text));
  panel.className = level === "C" ? "today" : "";
  panel.replaceChildren(h("h2", {}, icon("alert"), t(...heads[level])), ...lines);
  if (level === "C") return;
  // The numbers stand before the text: on a small screen the text is scrolled, the numbers never.
  const calls = [["120", t("拨打 120 急救", "Call 120 (ambulance)")]];
  if (alerts.some((alert) => alert.message.includes("12356"))) calls.push(["12356", t("拨打 12356 心理援助", "Call 12356 (crisis line)")]);
  const links = calls.map(([number, text]) => h("a", { href: "tel:" + number }, icon("phone"), text));
  panel.firstChild.after(h("div", { class: "calls" }, ...links));
  panel.append(h("small", {}, t("这段提示由固定规则给出，规则未经医师审定；没有提示不代表没有危险。", "From fixed rules not yet reviewed by a doctor; no warning does not mean no danger.")));
}

// ------------------------------------------------------------ drawing

let places = new Map(); // answer -> its element

function draw() {
  places = new Map();
  $("welcome").hidden = chat.turns.length > 0;
  $("turns").replaceChildren(...chat.turns.map((turn, index) => drawTurn(turn, index === chat.turns.length - 1)));
  $("turns").className = chat.turns.some((turn) => turn.answers.length > 1) ? "wide-turns" : "";
  paintAlert();
  drawChats();
}

function drawTurn(turn, last) {
  const two = turn.answers.length > 1;
  const box = h("div", { class: two ? "answers two" : "answers" });
  const item = h("li", { class: "turn" }, drawQuestion(turn, last), box);
  turn.answers.forEach((answer, index) => {
    const place = h("article", { class: "answer" });
    places.set(answer, { place, turn, index, last });
    box.append(place);
    paint(answer);
  });
  if (turn.blind && !turn.vote && turn.answers.every((answer) => answer.finish)) item.append(drawVote(turn));
  return item;
}

const PLACEHOLDER = new RegExp(`\\[(?:${known.placeholders.join("|")})\\d+\\]`, "g");

// The server puts [姓名1] and the like in the place of what is personal; each is marked.
function marked(text) {
  const parts = [];
  let end = 0;
  for (const found of text.matchAll(PLACEHOLDER)) {
    parts.push(text.slice(end, found.index), h("mark", {}, found[0]));
    end = found.index + found[0].length;
  }
  return [...parts, text.slice(end)];
}

function drawQuestion(turn, last) {
  const box = h("div", { class: "asked" }, h("span", { class: "print" }, t("问", "Question") + " · " + when(turn.time)), h("p", {}, ...marked(turn.question)));
  const hidden = [...new Set(turn.question.match(PLACEHOLDER))].map((text) => text.replace(/[[\]\d]/g, ""));
  if (hidden.length) box.append(h("small", {}, t("已隐去：", "Masked: ") + [...new Set(hidden)].join("、") + t("。模型读到的就是上面这段话。", ". The model reads the text above.")));
  const edit = () => {
    const area = h("textarea", { "aria-label": t("修改问题", "Edit the question") });
    area.value = sent(turn);
    const send = h("button", { class: "main", type: "submit" }, t("重新发送", "Send again"));
    const back = h("button", { class: "quiet", type: "button", onclick: draw }, t("取消", "Cancel"));
    const form = h("form", { onsubmit: (event) => { event.preventDefault(); resend(turn, area.value); } }, area, h("div", { class: "row" }, back, send));
    box.replaceChildren(form);
    area.focus();
  };
  box.append(h("div", { class: "tools" },
    last && tool("edit", t("修改", "Edit"), edit),
    tool("copy", t("复制", "Copy"), (event) => copy(turn.question, event.currentTarget))));
  return box;
}

function resend(turn, question, variety) {
  if (!question.trim()) return;
  stop();
  chat.turns = chat.turns.slice(0, chat.turns.indexOf(turn));
  ask(question, { variety, alerts: turn.alerts }); // an alert stays until the new answer brings its own
}

function nameOf(turn, answer, index) {
  const blind = t("回答" + "甲乙"[index], "Answer " + "AB"[index]);
  const name = t(...NAMES[answer.tuned ? "tuned" : "base"]);
  return turn.blind ? (turn.vote ? blind + " · " + name : blind) : name;
}

function paint(answer) {
  const { place, turn, index, last } = places.get(answer) || {};
  if (!place) return;
  const name = nameOf(turn, answer, index);
  place.setAttribute("aria-label", name);
  place.setAttribute("aria-busy", String(Boolean(answer.writing)));
  const cards = drawCards(answer);
  const shown = turn.alerts.some(urgent) && cards.length ? [fold(answer, cards)] : cards;
  place.replaceChildren(h("h2", { class: "who" }, h("span", { class: "print" }, t("答", "Answer") + " · "), name, h("span", { class: "label" }, t(known.label, known.english.label))), ...shown, ...drawNotices(answer, turn));
  if (!answer.writing) place.append(...drawTools(answer, turn, last));
}

// Beside an emergency the model's text is folded; the line says whether more of it is coming.
function fold(answer, cards) {
  const state = answer.writing ? t("正在写", "being written") : answer.finish ? t("已写完", "complete") : t("不完整", "incomplete");
  const summary = h("summary", {}, t("模型的一般性说明，不能代替急救", "General remarks of the model, no substitute for emergency care"), h("span", { class: "screen" }, t("（点开查看）", " (open)")), " · ", h("span", { class: answer.writing ? "writing" : null }, state));
  const toggle = (event) => (event.target.open ? opened.add(answer) : opened.delete(answer));
  return h("details", { open: opened.has(answer), ontoggle: toggle }, summary, ...cards);
}

function drawCards(answer) {
  const cards = [];
  const put = (title, text, index) => {
    if (!text) return;
    const warnings = (answer.cautions || []).filter((caution) => caution.section === title).map((caution) => notice(caution.message));
    cards.push(h("section", { class: "card c" + index, lang: "zh-CN" }, title && h("h3", {}, icon("s" + index), title), ...paragraphs(text), ...warnings));
  };
  put("", answer.sections[""], 9);
  known.titles.forEach((title, index) => put(title, answer.sections[title], index));
  if (answer.writing) {
    const end = cards.length ? cards[cards.length - 1].lastChild : h("p", {}, answer.queued ? t("排队中…", "Waiting in the queue…") : t("正在思考…", "Thinking…"));
    end.classList.add("writing");
    if (!cards.length) cards.push(h("section", { class: "card" }, end));
  }
  return cards;
}

function paragraphs(text) {
  return text.split(/\n+/).map((line) => {
    const point = line.match(/^(\d+[.、]\s*)([^：:]{2,12}[：:])(.*)$/);
    return point ? h("p", {}, point[1], h("b", {}, point[2]), point[3]) : h("p", {}, line);
  });
}

// What a reader has to know about an answer beside its text; the same on the page, in print, in copies and exports.
function remarks(answer) {
  const found = [];
  if (answer.trimmed) found.push(t("对话太长，较早的内容这次没有发给模型。", "The chat is long: its earliest part was not sent to the model."));
  if (answer.stopped) found.push(t("已停止，回答不完整。", "Stopped; the answer is incomplete."));
  if (answer.error) found.push(answer.error + (answer.text ? t("回答不完整。", " The answer is incomplete.") : ""));
  if (answer.finish === "length") found.push(t("达到长度上限，回答被截断，不完整。", "Cut at the longest length; the answer is incomplete."));
  else if (answer.finish && !answer.complete) found.push(t("这个回答没有按三个部分写完整，请谨慎参考。", "This answer does not have all three parts."));
  return found;
}

function drawNotices(answer, turn) {
  const bad = Boolean(answer.error);
  const found = remarks(answer).map((text) => notice(text, bad, ...(answer.unread ? unread() : [])));
  if (answer.aigc) found.push(h("p", { class: "trace" }, "AIGC " + JSON.stringify(trace(answer, turn))));
  return found;
}

// The metadata of GB 45438; before a blind vote without the name of the model.
function trace(answer, turn) {
  const hidden = turn.blind && !turn.vote;
  return hidden ? { ...answer.aigc, ContentProducer: answer.aigc.ContentProducer.replace(" " + answer.model, "") } : answer.aigc;
}

function drawTools(answer, turn, last) {
  const bar = h("div", { class: "tools" });
  if (last && turn.answers[0] === answer) bar.append(tool("retry", t("重新回答", "Retry"), () => resend(turn, sent(turn), 0.7)));
  if (last && answer.finish === "length") bar.append(tool("send", t("继续写", "Continue"), () => ask("请接着上一条回答写完。")));
  if (!answer.text) return [bar];
  bar.append(tool("copy", t("复制", "Copy"), (event) => copy(plain(answer), event.currentTarget)));
  if (!turn.blind && answer.finish) for (const [vote, zh, en] of [["up", "有用", "Helpful"], ["down", "没用", "Not helpful"]])
    bar.append(tool(vote, t(zh, en), () => rate(answer, turn, vote), { "aria-pressed": String(answer.vote === vote) }));
  return [bar, answer.asking && drawReasons(answer, turn)].filter(Boolean);
}

const warnings = (answer) => [...remarks(answer), ...(answer.cautions || []).map((caution) => caution.message)];
const plain = (answer) => [answer.text.trim(), ...warnings(answer), `（${known.label}）${known.disclaimer}`].join("\n\n");

// ------------------------------------------------------------ feedback and votes

async function post(value) {
  const response = await fetch("/v1/feedback", { method: "POST", headers: headers(), body: JSON.stringify(value) });
  announce(response.ok ? t("已记录，谢谢", "Noted, thank you") : t("没有记录成功", "Could not be noted"));
  return response.ok ? (await response.json()).id : null;
}

// A rating counts at once; choosing it again takes it back, another one replaces it.
async function rate(answer, turn, vote) {
  const again = answer.vote === vote;
  answer.vote = again ? null : vote;
  answer.asking = !again;
  paint(answer);
  const { place } = places.get(answer);
  place.querySelectorAll("[aria-pressed]")[vote === "up" ? 0 : 1].focus();
  place.querySelector(".chips")?.scrollIntoView({ block: "nearest" });
  await takeBack(answer);
  if (!again) await sendRating(answer, turn, [], "");
}

async function takeBack(answer) {
  if (answer.rating) await fetch("/v1/feedback/" + answer.rating, { method: "DELETE", headers: headers() });
  answer.rating = null;
}

async function sendRating(answer, turn, reasons, comment) {
  await takeBack(answer);
  answer.rating = await post({ vote: answer.vote, reasons, comment, model: answer.model, question: turn.question, answer: answer.text, answer_id: answer.id });
  keep();
}

function drawReasons(answer, turn) {
  const boxes = answer.vote === "down" ? known.reasons.map(([reason]) => h("input", { type: "checkbox", value: reason })) : [];
  const labels = boxes.map((box, index) => h("label", {}, box, t(...known.reasons[index])));
  const hint = t("想补充一句？会存到服务器，请勿写姓名电话", "A comment? It is kept on the server: no names or numbers");
  const comment = h("textarea", { rows: 2, maxlength: 2000, "aria-label": t("补充说明", "Comment"), placeholder: hint });
  const submit = () => {
    answer.asking = false;
    sendRating(answer, turn, boxes.filter((box) => box.checked).map((box) => box.value), comment.value.trim());
    paint(answer);
  };
  const head = answer.vote === "down" ? t("哪里不好？", "What is wrong?") : t("谢谢！", "Thank you!");
  return h("div", { class: "chips", role: "group", "aria-label": t("评价的理由", "Reasons") }, h("span", {}, head), ...labels, comment, h("button", { class: "quiet", type: "button", onclick: submit }, t("提交", "Send")));
}

function drawVote(turn) {
  const [first, second] = turn.answers;
  const cast = (vote) => {
    turn.vote = vote;
    post({ vote, reasons: [], model: first.model, question: turn.question, answer: first.text, answer_id: first.id, other_model: second.model, other_answer: second.text });
    keep();
    draw();
  };
  const options = [["first", "甲更好", "A is better"], ["tie", "差不多", "About the same"], ["second", "乙更好", "B is better"], ["neither", "都不好", "Neither"]];
  return h("div", { class: "vote", role: "group", "aria-label": t("投票", "Vote") }, h("span", {}, t("哪个更好？投票后揭晓。", "Which is better? The names are shown after the vote.")),
    ...options.map(([vote, zh, en]) => h("button", { class: "quiet", type: "button", onclick: () => cast(vote) }, t(zh, en))));
}

// ------------------------------------------------------------ history and export

const MOST = 50; // chats kept
const text = (value) => typeof value === "string";
const sound = (each) => each && text(each.id) && text(each.title) && Array.isArray(each.turns) && each.turns.every(soundTurn);
const soundTurn = (turn) => turn && text(turn.question) && Array.isArray(turn.alerts) && turn.alerts.every((alert) => alert && text(alert.message)) && Array.isArray(turn.answers) && turn.answers.length && turn.answers.every(soundAnswer);
const soundAnswer = (answer) => answer && text(answer.text) && answer.sections && Object.values(answer.sections).every(text);

// The stored chats that can be drawn. An answer that was being written when its page was closed will not go on.
function saved() {
  const found = stored("chats", []).filter(sound);
  for (const answer of found.flatMap((each) => each.turns.flatMap((turn) => turn.answers)))
    if (!answer.finish && !answer.error) Object.assign(answer, { writing: false, stopped: true });
  return found;
}

let storable = true; // whether the browser keeps what is stored

// What is stored, which another tab may have changed since, with the chats of this tab where they are not older.
function gathered() {
  if (!settings.keep || !storable) return chats;
  const mine = new Map(chats.map((each) => [each.id, each]));
  return saved().map((each) => (mine.get(each.id)?.changed >= each.changed ? mine.get(each.id) : each));
}

function keep(own = chat) {
  if (own.gone || !own.turns.length) return; // cleared while it was being answered
  own.title = own.turns[0].question.slice(0, 40);
  own.changed = Date.now();
  chats = [own, ...gathered().filter((other) => other.id !== own.id)].slice(0, MOST);
  if (settings.keep) storeChats();
  drawChats();
}

// The newest that fit.
function storeChats() {
  let count = chats.length;
  while (count && !store("chats", chats.slice(0, count))) count >>= 1;
  storable = count > 0 || !chats.length;
  $("full").hidden = count === chats.length;
  if (storable) chats = chats.slice(0, count);
}

function drawChats() {
  const entry = (other) => h("button", { type: "button", "aria-current": other.id === chat.id ? "true" : null, onclick: () => show(other) }, h("span", {}, other.title), h("small", {}, when(other.changed)));
  $("chats").replaceChildren(...chats.map((other) => h("li", {}, entry(other))));
}

// Another tab changed what is stored.
function elsewhere(event) {
  if (event.key === "xinglin.settings") return adopt();
  if (!settings.keep || (event.key !== null && event.key !== "xinglin.chats")) return;
  if (event.newValue === null) return wipe();
  chats = gathered();
  const newer = chats.find((each) => each.id === chat.id);
  if (newer && newer !== chat && !running.size) {
    chat = newer;
    draw();
  } else drawChats();
}

function wipe() {
  for (const each of [chat, ...chats]) each.gone = true;
  chats = [];
  show(fresh());
}

function show(other) {
  stop();
  chat = other;
  menu(false);
  draw();
  scroll();
}

function clearAll(event) {
  const button = event.currentTarget;
  if (!button.dataset.sure) {
    button.dataset.sure = "1";
    button.textContent = t("再点一次，全部删除", "Click again to delete all");
    return;
  }
  delete button.dataset.sure;
  button.textContent = t("清空全部对话", "Clear all chats");
  store("chats", null);
  wipe();
  announce(t("已清空", "Cleared"));
}

// A block quote, also of text with line ends.
const quote = (text) => text.split("\n").map((line) => "> " + line);

function markdown() {
  const marks = chat.turns.flatMap((turn) => turn.answers.filter((answer) => answer.aigc).map((answer) => trace(answer, turn)));
  const lines = ["---", "AIGC: " + JSON.stringify(marks), "---", "", `# ${chat.title}`, "", `> ${known.label} · ${new Date().toLocaleString("zh-CN")} · Xinglin ${known.version} · ${known.name}`, ">", `> ${known.disclaimer}`, ""];
  for (const turn of chat.turns) {
    lines.push(`## 问（${when(turn.time)}）`, "", turn.question, "");
    for (const alert of turn.alerts) lines.push(`> **${alert.message}**`, "");
    turn.answers.forEach((answer, index) => {
      lines.push(`## 答（${nameOf(turn, answer, index)}，${known.label}${answer.finish === "stop" ? "" : "，不完整"}）`, "", answer.text.trim(), "");
      for (const warning of warnings(answer)) lines.push(...quote("注意：" + warning), "");
    });
  }
  return lines.join("\n");
}

function save() {
  if (!chat.turns.length) return announce(t("还没有可导出的对话", "Nothing to export yet"));
  const link = h("a", { href: URL.createObjectURL(new Blob([markdown()], { type: "text/markdown" })), download: `xinglin-${new Date().toISOString().slice(0, 10)}.md` });
  link.click();
  URL.revokeObjectURL(link.href);
}

// ------------------------------------------------------------ the frame

function menu(open) {
  $("side").classList.toggle("open", open);
  $("shade").hidden = !open;
  $("menu").setAttribute("aria-expanded", String(open));
}

function grow() {
  const area = $("question");
  area.style.height = "auto";
  area.style.height = area.scrollHeight + "px";
  busy();
}

const PATIENCE = 3000; // milliseconds for the list of models; a question is sent without it then
let waiting = 0; // the timer of the next try

async function ready() {
  if (models.length) return true;
  clearTimeout(waiting);
  try {
    const response = await fetch("/v1/models", { headers: headers(), signal: AbortSignal.timeout(PATIENCE) });
    const value = await response.json();
    if (!response.ok) throw value.error;
    models = value.data;
  } catch (error) {
    down(said(error) ? error : { code: "silent" });
    if (error.code === "model_loading") waiting = setTimeout(ready, 1000);
    return false;
  }
  down(null);
  translate();
  drawModes();
  return true;
}

async function connect() {
  if (!(await ready()) && refused()) askKey();
}

// Why nothing can be answered now, visible above the question.
function down(error) {
  lack = error ? error.code : "";
  $("down").hidden = !error;
  const text = error ? explain(error) : "";
  if ($("down").dataset.shown === text) return; // said once, not at every try
  $("down").dataset.shown = text;
  $("down").replaceChildren(icon("alert"), h("span", {}, text, ...unread()));
}

let lack = ""; // the code of the error that keeps the list of models away
const refused = () => lack === "invalid_api_key";

function askKey() {
  const given = sessionStorage.getItem("xinglin.key");
  $("key-reason").hidden = false;
  $("key-text").textContent = given ? t("访问密钥不对，请重新填写。", "The access key is wrong; enter it again.") : t("这个服务需要访问密钥，请填写管理员给您的密钥。", "This server needs an access key; enter the one you were given.");
  if (!$("settings").open) $("settings").showModal();
  $("set-key").focus();
}

function drawModes() {
  const both = models.some((model) => model.xinglin.tuned) && models.length > 1;
  mode = both ? NAMES[stored("mode", "tuned")] ? stored("mode", "tuned") : "tuned" : models[0].xinglin.tuned ? "tuned" : "base";
  $("modes").hidden = !both;
  const pick = (name) => h("input", { type: "radio", name: "mode", value: name, checked: name === mode, onchange: () => { mode = name; store("mode", name); } });
  $("modes").replaceChildren($("modes").firstElementChild, ...Object.entries(NAMES).map(([name, text]) => h("label", {}, pick(name), h("span", {}, t(...text)))));
}

function change(name, value) {
  settings[name] = value;
  store("settings", settings);
  if (name === "keep" && value) storeChats();
  if (name === "keep" && !value) store("chats", null);
  apply();
}

// The settings that another tab has stored.
function adopt() {
  Object.assign(settings, stored("settings", {}));
  fillSettings();
  apply();
}

function apply() {
  theme();
  translate();
  if (models.length) drawModes();
  down(lack ? { code: lack } : null);
  drawExamples();
  draw();
}

function drawExamples() {
  const example = ([zh, en]) => h("button", { class: "example", type: "button", onclick: () => ask(zh) }, h("span", { lang: "zh-CN" }, zh), settings.language === "en" && h("small", {}, en));
  $("examples").replaceChildren(...known.examples.map(example));
}

function fillSettings() {
  for (const name of ["language", "theme", "variety", "length"]) $("set-" + name).value = settings[name];
  for (const name of ["mask", "keep"]) $("set-" + name).checked = settings[name];
}

function bindSettings() {
  fillSettings();
  for (const name of ["language", "theme", "variety", "length"]) $("set-" + name).addEventListener("change", (event) => change(name, event.target.value));
  for (const name of ["mask", "keep"]) $("set-" + name).addEventListener("change", (event) => change(name, event.target.checked));
  $("set-key").addEventListener("change", (event) => { sessionStorage.setItem("xinglin.key", event.target.value.trim()); models = []; connect(); });
  // Not at the change: what moves between press and release of the button takes the click away from it.
  $("settings").addEventListener("close", () => ($("key-reason").hidden = true));
}

let composing = false; // an input method has the keyboard
const composes = (event) => composing || event.isComposing || event.keyCode === 229; // Safari sends 229 after compositionend

function bindQuestion() {
  const area = $("question");
  const submit = (event) => {
    event.preventDefault();
    const text = area.value;
    area.value = "";
    grow();
    ask(text);
  };
  area.addEventListener("compositionstart", () => (composing = true));
  area.addEventListener("compositionend", () => (composing = false));
  area.addEventListener("input", grow);
  area.addEventListener("keydown", (event) => { if (event.key === "Enter" && !event.shiftKey && !composes(event)) submit(event); });
  $("form").addEventListener("submit", submit);
}

// Esc closes what is open before it stops an answer; a dialog closes by itself.
function escape(event) {
  if (event.key !== "Escape" || composes(event) || document.querySelector("dialog[open]")) return;
  if ($("side").classList.contains("open")) menu(false);
  else stop();
}

// On paper everything is open; what was closed is closed again afterwards.
function unfold() {
  $("stamp").textContent = `Xinglin ${known.version} · ${known.name} · ` + t("打印于 ", "printed ") + new Date().toLocaleString(t("zh-CN", "en-GB"));
  for (const details of document.querySelectorAll("details:not([open])")) {
    details.open = true;
    details.dataset.unfolded = "";
  }
}

function bind() {
  bindSettings();
  bindQuestion();
  $("stop").addEventListener("click", stop);
  document.addEventListener("keydown", escape);
  $("new").addEventListener("click", () => { show(fresh()); $("question").focus(); });
  $("clear").addEventListener("click", clearAll);
  $("save").addEventListener("click", save);
  $("print").addEventListener("click", () => print());
  $("gear").addEventListener("click", () => $("settings").showModal());
  $("menu").addEventListener("click", () => menu(!$("side").classList.contains("open")));
  $("shade").addEventListener("click", () => menu(false));
  addEventListener("beforeprint", unfold);
  addEventListener("afterprint", () => document.querySelectorAll("[data-unfolded]").forEach((details) => (details.open = false)));
  addEventListener("storage", elsewhere);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", theme);
}

function start() {
  if (settings.keep) chats = saved();
  bind();
  $("demo").hidden = !known.demo;
  $("parts").append(...known.titles.map((title, index) => h("li", { class: "c" + index, lang: "zh-CN" }, icon("s" + index), title)));
  translate();
  drawExamples();
  draw();
  connect();
}

start();
