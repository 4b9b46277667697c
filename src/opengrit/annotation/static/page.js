// The page of opengrit annotate: picture by picture, a question, an answer and boxes; the server keeps every row.

import { BoxEditor } from "./boxes.js";

const DRAFT = "opengrit-annotate-draft";
const $ = (id) => document.getElementById(id);

let state = { pictures: [], rows: [], colours: [], answers: [], kinds: {}, advice: [] };
let here = 0; // the picture's number
let edited = null; // the row that is being corrected
let turn = 0; // of loading pictures: a slow one is not shown over a later one
let busy = false;
let usable = false; // the picture opens

const say = (text) => { $("announcer").textContent = text; };
const boxes = new BoxEditor($("stage"), { changed: boxes_changed, say });

// -- talking to the server --

class Refusal extends Error {
  constructor(message, param, status) {
    super(message);
    this.param = param;
    this.status = status;
  }
}

async function ask(path, method = "GET", body = undefined) {
  let response;
  try {
    const headers = body ? { "Content-Type": "application/json" } : {};
    response = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
  } catch {
    throw new Refusal("The server does not answer. Start it again with the same command and save again: what you wrote stays here.");
  }
  const content = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refusal(content.error?.message || `The server refused (${response.status}).`, content.error?.param, response.status);
  return content;
}

// -- what is shown --

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function tell(text, isProblem = false) {
  $("status").textContent = text;
  $("status").classList.toggle("problem", isProblem);
}

function rows_of(number) {
  return state.rows.filter((row) => row.picture === number);
}

function render() {
  $("title").textContent = `Pictures in ${state.folder}`;
  document.title = `${state.good} of ${state.enough} rows: OpenGRIT annotate`;
  $("goal").max = state.enough;
  $("goal").value = Math.min(state.good, state.enough);
  const total = state.rows.length === state.good ? "" : `, ${state.rows.length} in all`;
  $("goal-text").textContent = `${state.good} of ${state.enough} good rows in ${state.file}${total}`;
  $("done").hidden = state.good < state.enough;
  $("done-text").textContent = `${state.good} good rows are there: enough for GRIT to train on.`;
  $("done-next").replaceChildren(
    ...state.next.map((command) => {
      const line = element("li");
      line.append(element("code", command));
      return line;
    }),
  );
  $("advice").hidden = !state.advice.length;
  $("advice").textContent = state.advice.join(" ");
  bars("kinds", Object.entries(state.kinds));
  bars("answers", state.answers);
  render_pick();
  render_rows("here", rows_of(here), "None yet.");
  render_rows("all", state.rows, "None yet.");
  $("all-count").textContent = state.rows.length;
}

function bars(id, counts) {
  const most = Math.max(1, state.rows.length);
  $(id).replaceChildren(
    ...counts.map(([name, count]) => {
      const row = element("tr");
      const name_cell = element("th", name);
      name_cell.scope = "row";
      const bar = element("td");
      const meter = element("meter");
      Object.assign(meter, { min: 0, max: most, value: count });
      meter.setAttribute("aria-hidden", "true");
      bar.append(meter);
      row.append(name_cell, bar, element("td", count));
      return row;
    }),
  );
}

function render_pick() {
  const counts = new Map();
  state.rows.forEach((row) => counts.set(row.picture, (counts.get(row.picture) || 0) + 1));
  const options = state.pictures.map((name, number) => {
    const made = counts.get(number);
    const option = element("option", `${number + 1} of ${state.pictures.length}: ${name}${made ? ` (${made} row${made > 1 ? "s" : ""})` : ""}`);
    option.value = number;
    return option;
  });
  $("pick").replaceChildren(...options);
  $("pick").value = here;
  $("previous").disabled = here === 0;
  $("next").disabled = here >= state.pictures.length - 1;
}

