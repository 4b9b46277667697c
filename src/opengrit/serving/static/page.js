/* The page's behaviour: uploads pictures, shows answers as they grow without losing focus, keeps a history. */
var opengritPage = (function () {
  "use strict";

  var picture = "", source = "", asking = "", running = false, timer = null, next = null, viewer = null, entries = [], announced = {};

  function byId(id) { return document.getElementById(id); }
  function questionBox() { return document.querySelector("#og-question textarea"); }

  /* -- questions ----------------------------------------------------------------------------------------------- */

  function question() { return questionBox() ? questionBox().value : ""; }

  function setQuestion(text) {
    var set = Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value").set;
    set.call(questionBox(), text);
    questionBox().dispatchEvent(new Event("input", { bubbles: true }));
  }

  /* Asks the server, and shows the answer as it grows: each line of the response is an update. */
  function submit(models) {
    setRunning(true);
    asking = Array.from(crypto.getRandomValues(new Uint8Array(16)), function (b) { return b.toString(16).padStart(2, "0"); }).join("");
    var asked = { picture: picture, question: question(), models: models, id: asking };
    fetch("page/questions", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(asked) }).then(function (reply) {
      if (!reply.ok) return reply.json().then(function (said) { update({ html: "", status: said.error.message || said.error, running: false }); });
      return readLines(reply.body.getReader(), function (line) { update(JSON.parse(line)); }).then(function () { if (running) disconnected(); });
    }).catch(disconnected);
  }

  function readLines(reader, act) {
    var text = "", decoder = new TextDecoder();
    return reader.read().then(function next(part) {
      if (part.done) return;
      var lines = (text + decoder.decode(part.value, { stream: true })).split("\n");
      text = lines.pop();
      lines.forEach(act);
      return reader.read().then(next);
    });
  }

  function stop() { if (running) fetch("page/stop", { method: "POST", body: asking }).catch(disconnected); }

  function ask() { if (!running) byId("og-ask").click(); }

  function whenIdle(act) {
    if (!running) { act(); return; }
    next = act;
    byId("og-stop").click();
  }

  /* -- pictures ------------------------------------------------------------------------------------------------ */

  function showStatus(text, isProblem) {
    byId("og-status").textContent = text;
    byId("og-status").classList.toggle("og-problem", Boolean(isProblem));
  }

  function selectPicture(name, src, title) {
    picture = name; source = src;
    byId("og-thumb").src = src;
    byId("og-thumb").hidden = false;
    byId("og-choose").classList.add("og-has");
    byId("og-choose-name").textContent = title;
    byId("og-choose-how").textContent = "Choose, drop or paste another";
    document.body.classList.add("og-has-picture");
  }

  function upload(file) {
    showStatus("Reading the picture.");
    var name = file.name || "picture";
    return fetch("page/pictures?name=" + encodeURIComponent(name), { method: "POST", body: file }).then(function (reply) {
      return reply.json().then(function (said) {
        if (!reply.ok) { showStatus(said.error.message || said.error, true); return; }
        selectPicture(said.name, said.src, name);
        showStatus("");
        if (!running) { render(said.html); markEntry(null); }
        questionBox().focus();
      });
    }).catch(function () { showStatus("The server cannot be reached. Is it still running?", true); });
  }

  function firstPicture(transfer) {
    return Array.from((transfer && transfer.files) || []).find(function (file) {
      return file.type.indexOf("image/") === 0 || !file.type;
    });
  }

  /* -- answers ------------------------------------------------------------------------------------------------- */

  /* Makes `old` like `fresh` and keeps every unchanged node: focus, scroll and the picture stay. */
  function morph(old, fresh) {
    if (old.nodeType !== 1) { if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue; return; }
    Array.from(fresh.attributes).forEach(function (a) {
      if (a.name === "aria-pressed" || (a.name === "class" && old.dataset && old.dataset.point)) return;
      if (old.getAttribute(a.name) !== a.value) old.setAttribute(a.name, a.value);
    });
    Array.from(old.attributes).forEach(function (a) {
      if (!fresh.hasAttribute(a.name)) old.removeAttribute(a.name);
    });
    var place = old.firstChild;
    Array.from(fresh.childNodes).forEach(function (wanted) {
      var found = place;
      if (wanted.id) found = Array.from(old.children).find(function (c) { return c.id === wanted.id; }) || null;
      else if (place && (place.id || place.nodeName !== wanted.nodeName)) found = null;
      if (!found) { old.insertBefore(document.importNode(wanted, true), place); return; }
      if (found === place) place = place.nextSibling; else old.insertBefore(found, place);
      morph(found, wanted);
    });
    while (place) { var gone = place; place = place.nextSibling; old.removeChild(gone); }
  }

  function render(html) {
    var fresh = document.createElement("template");
    fresh.innerHTML = html;
    var wrapped = byId("og-result").cloneNode(false);
    wrapped.appendChild(fresh.content);
    morph(byId("og-result"), wrapped);
    viewer.paint();
  }

  /* Screen readers hear what is new in each text in whole sentences, and the answer at the end. */
  function announce() {
    var said = [];
    byId("og-result").querySelectorAll(".og-reply").forEach(function (part) {
      var text = part.querySelector(".og-text") ? part.querySelector(".og-text").textContent : "";
      var from = announced[part.id] || 0, ended = part.dataset.progress !== "writing";
      var to = ended ? text.length : Math.max(from, text.lastIndexOf(". ") + 1, text.lastIndexOf(">") + 1);
      if (to > from) said.push(text.slice(from, to));
      announced[part.id] = to;
      var end = part.querySelector(".og-problem, .og-final");
      if (ended && end) said.push(part.getAttribute("aria-label") + ": " + end.textContent + ". " + part.querySelector(".og-note").textContent);
    });
    if (said.length) byId("og-announcer").textContent = said.join(" ");
  }

  function setRunning(now) {
    var began = now && !running, ended = running && !now;
    running = now;
    document.body.classList.toggle("og-running", now);
    byId("og-ask").setAttribute("aria-disabled", String(now));
    byId("og-stop").setAttribute("aria-disabled", String(!now));
    if (began) {
      announced = {};
      if (document.activeElement === byId("og-ask")) byId("og-stop").focus({ preventScroll: true });
      timer = setInterval(checkServer, 3000);
    }
    if (ended) clearInterval(timer);
    if (ended && document.activeElement === byId("og-stop")) byId("og-ask").focus({ preventScroll: true });
    if (ended && next) { var act = next; next = null; setTimeout(act, 0); }
  }

  function scrollToResult() {
    var top = byId("og-result").getBoundingClientRect().top;
    if (top >= 0 && top < window.innerHeight / 2) return;
    var calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    byId("og-result").scrollIntoView({ block: "start", behavior: calm ? "auto" : "smooth" });
  }

  /* A server that is gone sends no updates: while some are awaited, check that it runs. */
  function checkServer() { fetch("page/alive", { cache: "no-store" }).catch(function () { if (running) disconnected(); }); }

  function update(said) {
    if (!said) return;
    showStatus(said.status, !said.running && said.status !== "");
    if (said.running !== running) setRunning(said.running);
    if (!said.html) return;
    var isNew = !byId("og-result").querySelector("#" + /id="([^"]+)"/.exec(said.html)[1]);
    render(said.html);
    markEntry(null);
    if (isNew) scrollToResult();
    announce();
    if (!said.running) addToHistory(said.html);
  }

  function disconnected() {
    showStatus("The server cannot be reached. Is it still running?", true);
    if (running) setRunning(false);
  }

  /* -- history ------------------------------------------------------------------------------------------------- */

  function addToHistory(html) {
    var finals = Array.from(byId("og-result").querySelectorAll(".og-final strong"));
    entries.unshift({ html: html, src: source, question: byId("og-result").querySelector(".og-asked").textContent.trim(),
                   answer: finals.map(function (f) { return f.textContent; }).join(" | ") || "no answer" });
    entries.length = Math.min(entries.length, 40);
    byId("og-history-section").hidden = false;
    byId("og-history").replaceChildren.apply(byId("og-history"), entries.map(function (entry, i) {
      var card = document.createElement("button"), image = document.createElement("img");
      var words = document.createElement("span"), answer = document.createElement("small");
      card.type = "button"; card.dataset.entry = String(i);
      image.src = entry.src; image.alt = "";
      words.textContent = entry.question; answer.textContent = entry.answer;
      words.append(answer); card.append(image, words);
      return card;
    }));
    markEntry(0);
  }

  function markEntry(index) {
    document.querySelectorAll("#og-history button").forEach(function (card) {
      if (card.dataset.entry === String(index)) card.setAttribute("aria-current", "true");
      else card.removeAttribute("aria-current");
    });
  }

  function fetchFile(link) {
    fetch(link.href).then(function (reply) {
      if (!reply.ok) return reply.text().then(function (problem) { showStatus(problem, true); });
      var name = /filename="([^"]+)"/.exec(reply.headers.get("Content-Disposition") || "");
      return reply.blob().then(function (content) {
        var way = document.createElement("a");
        way.href = URL.createObjectURL(content);
        way.download = name ? name[1] : "answer";
        way.click();
        setTimeout(function () { URL.revokeObjectURL(way.href); }, 60000);
      });
    }).catch(function () { showStatus("The server cannot be reached. Is it still running?", true); });
  }

  /* -- colours ------------------------------------------------------------------------------------------------- */

  function paintTheme() {
    var dark = document.body.classList.contains("dark");
    if (byId("og-theme")) byId("og-theme").setAttribute("aria-pressed", String(dark));
  }

  /* -- events -------------------------------------------------------------------------------------------------- */

  document.addEventListener("click", function (event) {
    if (!running || !event.target.closest || !event.target.closest("#og-ask")) return;
    event.preventDefault();
    event.stopPropagation();
  }, true);
  document.addEventListener("click", function (event) {
    var part = event.target.closest ? event.target.closest("button, a") : null;
    if (!part) return;
    if (part.id === "og-choose") byId("og-file").click();
    if (part.id === "og-theme") { document.body.classList.toggle("dark"); paintTheme(); }
    if (part.dataset.example) {
      whenIdle(function () {
        selectPicture(part.dataset.example, part.querySelector("img").getAttribute("src"), "Example picture");
        setQuestion(part.dataset.question);
        setTimeout(ask, 0);
      });
    }
    if (part.dataset.entry && !running) { render(entries[Number(part.dataset.entry)].html); markEntry(part.dataset.entry); showStatus(""); scrollToResult(); }
    if (part.getAttribute("href") === "#og-own") {
      event.preventDefault(); /* following the link would take the focus away */
      byId("og-own").open = true;
      byId("og-own").querySelector("summary").focus();
    }
    if (part.closest(".og-downloads")) { event.preventDefault(); fetchFile(part); }
  });
  document.addEventListener("change", function (event) {
    if (event.target.id !== "og-file" || !event.target.files.length) return;
    upload(event.target.files[0]);
    event.target.value = "";
  });
  document.addEventListener("keydown", function (event) {
    if (event.key !== "Enter" || event.isComposing || !event.target.closest) return;
    var inBox = event.target.closest("#og-question") !== null;
    if (inBox && event.shiftKey) { event.stopPropagation(); return; } /* a new line */
    if (inBox || event.ctrlKey || event.metaKey) { event.preventDefault(); event.stopPropagation(); ask(); }
  }, true);
  document.addEventListener("keypress", function (event) {
    /* Gradio makes a "submit" of Shift and Enter, and takes the new line away. */
    if (event.key === "Enter" && event.target.closest("#og-question")) event.stopPropagation();
  }, true);
  document.addEventListener("keydown", function (event) {
    if (event.key === "Escape" && running && !event.target.closest("#og-result")) byId("og-stop").click();
  });
  document.addEventListener("paste", function (event) {
    var file = firstPicture(event.clipboardData);
    if (file) { event.preventDefault(); upload(file); }
  });
  ["dragenter", "dragover"].forEach(function (kind) {
    document.addEventListener(kind, function (event) {
      if (!event.dataTransfer || !Array.from(event.dataTransfer.types).includes("Files")) return;
      event.preventDefault();
      document.body.classList.add("og-dragging");
    });
  });
  document.addEventListener("dragleave", function (event) {
    if (!event.relatedTarget) document.body.classList.remove("og-dragging");
  });
  document.addEventListener("drop", function (event) {
    document.body.classList.remove("og-dragging");
    if (!event.dataTransfer || !event.dataTransfer.files.length) return;
    event.preventDefault();
    var file = firstPicture(event.dataTransfer);
    if (file) upload(file); else showStatus("This is not a picture. Drop a PNG or a JPEG, for example.", true);
  });

  function start() {
    if (!["og-result", "og-ask", "og-stop", "og-status", "og-history"].every(byId) || !questionBox()) {
      requestAnimationFrame(start);
      return;
    }
    viewer = opengritViewer.start(byId("og-result"));
    byId("og-stop").setAttribute("aria-disabled", "true");
    paintTheme();
    document.body.classList.add("og-started");
  }

  return { submit: submit, stop: stop, start: start };
})();
