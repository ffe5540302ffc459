// What both pages share: storage, settings, language, theme. Text becomes text nodes only, never markup.
"use strict";

const $ = (id) => document.getElementById(id);

// What is stored under a key, or the fallback where there is nothing, something of another kind, or no storage at all.
function stored(key, fallback) {
  try {
    const value = JSON.parse(localStorage.getItem("xinglin." + key));
    return value != null && typeof value === typeof fallback && Array.isArray(value) === Array.isArray(fallback) ? value : fallback;
  } catch {
    return fallback;
  }
}

// Whether the browser kept the value: storage may be full or forbidden.
function store(key, value) {
  try {
    if (value === null) localStorage.removeItem("xinglin." + key);
    else localStorage.setItem("xinglin." + key, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

const settings = { language: "zh", theme: "auto", variety: "0", length: "1024", mask: true, keep: true, ...stored("settings", {}) };
const t = (zh, en) => (settings.language === "en" ? en : zh);

function headers() {
  const key = sessionStorage.getItem("xinglin.key");
  return { "Content-Type": "application/json", ...(key ? { Authorization: "Bearer " + key } : {}) };
}

// The Chinese of the HTML and the English beside it in data-en, data-en-label, data-en-placeholder.
function translate() {
  const english = settings.language === "en";
  document.documentElement.lang = english ? "en" : "zh-CN";
  const swap = (name, get, set) => {
    for (const element of document.querySelectorAll(`[data-en${name}]`)) {
      if (!element.hasAttribute("data-zh" + name)) element.setAttribute("data-zh" + name, get(element));
      set(element, element.getAttribute((english ? "data-en" : "data-zh") + name));
    }
  };
  const label = (element, text) => {
    element.setAttribute("aria-label", text);
    if (element.matches(".icon, .main")) element.title = text;
  };
  swap("", (element) => element.textContent, (element, text) => (element.textContent = text));
  swap("-label", (element) => element.getAttribute("aria-label"), label);
  swap("-placeholder", (element) => element.placeholder, (element, text) => (element.placeholder = text));
}

function theme() {
  const dark = settings.theme === "dark" || (settings.theme === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.dataset.theme = dark ? "dark" : "light";
}

theme();
