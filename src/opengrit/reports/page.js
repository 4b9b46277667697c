/* The page's own behaviour: tables that sort by their headings, and the list of all answers with filters and pages.
   Whatever came from a model or a file is put in as text, never as markup. */
(function () {
  "use strict";

  var DASH = "-", PAGE = 50;

  function compare(a, b) {
    var none = function (v) { return v === null || v === undefined || v === ""; };
    if (none(a) || none(b)) return none(a) && none(b) ? 0 : none(a) ? 1 : -1; /* what is not measured comes last */
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), "en", { numeric: true });
  }

  /* Sorts keep the order of what is equal; a second press reverses them, and what is not measured stays last. */
  function sorted(items, value, down) {
    return items.map(function (item, at) { return { item: item, at: at, value: value(item) }; }).sort(function (a, b) {
      var none = a.value === null || a.value === undefined || a.value === "" || b.value === null || b.value === undefined || b.value === "";
      var by = compare(a.value, b.value);
      return (down && !none ? -by : by) || a.at - b.at;
    }).map(function (entry) { return entry.item; });
  }

  function markSorted(headings, heading, down) {
    headings.forEach(function (th) { th.removeAttribute("aria-sort"); });
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  }

  function make(tag, text, className) {
    var element = document.createElement(tag);
    if (text !== undefined && text !== null) element.textContent = text;
    if (className) element.className = className;
    return element;
  }

  document.querySelectorAll("table.sortable").forEach(function (table) {
    var headings = Array.from(table.tHead.rows[0].cells), body = table.tBodies[0];
    headings.forEach(function (th, column) {
      var button = make("button", th.textContent);
      button.type = "button";
      th.textContent = "";
      th.append(button);
      button.addEventListener("click", function () {
        var down = th.getAttribute("aria-sort") === "ascending";
        sorted(Array.from(body.rows), function (row) {
          var cell = row.cells[column], written = cell.dataset.sort;
          return written === undefined ? cell.textContent : written === "" ? null : Number(written);
        }, down).forEach(function (row) { body.append(row); });
        markSorted(headings, th, down);
      });
    });
  });

  /* A table that is wider than its place says so; a folded one is measured when it opens. */
  function markWide() {
    document.querySelectorAll(".wide").forEach(function (place) {
      place.classList.toggle("scrolls", place.scrollWidth > place.clientWidth + 1);
    });
  }
  document.addEventListener("toggle", markWide, true);
  window.addEventListener("resize", markWide);
  markWide();

  /* A link to a section opens it, and paper has everything. */
  function unfold() {
    var target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
    var inside = target ? target.querySelector(":scope > details") : null;
    if (inside) inside.open = true;
  }
  window.addEventListener("hashchange", unfold);
  window.addEventListener("beforeprint", function () {
    document.querySelectorAll("details.fold").forEach(function (one) { one.open = true; });
  });
  unfold();

  var section = document.getElementById("answers");
  if (!section) return;
  var data = JSON.parse(document.getElementById("answers-data").textContent);
  var list = section.querySelector(".list"), body = list.querySelector("tbody");
  var headings = Array.from(list.querySelectorAll("th[data-key]"));
  var search = list.querySelector("input"), place = list.querySelector(".pager span");
  var state = { page: 0, key: null, down: false, kept: data.rows };

  function selected(name) {
    var select = list.querySelector('[data-pick="' + name + '"]');
    return select ? select.value : "";
  }

  function replyOf(row) {
    var wanted = selected("run") === "" ? data.runs.length - 1 : Number(selected("run"));
    return row.t.find(function (reply) { return reply.r === wanted; }) || null;
  }

  var VALUES = {
    q: function (row) { return row.q; }, x: function (row) { return row.x; }, d: function (row) { return row.d; },
    a: function (row) { var reply = replyOf(row); return reply && reply.a; },
    c: function (row) { var reply = replyOf(row); return reply && reply.c; },
    u: function (row) { var reply = replyOf(row); return reply && reply.u; },
    b: function (row) { var reply = replyOf(row); return reply && reply.b; }
  };

  function applyFilters() {
    var words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    var kind = selected("outcome"), dataset = selected("dataset");
    var kept = data.rows.filter(function (row) {
      var reply = replyOf(row);
      if (dataset && row.d !== dataset) return false;
      if (kind && (!reply || reply.c !== kind)) return false;
      if (!words.length) return true;
      var text = [row.q, row.x, row.i, reply && reply.a].join(" ").toLowerCase();
      return words.every(function (word) { return text.includes(word); });
    });
    state.kept = state.key ? sorted(kept, VALUES[state.key], state.down) : kept;
    state.page = 0;
    draw();
  }

  function detail(row, width) {
    var line = make("tr", null, "detail"), cell = make("td");
    cell.colSpan = width;
    row.t.forEach(function (reply) {
      cell.append(make("h4", data.runs[reply.r]));
      var facts = [reply.c, "answer " + (reply.a === null ? "none" : reply.a), reply.b + (reply.b === 1 ? " box" : " boxes")];
      if (reply.u !== null) facts.push("IoU " + reply.u.toFixed(2));
      if (reply.w) facts.push(reply.w);
      cell.append(make("p", facts.join(" \u00b7 "), "soft"));
      cell.append(make("pre", reply.s === null ? "The text is left out of this page; the run's records.jsonl has it." : reply.s || "Nothing was written."));
    });
    cell.append(make("p", row.d + " \u00b7 " + row.i + " \u00b7 " + row.k, "soft"));
    if (row.e) {
      var link = make("a", "See it with its picture");
      link.href = "#example=" + row.e;
      cell.append(link);
    }
    line.append(cell);
    return line;
  }

  function draw() {
    var pages = Math.max(1, Math.ceil(state.kept.length / PAGE));
    state.page = Math.min(Math.max(0, state.page), pages - 1);
    var from = state.page * PAGE, shown = state.kept.slice(from, from + PAGE);
    body.replaceChildren();
    shown.forEach(function (row) {
      var reply = replyOf(row), line = make("tr"), first = make("td"), button = make("button", row.q);
      button.type = "button";
      button.dir = "auto";
      button.setAttribute("aria-expanded", "false");
      button.addEventListener("click", function () {
        var open = button.getAttribute("aria-expanded") === "true";
        button.setAttribute("aria-expanded", String(!open));
        if (open) line.nextSibling.remove(); else line.after(detail(row, headings.length));
      });
      first.append(button);
      line.append(first, make("td", row.x));
      line.append(make("td", !reply ? "not asked" : reply.a === null ? DASH : reply.a), make("td", reply ? reply.c : DASH));
      line.append(make("td", reply && reply.u !== null ? reply.u.toFixed(3) : DASH), make("td", reply ? reply.b : DASH), make("td", row.d));
      body.append(line);
    });
    place.textContent = state.kept.length
      ? (from + 1) + " to " + (from + shown.length) + " of " + state.kept.length + (state.kept.length < data.rows.length ? " kept, " + data.rows.length + " in all" : "")
      : "No answer is of this kind.";
    list.querySelector('[data-page="-1"]').disabled = state.page === 0;
    markWide();
    list.querySelector('[data-page="1"]').disabled = state.page >= pages - 1;
  }

  headings.forEach(function (th) {
    th.querySelector("button").addEventListener("click", function () {
      state.down = th.getAttribute("aria-sort") === "ascending";
      state.key = th.dataset.key;
      markSorted(headings, th, state.down);
      applyFilters();
    });
  });
  search.addEventListener("input", applyFilters);
  list.querySelectorAll("select").forEach(function (select) { select.addEventListener("change", applyFilters); });
  list.querySelectorAll("[data-page]").forEach(function (button) {
    button.addEventListener("click", function () { state.page += Number(button.dataset.page); draw(); });
  });
  list.hidden = false;
  applyFilters();
})();
