// Fetches the page again every 2 s while it is seen, and takes over what has changed.
"use strict";

const EVERY_MS = 2000;
const LONGEST_MS = 10000;
const lost = document.getElementById("lost");
let reachedAt = new Date();
let timer;

// Nodes stay where they are, so that the focus, the selection and a screen reader's place stay, too.
function takeOver(old, fresh) {
  if (old.nodeName !== fresh.nodeName) {
    old.replaceWith(fresh);
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  const children = [...fresh.childNodes];
  while (old.childNodes.length > children.length) old.lastChild.remove();
  children.forEach((child, place) => {
    if (place < old.childNodes.length) takeOver(old.childNodes[place], child);
    else old.append(child);
  });
}

async function refresh() {
  // The tab was hidden, or this machine slept.
  if (Date.now() - reachedAt > LONGEST_MS) document.body.className = "old";
  const controller = new AbortController();
  const limit = setTimeout(() => controller.abort(), LONGEST_MS);
  try {
    // Not a relative address: a browser refuses to fetch one if the page was opened with a user and password in its own.
    const page = location.origin + location.pathname;
    const answer = await fetch(page, { cache: "no-store", signal: controller.signal });
    if (!answer.ok) throw new Error(answer.status);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (["style", "script"].some((part) => fresh.querySelector(part).textContent !== document.querySelector(part).textContent)) {
      location.reload(); // another version of the agent
      return;
    }
    takeOver(document.querySelector("main"), fresh.querySelector("main"));
    document.title = fresh.title;
    reachedAt = new Date();
    lost.textContent = "";
    document.body.className = "";
  } catch (error) {
    const words = `Not reachable since ${reachedAt.toLocaleTimeString()}. These numbers are old.`;
    if (lost.textContent !== words) lost.textContent = words; // read out once
    document.body.className = "old";
  }
  clearTimeout(limit);
  next();
}

function next() {
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(refresh, EVERY_MS);
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(timer);
  if (!document.hidden) refresh();
});
next();
