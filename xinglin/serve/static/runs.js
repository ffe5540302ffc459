// The page of the training runs: asks for new log lines every two seconds and draws them as SVG.
"use strict";

const EVERY = 2000; // milliseconds
let runs = [];
let lines = [];
let shown = "";

async function get(path) {
  const response = await fetch(path, { headers: headers() });
  if (response.status === 401) throw new Error(t("请先在问答页的“设置”里填写访问密钥。", "Enter the access key in the settings of the chat page first."));
  if (!response.ok) throw new Error(t("服务没有响应，稍后会再试。", "The server does not answer; trying again."));
  return (await response.json()).data;
}

function svg(tag, properties, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(properties)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function html(tag, text, properties) {
  const element = document.createElement(tag);
  element.textContent = text;
  for (const [name, value] of Object.entries(properties || {})) element.setAttribute(name, value);
  return element;
}

function ticks(low, high, count) {
  const rough = (high - low || 1) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((times) => times * power).find((size) => size >= rough);
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step / 1e6; value += step) found.push(value);
  return found;
}

const label = (value) => (value !== 0 && Math.abs(value) < 0.01 ? value.toExponential(0) : String(Number(value.toPrecision(3))));

// One chart; series: [class, [[step, value], …]]. One unit is one pixel, so that its numbers can be read on a phone.
function chart(name, width, height, series) {
  const points = series.flatMap(([, values]) => values);
  if (!points.length) return html("p", t("还没有数据", "Nothing yet"));
  const xs = points.map((point) => point[0]), ys = points.map((point) => point[1]);
  const [left, right, top, bottom] = [48, width - 12, 10, height - 28];
  const high = Math.max(...ys), low = Math.min(...ys), pad = (high - low || high || 1) * 0.08;
  const x = (value) => left + ((right - left) * (value - Math.min(...xs))) / (Math.max(...xs) - Math.min(...xs) || 1);
  const y = (value) => bottom - ((bottom - top) * (value - low + pad)) / (high - low + 2 * pad);
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart", role: "img", "aria-label": `${name} · ${t("最新", "latest")} ${label(ys[ys.length - 1])}` });
  for (const value of ticks(low, high, 6)) root.append(svg("line", { x1: left, x2: right, y1: y(value), y2: y(value), class: "grid" }), svg("text", { x: left - 8, y: y(value) + 4, class: "y" }, label(value)));
  for (const value of ticks(Math.min(...xs), Math.max(...xs), Math.ceil(width / 60)).filter(Number.isInteger)) root.append(svg("text", { x: x(value), y: height - 8, class: "x" }, label(value)));
  for (const [kind, values] of series) {
    root.append(svg("polyline", { class: "line " + kind, points: values.map(([step, value]) => `${x(step).toFixed(1)},${y(value).toFixed(1)}`).join(" ") }));
    if (values.length < 40) root.append(...values.map(([step, value]) => svg("circle", { class: "dot " + kind, cx: x(step), cy: y(value), r: 3 })));
  }
  return root;
}

const series = (key) => lines.filter((line) => line[key] != null).map((line) => [line.step, line[key]]);
const last = (key) => lines.findLast((line) => line[key] != null)?.[key];

function draw() {
  const run = runs.find((each) => each.name === shown);
  $("empty").hidden = runs.length > 0;
  $("shown").hidden = !run;
  if (!run) return;
  const best = Math.min(...series("eval_loss").map((point) => point[1]));
  const state = run.finished ? t("已完成", "finished") : Date.now() / 1000 - run.changed < 120 ? t("进行中", "running") : t("未完成", "unfinished");
  const facts = [[t("状态", "State"), state], [t("步", "Step"), last("step")], [t("轮", "Epoch"), last("epoch")], [t("训练损失", "Training loss"), last("loss")], [t("最低验证损失", "Lowest validation loss"), Number.isFinite(best) ? best : null], [t("词元/秒", "Tokens/s"), last("tokens_per_second")]];
  $("facts").replaceChildren(...facts.filter(([, value]) => value != null).map(([name, value]) => {
    const box = document.createElement("div");
    box.append(html("dt", name), html("dd", typeof value === "number" ? String(Number(value.toPrecision(5))) : value));
    return box;
  }));
  const width = $("loss").clientWidth;
  $("loss").replaceChildren(chart(t("损失", "Loss"), width, 260, [["train", series("loss")], ["validation", series("eval_loss")]]));
  $("rate").replaceChildren(chart(t("学习率", "Learning rate"), width, 160, [["rate", series("learning_rate")]]));
  $("rows").replaceChildren(...lines.slice(-12).reverse().map((line) => {
    const row = document.createElement("tr");
    for (const key of ["step", "epoch", "loss", "eval_loss", "learning_rate", "tokens_per_second"]) row.append(html("td", line[key] == null ? "" : key === "learning_rate" ? line[key].toExponential(2) : String(Number(line[key].toPrecision(4)))));
    return row;
  }));
}

async function refresh() {
  try {
    runs = await get("/v1/runs");
    if (!runs.some((run) => run.name === shown)) pick(runs[0]?.name || "");
    $("run").replaceChildren(...runs.map((run) => html("option", run.name + (run.finished ? "" : " …"), { value: run.name })));
    $("run").value = shown;
    if (shown) lines = lines.concat(await get(`/v1/runs/${encodeURIComponent(shown)}?after=${lines.length}`));
    $("state").textContent = "";
    draw();
  } catch (error) {
    $("state").textContent = error.message;
  }
}

function pick(name) {
  shown = name;
  lines = [];
}

translate();
addEventListener("resize", draw);
$("run").addEventListener("change", (event) => { pick(event.target.value); refresh(); });
refresh();
setInterval(refresh, EVERY);