function render_rows(id, rows, none) {
  const items = rows.map((row) => {
    const item = element("li");
    item.dataset.row = row.id;
    item.append(element("div", row.question, "said"));
    item.lastChild.dir = "auto";
    const facts = element("div", `${row.answer} \u00b7 ${row.kind}`, "facts");
    if (row.boxes.length) facts.append(` \u00b7 ${row.boxes.length} box${row.boxes.length > 1 ? "es" : ""}`);
    if (id === "all") facts.append(` \u00b7 ${row.image}`);
    if (row.problem) facts.append(element("div", `Not counted as good: ${row.problem}`, "problem"));
    const acts = element("div", undefined, "acts");
    if (row.picture !== null) acts.append(act("Edit", row, () => edit(row)));
    acts.append(act("Delete", row, () => remove(row)));
    item.append(facts, acts);
    return item;
  });
  $(id).replaceChildren(...(items.length ? items : [element("li", none, "none")]));
}

function act(name, row, work) {
  const button = element("button", name);
  button.type = "button";
  button.setAttribute("aria-label", `${name}: ${row.question}`);
  button.addEventListener("click", work);
  return button;
}

function boxes_changed() {
  const count = boxes.values.length;
  $("clear-boxes").disabled = !count;
  $("number-of-boxes").hidden = !count;
  $("number-of-boxes").textContent = `${count}, as many as boxes`;
  $("number-of-boxes").dataset.answer = count;
  drawing_changed(boxes.drawing);
  keep_draft();
}

function drawing_changed(on) {
  boxes.drawing = on;
  $("add-box").setAttribute("aria-pressed", on);
  $("box-hint").textContent = on ? "Drag on the picture, or tap it." : "";
}

// -- from picture to picture --

async function open(number, { values = null, focus = true } = {}) {
  here = number;
  const mine = ++turn;
  set_form(values);
  render();
  boxes.show({ width: 4, height: 3 }, []);
  $("shown").removeAttribute("src");
  usable = false;
  let picture;
  try {
    picture = await ask(`api/pictures/${number}`);
  } catch (error) {
    picture = { problem: error.message };
  }
  if (mine !== turn) return;
  usable = !picture.problem;
  $("stage").classList.toggle("broken", !usable);
  $("picture-problem").hidden = usable;
  $("picture-problem").textContent = usable ? "" : `This picture cannot be used: ${picture.problem}`;
  $("add-box").disabled = !usable;
  if (usable) {
    $("shown").src = `pictures/${number}`;
    $("shown").alt = `${picture.name}, ${picture.width} x ${picture.height} pixels`;
    boxes.colours = state.colours;
    const drawn = (values?.boxes || []).filter((box) => box.length === 4).map((box) => box.map(Math.round));
    boxes.show({ width: picture.width, height: picture.height }, drawn);
  }
  boxes_changed();
  if (!focus) return;
  if (matchMedia("(pointer: coarse)").matches) $("stage").scrollIntoView({ block: "nearest" }); // focus would open the keyboard over it
  else $("question").focus({ preventScroll: true });
}

function set_form(values) {
  $("question").value = values?.question || "";
  $("answer").value = values?.answer || "";
  $("form-title").textContent = edited === null ? "New row" : "Correct a row";
  $("save").textContent = edited === null ? "Save, next picture" : "Save the correction";
  $("stay").hidden = edited !== null;
  $("cancel").hidden = edited === null;
}

function walk(step) {
  const next = here + step;
  if (next < 0 || next >= state.pictures.length || !may_leave()) return;
  edited = null;
  tell("");
  open(next);
}

function is_dirty() {
  const row = state.rows.find((one) => one.id === edited);
  return $("question").value.trim() !== (row?.question || "") || $("answer").value.trim() !== (row?.answer || "");
}

function may_leave() {
  return !is_dirty() || confirm("What you wrote is not saved. Leave it?");
}

// -- drafts: what is not saved yet survives a reload --

function keep_draft() {
  const draft = { name: state.pictures[here], edited, question: $("question").value, answer: $("answer").value, boxes: boxes.values };
  sessionStorage.setItem(DRAFT, JSON.stringify(draft));
}

