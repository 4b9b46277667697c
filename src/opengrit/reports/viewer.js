/* The viewer's behaviour: lights a pointing and its box together, walks through the examples, filters them.
   A page that adds a viewer later calls opengritViewer.start(element); where it changes what the viewer holds, it
   calls paint() of what start gave back. In a live viewer (og-live) the arrows walk through the pointings. */
var opengritViewer = (function () {
  "use strict";

  function start(viewer) {
    if (viewer.dataset.ready) return null;
    viewer.dataset.ready = "yes";
    viewer.classList.add("og-ready");
    var examples = Array.from(viewer.querySelectorAll(".og-example"));
    var lit = { hover: null, focus: null, pinned: new Set() };
    var filter = "all";
    var pick = viewer.querySelector(".og-outcome select"); /* filters by outcome; the live viewer has none */
    var current = examples[0] || null;

    function all(selector) { return Array.from(viewer.querySelectorAll(selector)); }

    function paint() {
      all("[data-point]").forEach(function (part) {
        var key = part.dataset.point;
        part.classList.toggle("lit", key === lit.hover || key === lit.focus || lit.pinned.has(key));
        if (part.getAttribute("role") === "button") part.setAttribute("aria-pressed", String(lit.pinned.has(key)));
      });
      all(".og-reply").forEach(function (reply) {
        reply.classList.toggle("og-some-lit", reply.querySelector(".og-box.lit") !== null);
      });
    }

    function kept() {
      var wanted = pick ? pick.value : "";
      return examples.filter(function (e) {
        return e.dataset.groups.split(" ").includes(filter) && (!wanted || e.dataset.outcome === wanted);
      });
    }

    function show(example) {
      var list = kept();
      current = list.includes(example) ? example : list[0] || null;
      examples.forEach(function (e) { e.hidden = e !== current; });
      all(".og-strip button").forEach(function (button) {
        button.hidden = !list.some(function (e) { return e.id === button.dataset.goto; });
        var here = current !== null && button.dataset.goto === current.id;
        if (here) button.setAttribute("aria-current", "true"); else button.removeAttribute("aria-current");
        if (here && button.parentElement.scrollWidth > button.parentElement.clientWidth) {
          button.parentElement.scrollLeft = button.offsetLeft - button.parentElement.offsetLeft - 60;
        }
      });
      all(".og-filter button").forEach(function (button) {
        button.setAttribute("aria-pressed", String(button.dataset.filter === filter));
      });
      all(".og-none").forEach(function (note) { note.hidden = list.length > 0; });
      all(".og-place").forEach(function (place) {
        place.textContent = list.length ? (list.indexOf(current) + 1) + " of " + list.length : "none";
      });
      lit.hover = null;
      paint();
    }

    function walk(step) {
      var list = kept();
      if (list.length) show(list[(list.indexOf(current) + step + list.length) % list.length]);
    }

    function toggle(key) {
      if (!lit.pinned.delete(key)) lit.pinned.add(key);
      paint();
    }

    function step(event) {
      var by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!by) return;
      event.preventDefault();
      var points = Array.from(event.target.closest(".og-reply").querySelectorAll(".og-point"));
      points[(points.indexOf(event.target) + by + points.length) % points.length].focus();
    }

    function keyOf(event) {
      var part = event.target.closest ? event.target.closest("[data-point]") : null;
      return part ? part.dataset.point : null;
    }

    viewer.addEventListener("pointerover", function (event) {
      var key = event.pointerType === "touch" ? null : keyOf(event);
      if (key !== lit.hover) { lit.hover = key; paint(); }
    });
    viewer.addEventListener("pointerleave", function () { lit.hover = null; paint(); });
    viewer.addEventListener("focusin", function (event) { lit.focus = keyOf(event); paint(); });
    viewer.addEventListener("focusout", function () { lit.focus = null; paint(); });
    viewer.addEventListener("click", function (event) {
      var button = event.target.closest("button");
      if (!button) { var key = keyOf(event); if (key) toggle(key); return; }
      if (button.dataset.filter) { filter = button.dataset.filter; show(current); }
      if (button.dataset.step) walk(Number(button.dataset.step));
      if (button.dataset.goto) show(document.getElementById(button.dataset.goto));
      if (button.classList.contains("og-truth-switch")) {
        var off = viewer.classList.toggle("og-truths-off");
        button.setAttribute("aria-pressed", String(!off));
      }
    });
    if (pick) pick.addEventListener("change", function () { show(current); });
    viewer.addEventListener("keydown", function (event) {
      if (event.altKey || event.ctrlKey || event.metaKey) return;
      var key = keyOf(event);
      if (key && (event.key === "Enter" || event.key === " ")) { event.preventDefault(); toggle(key); }
      if (event.key === "Escape") { lit.pinned.clear(); paint(); }
      if (key && viewer.classList.contains("og-live")) step(event);
    });
    document.addEventListener("keydown", function (event) {
      if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
      var alone = document.querySelectorAll(".og-viewer").length === 1 && event.target === document.body;
      if (viewer.classList.contains("og-live") || (!alone && !viewer.contains(event.target))) return;
      if (event.key === "ArrowLeft") { event.preventDefault(); walk(-1); }
      if (event.key === "ArrowRight") { event.preventDefault(); walk(1); }
    });

    function follow() {
      var match = /^#(focus|example)=(.+)$/.exec(location.hash);
      var part = match ? document.getElementById(match[2]) : null;
      if (!part || !viewer.contains(part)) return;
      filter = "all";
      if (pick) pick.value = "";
      show(part.closest(".og-example"));
      part.scrollIntoView({ block: "center" });
      if (match[1] !== "focus") return;
      part.focus();
      lit.focus = part.dataset.point || null; /* a page in the background gets no focus event */
      paint();
    }
    window.addEventListener("hashchange", follow);

    show(current);
    follow();
    return { paint: paint };
  }

  document.querySelectorAll(".og-viewer").forEach(start);
  return { start: start };
})();