function kept_draft() {
  try {
    const draft = JSON.parse(sessionStorage.getItem(DRAFT));
    const number = state.pictures.indexOf(draft?.name);
    const has_content = draft?.question || draft?.answer || draft?.boxes?.length;
    return number >= 0 && draft.edited === null && has_content ? { number, draft } : null;
  } catch {
    return null;
  }
}

// -- rows --

async function save(stay) {
  if (busy) return;
  for (const id of ["question", "answer"]) {
    if (!$(id).value.trim()) return refuse(`Write the ${id} first.`, id);
  }
  if (!usable) return refuse("This picture cannot be used; go to another one.");
  const body = { picture: here, question: $("question").value, answer: $("answer").value, boxes: boxes.values };
  busy = true;
  tell("Saving.");
  try {
    state = await ask(edited === null ? "api/rows" : `api/rows/${edited}`, edited === null ? "POST" : "PUT", body);
  } catch (error) {
    refuse(error.message, error.param);
    if (error.status === 409) await reload();
    return;
  } finally {
    busy = false;
  }
  const was_new = edited === null;
  edited = null;
  sessionStorage.removeItem(DRAFT);
  const problem = state.rows.find((row) => row.id === state.saved)?.problem;
  const next = was_new && !stay && here < state.pictures.length - 1 ? here + 1 : here;
  tell(problem ? `Saved, but not counted as good: ${problem}.` : `Saved: ${state.good} of ${state.enough} good rows.`, Boolean(problem));
  await open(next);
}

function refuse(message, param) {
  tell(message, true);
  if (param === "question" || param === "answer") $(param).focus();
}

async function reload() {
  try {
    state = await ask("api/session");
    edited = null;
    set_form({ question: $("question").value, answer: $("answer").value });
    render();
  } catch (error) {
    tell(error.message, true);
  }
}

function edit(row) {
  if (!may_leave()) return;
  edited = row.id;
  tell("");
  open(row.picture, { values: row });
  $("form").scrollIntoView({ block: "nearest" });
}

async function remove(row) {
  if (!confirm(`Delete this row? ${row.question}`)) return;
  try {
    state = await ask(`api/rows/${row.id}`, "DELETE");
  } catch (error) {
    return refuse(error.message);
  }
  if (edited === row.id) {
    edited = null;
    set_form(null);
  }
  tell("Deleted.");
  render();
  $("question").focus();
}

// -- what a person does --

$("form").addEventListener("submit", (event) => { event.preventDefault(); save(false); });
$("stay").addEventListener("click", () => save(true));
$("cancel").addEventListener("click", () => { edited = null; tell(""); open(here); });
$("previous").addEventListener("click", () => walk(-1));
$("next").addEventListener("click", () => walk(1));
$("pick").addEventListener("change", () => {
  const wanted = Number($("pick").value);
  if (may_leave()) { edited = null; tell(""); open(wanted, { focus: false }); } else $("pick").value = here;
});
$("add-box").addEventListener("click", (event) => {
  if (event.detail === 0) { drawing_changed(false); boxes.add_at(); } else drawing_changed(!boxes.drawing); // 0: by keyboard
});
$("clear-boxes").addEventListener("click", () => { boxes.remove_all(); $("add-box").focus(); say("All boxes removed"); });
document.querySelector(".quick").addEventListener("click", (event) => {
  const answer = event.target.dataset.answer;
  if (answer !== undefined) { $("answer").value = answer; $("answer").focus(); keep_draft(); }
});
for (const id of ["question", "answer"]) $(id).addEventListener("input", keep_draft);
$("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.ctrlKey && !event.metaKey) { event.preventDefault(); $("answer").focus(); }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); save(false); }
});

async function start() {
  try {
    state = await ask("api/session");
  } catch (error) {
    return tell(error.message, true);
  }
  const kept = kept_draft();
  const first = state.pictures.findIndex((_, number) => !rows_of(number).length);
  await open(kept ? kept.number : Math.max(0, first), { values: kept?.draft });
  if (kept) tell("What you had not saved is here again.");
  document.body.dataset.ready = "true";
}

start();
